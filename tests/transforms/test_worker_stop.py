"""Worker processes that are told to stop store what they hold before they end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rows.checkpoint import read_all
from transforms.worker_stop import STOPPED, WorkerStop, stop_when_told

_WORKER = """
import sys, time
from rows.store import open_store
from rows.writer import CheckpointWriter
from tests.rows.samples import embedding_row
from transforms.worker_stop import stop_when_told
stop_when_told()
stop_when_told()
write = open_store(sys.argv[1]).write if sys.argv[2] != "stuck" else lambda *_: time.sleep(600)
writer = CheckpointWriter("run", write, flush_s=1e9)
writer.add("p", "s", embedding_row(sys.argv[2]))
print("holds a row", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stop():
    made = WorkerStop()
    yield made
    made.close()


def worker(checkpoint: Path, clip: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(checkpoint), clip], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds a row\n"
    return process


def test_all_workers_store_their_rows_and_end(stop: WorkerStop, tmp_path: Path) -> None:
    with worker(tmp_path, "a") as one, worker(tmp_path, "b") as other:
        assert stop.tell(60)
        assert (one.wait(60), other.wait(60)) == (STOPPED, STOPPED)
    rows = [row for path in tmp_path.rglob("*.rows") for _, row in read_all(path.read_bytes())]
    assert sorted(row.clip_id for row in rows) == ["a", "b"]


def test_workers_that_do_not_end_are_given_up(stop: WorkerStop, tmp_path: Path) -> None:
    with worker(tmp_path, "stuck") as stuck:
        try:
            assert not stop.tell(0.3)
            assert stuck.poll() is None
        finally:
            stuck.kill()


def test_without_workers_there_is_nothing_to_wait_for(stop: WorkerStop) -> None:
    assert stop.tell(60)


def test_a_pipe_that_is_gone_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made = WorkerStop()
    path = os.environ["HEAR_PIPELINE_STOP"]
    made.close()
    assert "HEAR_PIPELINE_STOP" not in os.environ
    assert not Path(path).parent.exists()
    monkeypatch.setenv("HEAR_PIPELINE_STOP", path)
    stop_when_told(lambda _: pytest.fail("it was told nothing"))
    assert made.tell(60) is not False
