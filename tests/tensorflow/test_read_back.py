"""The TFRecord output is what TensorFlow reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.recordings import write_recordings
from tests.e2e.running import embeddings, shards, succeed

tf: Any = pytest.importorskip("tensorflow", reason="needs TensorFlow: run make test-tensorflow")

TEXTS = ("clip_id", "recording_uri", "recording_version", "channel", "codec", "model_id", "endpoint", "fingerprint")
NUMBERS = ("start_s", "end_s", "padded_s", "rms_dbfs", "peak_dbfs")
COUNTS = ("clip_index", "source_rate_hz", "source_channels")
FEATURES = {
    **{name: tf.io.FixedLenFeature([], tf.string) for name in TEXTS},
    **{name: tf.io.FixedLenFeature([], tf.float32) for name in NUMBERS},
    **{name: tf.io.FixedLenFeature([], tf.int64) for name in COUNTS},
    "embedding": tf.io.FixedLenFeature([512], tf.float32),
}


def test_tensorflow_reads_the_rows_that_parquet_holds(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    write_recordings(folder)
    arguments = ("--endpoint", "local", "--input", folder)
    succeed(*arguments, "--output", tmp_path / "t", "--output_format", "tfrecord")
    succeed(*arguments, "--output", tmp_path / "p", "--output_format", "parquet")
    records = list(tf.data.TFRecordDataset([str(path) for path in shards(tmp_path / "t", "tfrecord")]))
    read = [tf.io.parse_single_example(record, FEATURES) for record in records]
    expected = embeddings(tmp_path / "p")
    assert {row["clip_id"].numpy().decode() for row in read} == expected.keys()
    assert len(read) == len(expected)
    for row in read:
        in_parquet = expected[row["clip_id"].numpy().decode()]
        assert in_parquet.keys() == row.keys()
        for name in TEXTS:
            assert row[name].numpy().decode() == in_parquet[name], name
        for name in (*NUMBERS, *COUNTS):
            assert row[name].numpy() == row[name].numpy().dtype.type(in_parquet[name]), name
        np.testing.assert_array_equal(row["embedding"].numpy(), in_parquet["embedding"])
