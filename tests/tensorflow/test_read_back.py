"""The TFRecord output is what TensorFlow reads; `make test-tensorflow` provides TensorFlow in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from emulator.recordings import write_recordings
from tests.e2e.running import embeddings, shards, succeed

PYTHON = os.environ.get("TENSORFLOW_PYTHON")


@pytest.mark.skipif(PYTHON is None, reason="needs TensorFlow: run make test-tensorflow")
def test_tensorflow_reads_the_rows_that_parquet_holds(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    write_recordings(folder)
    arguments = ("--endpoint", "local", "--input", folder)
    succeed(*arguments, "--output", tmp_path / "t", "--output_format", "tfrecord")
    succeed(*arguments, "--output", tmp_path / "p", "--output_format", "parquet")
    script = Path(__file__).with_name("read_back.py")
    done = subprocess.run(
        [str(PYTHON), str(script), *map(str, shards(tmp_path / "t", "tfrecord"))],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    read = [json.loads(line) for line in done.stdout.splitlines()]
    expected = embeddings(tmp_path / "p")
    assert {row["clip_id"] for row in read} == expected.keys()
    assert len(read) == len(expected)
    for row in read:
        for name, value in expected[row["clip_id"]].items():
            if name == "embedding":
                assert np.array_equal(np.float32(row[name]), value)
            elif isinstance(value, float):
                assert np.float32(row[name]) == np.float32(value), name
            else:
                assert row[name] == value, name
