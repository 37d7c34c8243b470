"""Sixth stage: the tables. Rows are read from the checkpoint's files and written in one go; they cross no shuffle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, Generic, Literal, TypeVar

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet
from apache_beam.io.tfrecordio import _TFRecordUtil
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from rows.arrow import RECORDINGS_SCHEMA, embeddings_schema, embeddings_table, recordings_table
from rows.checkpoint import DamagedRecord, read_embedding
from rows.example import encode_example
from rows.model import FailureRow, RecordingRow, TableRow
from rows.store import Store, open_store
from transforms.choose_rows import Place
from transforms.quiet import quiet_worker
from transforms.shards import WriteShards

OutputFormat = Literal["tfrecord", "parquet"]

_ROWS_PER_GROUP = 4096
"""Recordings' rows in a row group."""

T = TypeVar("T")


def read_places(store: Store, places: tuple[str, Iterable[tuple[Place, ...]]]) -> list[TableRow]:
    """The rows that come from the `places` in a file of the checkpoint, in the order of the file."""
    file, of_recordings = places
    data = store.read(file)
    rows: list[TableRow] = []
    try:
        for place in sorted(place for some in of_recordings for place in some):
            clip = read_embedding(data, place.offset)
            rows += (
                TableRow(clip._replace(clip_index=use.clip_index), use.manifest_row, use.metadata) for use in place.uses
            )
    except DamagedRecord as error:
        raise DamagedRecord(
            f"{file!r} of the checkpoint {store.folder!r} was changed after it was written: {error}"
        ) from None
    return rows


class _ReadRows(beam.DoFn):
    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = checkpoint

    def setup(self) -> None:
        quiet_worker()
        self._store = open_store(self._checkpoint)

    def process(self, element: tuple[str, Iterable[tuple[Place, ...]]]) -> Iterator[list[TableRow]]:
        yield read_places(self._store, element)


class TFRecordWriter:
    """Writes rows as `tf.train.Example` records."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, element: list[TableRow]) -> None:
        """Appends rows, a record each."""
        for row in element:
            _TFRecordUtil.write_record(self._file, encode_example(row))

    def close(self) -> None:
        """A TFRecord file needs no end."""


class ParquetWriter(Generic[T]):
    """Writes lists of rows as Parquet, a row group for each."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, to_table: Callable[[list[T]], pa.Table]) -> None:
        self._writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
        self._to_table = to_table

    def write(self, element: list[T]) -> None:
        """Appends rows."""
        self._writer.write_table(self._to_table(element))

    def close(self) -> None:
        """Writes the footer."""
        self._writer.close()


RECORDINGS_TO_PARQUET = partial(ParquetWriter[RecordingRow], schema=RECORDINGS_SCHEMA, to_table=recordings_table)


def embeddings_to_parquet(*, has_manifest: bool) -> Callable[[BinaryIO], ParquetWriter[TableRow]]:
    """What opens a Parquet file of embeddings."""
    schema = embeddings_schema(has_manifest=has_manifest)
    return partial(ParquetWriter[TableRow], schema=schema, to_table=partial(embeddings_table, schema=schema))


class FailuresWriter:
    """Writes failures as lines of JSON; what is not known is null."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, element: FailureRow) -> None:
        """Appends a line."""
        self._file.write(json.dumps(element._asdict(), ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Lines need no end."""


class ReadRows(beam.PTransform):
    """Places of rows, by file of the `checkpoint`, into lists of TableRow; whoever writes them is fused with this."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self._read = _ReadRows(checkpoint)

    def expand(self, places: beam.PCollection) -> beam.PCollection:
        return places | "Read" >> beam.ParDo(self._read)


class WriteEmbeddings(beam.PTransform):
    """Lists of rows into `PREFIX-SSSSS-of-NNNNN.tfrecord` or `.parquet`.

    Args:
      prefix: of the files' names.
      output_format: `tfrecord` (a `tf.train.Example` a row, see rows.example) or `parquet` (see rows.arrow).
      run_id: of this run.
      has_manifest: whether rows have a manifest's row number and columns.

    Returns the names of the files.
    """

    def __init__(self, prefix: str, output_format: OutputFormat, run_id: str, *, has_manifest: bool = False) -> None:
        super().__init__()
        writer: Callable[[BinaryIO], Any] = TFRecordWriter
        if output_format == "parquet":
            writer = embeddings_to_parquet(has_manifest=has_manifest)
        self._write = WriteShards(prefix, f".{output_format}", writer, run_id)

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return rows | "Into files" >> self._write


class _GatherRecordings(beam.DoFn):
    def start_bundle(self) -> None:
        self._rows: list[RecordingRow] = []

    def process(self, element: RecordingRow) -> Iterator[list[RecordingRow]]:
        self._rows.append(element)
        if len(self._rows) == _ROWS_PER_GROUP:
            yield self._rows
            self._rows = []

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._rows:
            window = GlobalWindow()
            yield WindowedValue(self._rows, window.max_timestamp(), [window])


class WriteRecordings(beam.PTransform):
    """Rows of recordings into `PREFIX-recordings-SSSSS-of-NNNNN.parquet`, named after `after`; returns the files' names."""

    def __init__(self, prefix: str, run_id: str, after: beam.PCollection | None = None) -> None:
        super().__init__()
        self._write = WriteShards(f"{prefix}-recordings", ".parquet", RECORDINGS_TO_PARQUET, run_id, after)

    def expand(self, recordings: beam.PCollection) -> beam.PCollection:
        return recordings | "Gather" >> beam.ParDo(_GatherRecordings()) | "Into files" >> self._write


class WriteFailures(beam.PTransform):
    """Failures into `PREFIX-failures-SSSSS-of-NNNNN.jsonl`, named after `after`; returns the names of the files."""

    def __init__(self, prefix: str, run_id: str, after: beam.PCollection | None = None) -> None:
        super().__init__()
        self._write = WriteShards(f"{prefix}-failures", ".jsonl", FailuresWriter, run_id, after)

    def expand(self, failures: beam.PCollection) -> beam.PCollection:
        return failures | "Into files" >> self._write
