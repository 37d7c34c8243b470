"""Tables are read back by the libraries that their users have: Beam, protobuf, pyarrow, json."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.io import ReadFromTFRecord
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from rows.arrow import EMBEDDINGS_SCHEMA, RECORDINGS_SCHEMA
from rows.checkpoint import DamagedRecord
from rows.model import EmbeddingRow, FailureRow, Receipt, RecordingRow
from rows.store import open_store
from tests.rows.samples import census, embedding_row, failure_row
from tests.rows.test_example import EXAMPLE, official
from tests.transforms.samples import store
from transforms.choose_rows import Place, Use
from transforms.write_tables import OutputFormat, ReadRows, WriteEmbeddings, WriteFailures, WriteRecordings, read_places

ROWS = [
    embedding_row(
        clip_id=f"{number:032x}", uri=f"/in/{'кашель #1' if number % 2 else 'a b'}.wav", seed=number, clip_index=number
    )
    for number in range(7)
]
ROWS[3] = ROWS[3]._replace(rms_dbfs=-math.inf, peak_dbfs=-math.inf, embedding=np.full(512, 1e-40, np.float32))


@pytest.fixture
def receipts(tmp_path: Path) -> list[Receipt]:
    """Receipts for ROWS in two checkpoint files, which hold other rows too."""
    other = [("other", embedding_row(clip_id="not asked for")), ("s", failure_row()), ("s", census())]
    first = store(tmp_path / "run", "run/p/0.rows", [("s", row) for row in ROWS[4:]] + other)
    second = store(tmp_path / "run", "run/q/0.rows", other + [("s", row) for row in ROWS[:4]])
    return [receipt for receipt in first + second if receipt.segment_id == "s"]


def places_of(receipts: list[Receipt]) -> list[tuple[str, list[tuple[Place, ...]]]]:
    """Of each row, to become one row of a table without a manifest."""
    indices = {row.clip_id: row.clip_index for row in ROWS}
    return [
        (some.file, [(Place(ref.offset, (Use(indices[ref.clip_id], None, ()),)),) for ref in reversed(some.clips)])
        for some in receipts
    ]


def deterministic(record: bytes) -> bytes:
    """The record with its features in protobuf's own order."""
    return EXAMPLE.FromString(record).SerializeToString(deterministic=True)


def write(
    run_folder: Path, prefix: Path, output_format: OutputFormat, places: Iterable[Any], *, has_manifest: bool = False
) -> list[Path]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        writing = WriteEmbeddings(str(prefix), output_format, "run-id", has_manifest=has_manifest)
        pipeline | beam.Create(list(places)) | ReadRows(str(run_folder)) | writing
    return sorted(prefix.parent.iterdir())


def test_places_are_read_in_the_order_of_the_file(tmp_path: Path, receipts: list[Receipt]) -> None:
    file = next(iter(places_of(receipts)))
    read = read_places(open_store(str(tmp_path / "run")), file)
    assert [row.clip.clip_id for row in read] == [row.clip_id for row in ROWS[4:]]
    assert {row.manifest_row for row in read} == {None}


def test_a_clip_that_several_rows_of_a_manifest_want_is_a_row_for_each(tmp_path: Path, receipts: list[Receipt]) -> None:
    first = receipts[0]
    cough, sneeze = Use(3, 8, (("label", "cough"), ("id", "007"))), Use(0, 9, (("label", "sneeze"),))
    places = [(first.file, [(Place(first.clips[0].offset, (cough, sneeze)),)])]
    (file,) = write(tmp_path / "run", tmp_path / "out" / "a", "parquet", places, has_manifest=True)
    read = pq.read_table(file).to_pylist()
    assert [(row["clip_id"], row["clip_index"], row["manifest_row"], dict(row["metadata"])) for row in read] == [
        (ROWS[4].clip_id, 3, 8, {"label": "cough", "id": "007"}),
        (ROWS[4].clip_id, 0, 9, {"label": "sneeze"}),
    ]


def test_a_place_that_holds_no_embedding_is_an_error(tmp_path: Path, receipts: list[Receipt]) -> None:
    name, _ = places_of(receipts)[0]
    with pytest.raises(DamagedRecord):
        read_places(open_store(str(tmp_path / "run")), (name, [(Place(11, ()),)]))


def test_tfrecords_are_read_back_by_beam(tmp_path: Path, receipts: list[Receipt]) -> None:
    files = write(tmp_path / "run", tmp_path / "out" / "a", "tfrecord", places_of(receipts))
    assert [file.name for file in files] == [f"a-{n:05d}-of-{len(files):05d}.tfrecord" for n in range(len(files))]
    expected = [official(row).SerializeToString(deterministic=True) for row in ROWS]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = pipeline | ReadFromTFRecord(f"{tmp_path}/out/a-*.tfrecord") | beam.Map(deterministic)
        assert_that(read, equal_to(expected))


def test_parquet_is_read_back_by_pyarrow(tmp_path: Path, receipts: list[Receipt]) -> None:
    files = write(tmp_path / "run", tmp_path / "out" / "a", "parquet", places_of(receipts))
    assert [file.name for file in files] == [f"a-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    read = [row for file in files for row in pq.read_table(file).to_pylist()]
    for row, expected in zip(sorted(read, key=lambda row: row["clip_id"]), ROWS, strict=True):
        assert np.array_equal(np.float32(row.pop("embedding")), expected.embedding)
        assert row == dict(zip(EmbeddingRow._fields[:-1], expected[:-1], strict=True))


def test_no_rows_are_a_table_with_its_columns(tmp_path: Path) -> None:
    (parquet,) = write(tmp_path, tmp_path / "p" / "a", "parquet", [])
    assert pq.read_table(parquet).schema.equals(EMBEDDINGS_SCHEMA)
    assert pq.read_table(parquet).num_rows == 0
    (tfrecord,) = write(tmp_path, tmp_path / "t" / "a", "tfrecord", [])
    assert tfrecord.read_bytes() == b""


def recording_rows(number: int) -> list[RecordingRow]:
    return [
        RecordingRow(
            *(f"/in/{n}.wav", "1-1", 9, 2.0, "wav", "pcm_s16le", "libsndfile", 8000, 1, 0, 0.0, 0, 0, 0, 0, 0),
            *(("failed", ["truncated"]) if n % 2 else ("skipped", [])),
        )
        for n in range(number)
    ]


@pytest.mark.parametrize("number", [0, 1, 5000])
def test_recordings_are_read_back_by_pyarrow(tmp_path: Path, number: int) -> None:
    rows = recording_rows(number)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create(rows) | WriteRecordings(f"{tmp_path}/a", "run-id")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        f"a-recordings-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))
    ]
    tables = [pq.read_table(file) for file in files]
    assert all(table.schema.equals(RECORDINGS_SCHEMA) for table in tables)
    assert sorted(
        (row["recording_uri"], row["status"], row["failure_codes"]) for t in tables for row in t.to_pylist()
    ) == sorted((row.recording_uri, row.status, row.failure_codes) for row in rows)


def test_failures_are_a_line_of_json_each_whatever_is_in_them(tmp_path: Path) -> None:
    rows = [
        failure_row(),
        failure_row(
            "c" * 32,
            recording_uri='/in/new\nline "quoted" \u2028 кашель 🤧.wav',
            channel="0",
            attempts=8,
            retryable=True,
        ),
        failure_row(start_s=None),
    ]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create(rows) | WriteFailures(f"{tmp_path}/a", "run-id")
    (file,) = tmp_path.iterdir()
    assert file.name == "a-failures-00000-of-00001.jsonl"
    *lines, end = file.read_bytes().split(b"\n")
    assert end == b""
    read = [FailureRow(**json.loads(line)) for line in lines]
    assert sorted(read, key=repr) == sorted(rows, key=repr)


def test_no_failures_are_an_empty_file(tmp_path: Path) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | beam.Create([]) | WriteFailures(f"{tmp_path}/a", "run-id")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a-failures-00000-of-00001.jsonl", b"")]
