"""The main job over real recordings, once with each resampler: the same clips at the same places, embedded alike."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.running import embeddings, recordings, succeed
from tests.recordings import every, health_recordings, needs_shared_audio

pytest.importorskip("tensorflow_io", reason="needs tensorflow-io: run make test-tensorflow")

Row = dict[str, Any]
HEARD_DBFS = -90
"""Below there is silence, or what rounding has left of it."""


@needs_shared_audio
def test_rows_differ_in_fingerprint_and_samples_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = health_recordings(every(6))
    rows: dict[str, dict[tuple[str, str, int], Row]] = {}
    about: dict[str, dict[str, Row]] = {}
    settings: dict[str, Row] = {}
    for resampler in ("soxr", "tensorflow_io"):
        prefix = tmp_path / resampler
        options = ("--endpoint", "local", "--input", *files, "--output", prefix, "--output_format", "parquet")
        summary = succeed(*options, "--resampler", resampler)
        settings[resampler] = summary["fingerprint_settings"]
        assert ("tensorflow-io" in summary["versions"], "soxr" in summary["versions"]) == (
            resampler == "tensorflow_io",
            resampler == "soxr",
        )
        found = embeddings(prefix)
        rows[resampler] = {(row["recording_uri"], row["channel"], row["clip_index"]): row for row in found.values()}
        about[resampler] = recordings(prefix)
        assert len(rows[resampler]) == len(found) > 100
        fingerprint = _hash(settings[resampler])[:16]
        for clip_id, row in found.items():
            assert row["fingerprint"] == fingerprint
            start_sample = round(row["start_s"] * 16_000)
            said = ["clip", row["recording_uri"], row["recording_version"], row["channel"], start_sample, fingerprint]
            assert clip_id == _hash(said)[:32]
    assert settings["soxr"] == {**settings["tensorflow_io"], "resampler": "soxr HQ"}
    assert about["soxr"] == about["tensorflow_io"]

    similar, rates = [], set()
    ours, theirs = rows["soxr"], rows["tensorflow_io"]
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        other = theirs[key]
        for name in row.keys() - {"clip_id", "fingerprint", "embedding", "rms_dbfs", "peak_dbfs"}:
            assert row[name] == other[name], name
        if row["source_rate_hz"] == 16_000:
            np.testing.assert_array_equal(row["embedding"], other["embedding"])
        elif row["rms_dbfs"] > HEARD_DBFS:
            assert abs(row["rms_dbfs"] - other["rms_dbfs"]) < 1  # what is between the two pass bands
            norms = np.linalg.norm(row["embedding"]) * np.linalg.norm(other["embedding"])
            similar.append(np.dot(row["embedding"], other["embedding"]) / norms)
            rates.add(row["source_rate_hz"])
    assert rates == {8_000, 44_100, 48_000}
    assert any(row["source_rate_hz"] == 16_000 for row in ours.values())
    with capsys.disabled():
        print(
            f"\n{len(similar)} clips resampled by soxr and by tensorflow_io: cosine similarity of their embeddings (stand-in) "
            f"{np.median(similar):.5f} in the middle, {min(similar):.5f} at least"
        )
    assert min(similar) > 0.95
    assert np.median(similar) > 0.999


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
