"""Sharded files under exact names: a shard a bundle, written where the rows are, named when all are there.

Beam's own file sinks are not used because before they name their files, they delete whatever matches
`PREFIX-*-of-NNNNN`: with the prefix `out/a` also `out/a-recordings-00000-of-00001.parquet`, and the files of
another run with the prefix `out/a-b`.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Generic, Protocol, TypeVar

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms.files import create, explained, folder_of, remove_folder, rename, write_whole
from transforms.quiet import quiet_worker

T_contra = TypeVar("T_contra", contravariant=True)
T = TypeVar("T")


class ShardWriter(Protocol[T_contra]):
    """Writes elements into one open file."""

    def write(self, element: T_contra) -> None:
        """Appends an element."""

    def close(self) -> None:
        """Writes what is still to be written; the file itself is closed by the caller."""


def shard_name(prefix: str, index: int, shards: int, suffix: str) -> str:
    """`PREFIX-00002-of-00005.tfrecord` and the like."""
    return f"{prefix}-{index:05d}-of-{shards:05d}{suffix}"


def unfinished_folder(prefix: str, run_id: str, suffix: str) -> str:
    """The hidden folder beside the output in which a run's shards are until they are named."""
    folder = folder_of(prefix)
    return f"{folder}.{prefix.removeprefix(folder)}-{run_id}{suffix}"


class _WriteShard(beam.DoFn, Generic[T]):
    def __init__(self, folder: str, open_writer: Callable[[BinaryIO], ShardWriter[T]]) -> None:
        self._folder = folder
        self._open_writer = open_writer

    def setup(self) -> None:
        quiet_worker()

    def start_bundle(self) -> None:
        self._path: str | None = None

    def process(self, element: T) -> None:
        with explained(self._folder):
            if self._path is None:
                self._path = f"{self._folder}/{uuid.uuid4().hex}"
                self._file = create(self._path)
                self._writer = self._open_writer(self._file)
            self._writer.write(element)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._path is not None:
            with explained(self._path):
                self._writer.close()
                self._file.close()
            window = GlobalWindow()
            yield WindowedValue(self._path, window.max_timestamp(), [window])


class _NameShards(beam.DoFn, Generic[T]):
    """Gives the shards their names. May be run again after it was cut off: the order of the shards is always the same."""

    def __init__(
        self, folder: str, prefix: str, suffix: str, open_writer: Callable[[BinaryIO], ShardWriter[T]]
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._suffix = suffix
        self._open_writer = open_writer

    def process(self, _once: None, written: Iterable[str], _after: Iterable[str] = ()) -> Iterator[str]:
        paths = sorted(written)
        names = [shard_name(self._prefix, index, len(paths), self._suffix) for index in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            with explained(name):
                rename(path, name)
        if not names:
            names = [shard_name(self._prefix, 0, 1, self._suffix)]
            write_whole(names[0], self._no_rows())
        yield from names
        remove_folder(self._folder)

    def _no_rows(self) -> bytes:
        file = io.BytesIO()
        self._open_writer(file).close()
        return file.getvalue()


class WriteShards(beam.PTransform, Generic[T]):
    """Writes elements into `PREFIX-SSSSS-of-NNNNN<suffix>`, at least one file.

    Args:
      prefix: of the names.
      suffix: of the names, with its dot.
      open_writer: what writes elements into an open file; pickled.
      run_id: keeps the unfinished shards of different runs apart; they are in a hidden folder beside the output.
      after: what must be there before the shards get their names, so that a run that fails names none.

    Returns the names of the files.
    """

    def __init__(
        self,
        prefix: str,
        suffix: str,
        open_writer: Callable[[BinaryIO], ShardWriter[T]],
        run_id: str,
        after: beam.PCollection | None = None,
    ) -> None:
        super().__init__()
        self._after = after
        self._prefix = prefix
        self._suffix = suffix
        self._open_writer = open_writer
        self._folder = unfinished_folder(prefix, run_id, suffix)

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        written = elements | "Write shards" >> beam.ParDo(_WriteShard(self._folder, self._open_writer))
        name = _NameShards(self._folder, self._prefix, self._suffix, self._open_writer)
        waits_for = [beam.pvalue.AsIter(written)]
        if self._after is not None:
            waits_for.append(beam.pvalue.AsIter(self._after))
        return elements.pipeline | "Once" >> beam.Create([None]) | "Name shards" >> beam.ParDo(name, *waits_for)
