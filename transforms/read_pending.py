"""The clips that jobs were asked for, from the indices beside the shards that were committed."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from rows.pending import DamagedIndex, decode_clip, index_lines
from transforms.files import FileError, names_in, read_whole
from transforms.interruption import INTERRUPTION
from transforms.job_files import CLIPS, INDEX
from transforms.quiet import quiet_worker


def index_files(folder: str) -> list[str]:
    """The URIs of the indices of what is committed in a run's folder, sorted. Raises FileError where one is missing."""
    committed, indexed = _names(folder + CLIPS, ".jsonl"), _names(folder + INDEX, ".json")
    if missing := sorted(committed - indexed):
        raise _unusable(f"{folder}{INDEX}{missing[0]}.json", "is missing")
    return [f"{folder}{INDEX}{name}.json" for name in sorted(committed)]


def _names(folder: str, extension: str) -> set[str]:
    return {uri[len(folder) : -len(extension)] for uri in names_in(folder, "") if uri.endswith(extension)}


def read_index(path: str) -> list[tuple[str, bytes]]:
    """(digest, line) of each clip of an index, as `rows.pending.encode_clip` made the line. Raises FileError."""
    try:
        return [(decode_clip(line).digest, line) for line in index_lines(read_whole(path))]
    except DamagedIndex:
        raise _unusable(path, "is damaged") from None


def _unusable(path: str, what: str) -> FileError:
    folder = path.rpartition(INDEX)[0]
    return FileError(
        f"the index {path!r} {what}, so nobody can tell whose the results of its clips are: remove the folder {folder!r} and "
        "run again, which sends its clips once more"
    )


class FindIndices(beam.DoFn):
    """(number of a job, its folder) into (number, URI of an index)."""

    def setup(self) -> None:
        quiet_worker()

    def process(self, element: tuple[int, str]) -> Iterator[tuple[int, str]]:
        number, folder = element
        for path in index_files(folder):
            yield number, path


class ReadIndices(beam.DoFn):
    """(number of a job, URI of an index) into (key of number and digest, line of a clip)."""

    def setup(self) -> None:
        quiet_worker()

    def process(self, element: tuple[int, str]) -> Iterator[tuple[str, bytes]]:
        number, path = element
        for digest, line in read_index(path):
            INTERRUPTION.raise_if_asked()
            yield clip_key(number, digest), line


def clip_key(number: int, digest: str) -> str:
    """What the clips of a job and its answers are grouped by: those of another job may be a different model's."""
    return f"{number}:{digest}"
