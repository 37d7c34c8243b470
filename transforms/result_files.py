"""The files in which a batch prediction job answers: which they are, and their lines, read in parts by several workers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Final, NamedTuple

from audio.errors import FetchError
from audio.fetch import fetch_range
from audio.recording import Recording
from rows import objects
from transforms.files import FileError, explained_as
from transforms.job_files import RESULTS
from transforms.read_ahead import AheadFile

PART_BYTES: Final = 128 << 20
"""A file may hold many gigabytes: it is cut into parts of this size, one for a worker at a time."""
MAX_LINE_BYTES: Final = 8 << 20
"""A line repeats its clip (about 310 kB as numbers) beside the embedding; one that is longer than this is no answer."""

_BUFFER_BYTES: Final = 1 << 20

# https://cloud.google.com/vertex-ai/docs/predictions/get-batch-predictions: `prediction.results-00000-of-00002`,
# `prediction.errors_stats-00000-of-00001`; the older service wrote `predictions_0001.jsonl`, `errors_0001.jsonl`.
_NAME: Final = re.compile(r"prediction\.(?:results|errors_stats)-.*|(?:predictions|errors)_.*\.jsonl", re.DOTALL)


class ResultPart(NamedTuple):
    """The part of a file whose lines are read in one go: those that begin in it."""

    uri: str
    generation: str
    size_bytes: int
    """Of the whole file."""
    start: int
    stop: int


def is_result_file(uri: str) -> bool:
    """Whether an object is one of a job's answers, by the last part of its name."""
    return _NAME.fullmatch(uri.rpartition("/")[2]) is not None


def find_parts(folder: str, part_bytes: int) -> Iterator[ResultPart]:
    """The parts of all result files of the job whose run has this folder, `gs://bucket/.../`. Raises FileError."""
    results = folder + RESULTS
    with explained_as("list", results):
        for uri, generation, size_bytes in objects.versions(results):
            if is_result_file(uri):
                for start in range(0, size_bytes, part_bytes):
                    yield ResultPart(uri, generation, size_bytes, start, min(start + part_bytes, size_bytes))


def read_lines(part: ResultPart, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """The lines that begin in a part of a file, with their ends; None for one that is too long.

    Some megabytes are fetched ahead and held. Raises FileError; it says so, too, if the file is no longer the one that was
    listed.
    """
    fetch = partial(fetch_range, Recording(part.uri, part.generation, part.size_bytes))
    ahead = AheadFile(fetch, part.size_bytes, part.stop)
    try:
        with io.BufferedReader(ahead, _BUFFER_BYTES) as file:
            yield from lines_between(file, part.start, part.stop, max_line_bytes)
    except FetchError as error:
        raise FileError(f"cannot read {part.uri!r}: {error.message}") from None


def lines_between(file: BinaryIO, start: int, stop: int, max_line_bytes: int) -> Iterator[bytes | None]:
    """The lines of a seekable file that begin at `start` or behind it, and before `stop`; None for each that is too long.

    Whatever the places where a file is cut, each of its lines begins in one part.
    """
    if start:
        file.seek(start - 1)
        _skip_line(file, stop)
    while file.tell() < stop:
        line = file.readline(max_line_bytes + 1)
        if len(line) > max_line_bytes and not line.endswith(b"\n"):
            yield None
            _skip_line(file, stop)
        elif line:
            yield line
        else:
            return


def _skip_line(file: BinaryIO, stop: int) -> None:
    """Goes to where the next line begins, or as far as `stop`: a line without an end is not read to the end of the file."""
    while file.tell() < stop:
        piece = file.readline(1 << 20)
        if not piece or piece.endswith(b"\n"):
            return
