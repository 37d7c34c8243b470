"""The table equals, clip for clip, what an independent straightforward script makes of the same recordings."""

from pathlib import Path

import numpy as np
import pytest

from emulator.process import start_local_endpoint
from emulator.recordings import write_recordings
from tests.e2e.reference import reference_rows
from tests.e2e.running import embeddings, recordings, succeed
from tests.recordings import SHARED_AUDIO, every, needs_shared_audio


def compare(folder: Path, prefix: Path, every: int = 1) -> None:
    with start_local_endpoint() as local:
        arguments = ("--endpoint", local.endpoint_name, "--endpoint_host", local.host)
        summary = succeed(*arguments, "--input", folder, "--output", prefix, "--output_format", "parquet")
        rows = embeddings(prefix)
        good = [Path(uri) for uri, row in recordings(prefix).items() if row["status"] == "embedded"]
        good = sorted(good)[::every]
        expected = reference_rows(good, local.host, local.endpoint_name, summary["fingerprint"])
    assert len(good) >= 10
    of_good = {clip_id: row for clip_id, row in rows.items() if Path(row["recording_uri"]) in set(good)}
    assert of_good.keys() == expected.keys()
    for clip_id, reference in expected.items():
        row = rows[clip_id]
        for column in ("recording_uri", "recording_version", "clip_index", "start_s", "end_s", "padded_s"):
            assert row[column] == reference[column], (row["recording_uri"], column)
        assert row["model_id"] == "hear-stand-in-v1"
        assert 10 ** (row["peak_dbfs"] / 20) == pytest.approx(reference["peak"], rel=1e-4, abs=1e-9)
        assert 10 ** (row["rms_dbfs"] / 20) == pytest.approx(reference["rms"], rel=1e-4, abs=1e-9)
        assert np.abs(row["embedding"] - reference["embedding"]).max() <= 1e-5, (row["recording_uri"], row["start_s"])


def test_synthesised_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    write_recordings(folder)
    compare(folder, tmp_path / "out" / "rows")


@needs_shared_audio
def test_real_recordings(tmp_path: Path) -> None:
    """Every fifth of them, or all if REFERENCE is `all`: the script takes two minutes for these."""
    assert SHARED_AUDIO is not None
    compare(SHARED_AUDIO / "health", tmp_path / "rows", every(5))
