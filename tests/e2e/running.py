"""Runs the real command as a user would, and reads what it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[2]


def run_command(*arguments: object, timeout_s: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline` with these arguments, from the repository's folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_command(*arguments: object, own_session: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Starts it without waiting for its end; in a session of its own, as a terminal's job would be, if that is asked for."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=own_session,
    )


def succeed(*arguments: object, timeout_s: float = 300, **environment: str) -> dict[str, Any]:
    """Runs the command, which must succeed; its summary."""
    done = run_command(*arguments, timeout_s=timeout_s, **environment)
    assert done.returncode == 0, done.stderr
    return summary_of(arguments[list(map(str, arguments)).index("--output") + 1])


def summary_of(prefix: object) -> dict[str, Any]:
    """The summary of the run that wrote `prefix`; its counts must add up."""
    summary: dict[str, Any] = json.loads(Path(f"{prefix}-summary.json").read_text())
    assert summary["clips"] == summary["embedded"] + summary["failed"] + summary["skipped"]
    assert summary["recordings"] == sum(summary["recordings_by_status"].values())
    return summary


def embeddings(prefix: Path) -> dict[str, dict[str, Any]]:
    """Rows of `PREFIX-*.parquet` by clip id; none may be there twice."""
    rows = [row for path in shards(prefix, "parquet") for row in pq.read_table(path).to_pylist()]
    by_id = {row["clip_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    for row in rows:
        row["embedding"] = np.float32(row["embedding"])
    return by_id


def recordings(prefix: Path) -> dict[str, dict[str, Any]]:
    """Rows of the recordings table by URI; none may be there twice."""
    rows = [row for path in shards(Path(f"{prefix}-recordings"), "parquet") for row in pq.read_table(path).to_pylist()]
    by_uri = {row["recording_uri"]: row for row in rows}
    assert len(by_uri) == len(rows)
    return by_uri


def failures(prefix: Path) -> list[dict[str, Any]]:
    """Rows of the failures files."""
    lines = [line for path in shards(Path(f"{prefix}-failures"), "jsonl") for line in path.read_text().split("\n")]
    return [json.loads(line) for line in lines if line]


def shards(prefix: Path, extension: str) -> list[Path]:
    """`PREFIX-SSSSS-of-NNNNN.extension`, all of them and no others."""
    found = sorted(prefix.parent.glob(f"{prefix.name}-[0-9]*-of-[0-9]*.{extension}"))
    assert found
    assert {path.name for path in found} == {
        f"{prefix.name}-{index:05d}-of-{len(found):05d}.{extension}" for index in range(len(found))
    }
    return found


def assert_same_rows(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]], tolerance: float = 0.0) -> None:
    """Both have the same clips with the same columns; embeddings may differ by `tolerance`."""
    assert one.keys() == other.keys()
    for clip_id, row in one.items():
        assert {k: v for k, v in row.items() if k != "embedding"} == {
            k: v for k, v in other[clip_id].items() if k != "embedding"
        }
        assert np.abs(row["embedding"] - other[clip_id]["embedding"]).max() <= tolerance
