"""Last stage: old generations of the checkpoint put together, so that many small files become few."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import apache_beam as beam

from rows.checkpoint import MAGIC, encode_run, scan
from rows.generations import Merge, note_merge, remove_rows
from rows.store import Store, open_store
from transforms.read_earlier import NameFiles

_BUCKETS: Final = 16
_FILE_BYTES: Final = 64 << 20


def merge_files(store: Store, names: Iterable[str], prefix: str, file_bytes: int = _FILE_BYTES) -> None:
    """Copies the undamaged records of checkpoint files into few files `PREFIX-NNNNN.rows`; the same for the same files.

    Records keep the names of the runs that wrote them: of two that disagree, the later run's count.
    """
    parts: list[bytes] = []
    size_bytes = number = 0

    def write() -> None:
        nonlocal size_bytes, number
        if parts:
            store.write(f"{prefix}-{number:05d}.rows", MAGIC + b"".join(parts))
            parts.clear()
            size_bytes, number = 0, number + 1

    for name in sorted(names):
        data = store.read(name)
        parts.append(
            encode_run(name.partition("/")[0])
        )  # the file's own first record says so, too, unless it is damaged
        for record in scan(data):
            parts.append(data[record.offset : record.stop])
            size_bytes += record.stop - record.offset
        if size_bytes >= file_bytes:
            write()
    write()


def _bucket(name: str) -> tuple[int, str]:
    return zlib.crc32(name.encode()) % _BUCKETS, name


class _MergeFiles(beam.DoFn):
    def __init__(self, checkpoint: str, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name

    def process(self, element: tuple[int, Iterable[str]]) -> Iterator[int]:
        bucket, names = element
        merge_files(open_store(self._checkpoint), names, f"{self._name}/{bucket:05d}")
        yield bucket


class _Replace(beam.DoFn):
    def __init__(self, checkpoint: str, merge: Merge) -> None:
        self._checkpoint = checkpoint
        self._merge = merge

    def process(self, _once: None, _merged: Iterable[int]) -> None:
        store = open_store(self._checkpoint)
        note_merge(store, self._merge)
        remove_rows(store, self._merge.replaces)


class Compact(beam.PTransform):
    """Puts generations together once the tables, which are made of their files, are written.

    Args:
      checkpoint: its folder.
      merge: which ones, and the name of the generation that takes their place.

    Expects a PCollection that has an element when the tables are written.
    """

    def __init__(self, checkpoint: str, merge: Merge) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._merge = merge

    def expand(self, written: beam.PCollection) -> beam.PCollection:
        merged = (
            written
            | "Name old runs" >> beam.FlatMap(lambda _, names: names, self._merge.replaces)
            | "Name old files" >> beam.ParDo(NameFiles(self._checkpoint))
            | "Old files by bucket" >> beam.Map(_bucket)
            | "Group old files" >> beam.GroupByKey()
            | "Merge" >> beam.ParDo(_MergeFiles(self._checkpoint, self._merge.name))
        )
        return (
            written.pipeline
            | "Once merged" >> beam.Create([None])
            | "Replace" >> beam.ParDo(_Replace(self._checkpoint, self._merge), beam.pvalue.AsIter(merged))
        )
