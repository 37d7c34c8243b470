"""Runs with a budget of requests: never more is sent, and the next run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rows.checkpoint import read_all
from rows.model import EmbeddingRow
from tests.e2e.running import assert_same_rows, embeddings, failures, recordings, summary_of
from tests.e2e.served import Served, served
from tests.transforms.samples import write_wav

ROUND = 6
"""Requests beside those of the probe: 24 clips."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture(autouse=True)
def _look(endpoint: Served) -> None:
    endpoint.arrived()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 clips in 10 recordings, and one that is none."""
    path = tmp_path_factory.mktemp("recordings")
    for seed in range(9):
        write_wav(path / f"{seed}.wav", 4, seed=seed)
    write_wav(path / "long.wav", 72, seed=100)
    (path / "broken.wav").write_text("no sound")
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path, endpoint: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("undisturbed") / "r"
    endpoint.run("--input", folder, "--output", prefix, "--no_probe")
    endpoint.arrived()
    return prefix


def stored(checkpoint: Path) -> int:
    """Embeddings in the checkpoint's files."""
    rows = (row for path in checkpoint.rglob("*.rows") for _, row in read_all(path.read_bytes()))
    return sum(isinstance(row, EmbeddingRow) for row in rows)


def test_runs_with_a_budget_end_well_and_go_on_until_all_is_done(
    endpoint: Served, folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = ("--input", folder, "--output", tmp_path / "r", "--max_requests", 2 + ROUND)
    sent: Counter[str] = Counter()
    runs = 0
    is_finished = False
    while not is_finished:
        runs += 1
        assert runs <= 7
        done = endpoint.command(*arguments, "--delete_checkpoint", COLUMNS="200")
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr
        arrived = endpoint.arrived()
        assert arrived.requests <= 2 + ROUND
        sent += arrived.clips
        summary = summary_of(tmp_path / "r")
        table = recordings(tmp_path / "r")
        unfinished = [row for row in table.values() if row["status"] == "unfinished"]
        assert len(table) == 11
        assert summary["left"]["recordings"] == len(unfinished) == summary["recordings_by_status"]["unfinished"]
        # Of a recording that was not decoded to its end, the tables have nothing yet.
        assert len(embeddings(tmp_path / "r")) == summary["embedded"] <= sent.total()
        is_finished = not unfinished
        if is_finished:
            continue
        assert arrived.requests == 2 + ROUND
        assert ": the same command goes on" in done.stdout
        assert stored(tmp_path / "r-checkpoint") == sent.total(), "kept in spite of --delete_checkpoint"
    assert runs >= 3, "14 requests at least, 6 a run"
    assert set(sent.values()) == {1}
    assert_same_rows(embeddings(tmp_path / "r"), embeddings(undisturbed))
    assert recordings(tmp_path / "r") == recordings(undisturbed)
    assert not (tmp_path / "r-checkpoint").exists()


def test_two_worker_processes_share_the_budget(
    endpoint: Served, folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = ("--input", folder, "--output", tmp_path / "r", "--direct_running_mode=multi_processing")
    arguments += ("--direct_num_workers=2",)
    summary, arrived = endpoint.run(*arguments, "--max_requests", 5)
    assert arrived.requests == 5
    assert summary["embedded"] <= stored(tmp_path / "r-checkpoint") == arrived.clips.total() <= 3 * 4
    assert summary["left"]["recordings"] > 0
    first = arrived.clips
    summary, arrived = endpoint.run(*arguments, "--max_requests", 1000)
    assert set((first + arrived.clips).values()) == {1}
    assert summary["left"] == {"recordings": 0, "clips": 0}
    assert_same_rows(embeddings(tmp_path / "r"), embeddings(undisturbed), tolerance=1e-6)
    assert recordings(tmp_path / "r") == recordings(undisturbed)


def test_budgets_that_are_too_small(endpoint: Served, folder: Path, tmp_path: Path) -> None:
    arguments = ("--input", folder, "--output", tmp_path / "r")
    done = endpoint.command(*arguments, "--max_requests", 1)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--max_requests 1 is too small for the probe" in done.stderr
    assert endpoint.arrived().requests <= 1
    # Enough for the probe and nothing else: nothing is embedded, all is left, and the run has done what it was told.
    summary, arrived = endpoint.run(*arguments, "--max_requests", 2)
    assert (arrived.requests, summary["embedded"]) == (2, 0)
    assert summary["left"]["recordings"] >= 10
    endpoint.refused(*arguments, "--max_requests", 0, status=2, said=["--max_requests", "'0'"])


def test_retries_count(folder: Path, tmp_path: Path) -> None:
    with served(tmp_path, 0, "--faults=seed=3,503=0.3") as shaky:
        arguments = ("--input", folder, "--output", tmp_path / "r", "--no_probe", "--requests_in_flight", 4)
        summary, arrived = shaky.run(*arguments, "--max_requests", 12)
        assert arrived.requests == 12
        assert summary["left"]["recordings"] > 0
        assert {row["code"] for row in failures(tmp_path / "r")} <= {"not_audio", "unavailable"}
        summary, arrived = shaky.run(*arguments)
        assert summary["embedded"] == 54
        assert summary["failed"] == 0
