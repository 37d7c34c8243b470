"""One run at a time on a checkpoint, on disk and on a real storage server."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rows.lease import BucketLease, Holder, LeaseError, LeaseTaken, holding, remove_lease
from tests.audio.gcs import StorageServer

_HOLD = """
import sys
from rows.lease import holding
with holding(sys.argv[1], "first-run", print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["disk", "bucket"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path)
    request.getfixturevalue("server")
    return f"gs://bucket/{tmp_path.name}"


def never(reason: str) -> None:
    raise AssertionError(reason)


def other_process(checkpoint: str) -> subprocess.Popen[str]:
    """A process that holds the lease until its standard input ends, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, checkpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_by_name_and_gets_in_once_the_first_has_ended(checkpoint: str) -> None:
    with other_process(checkpoint) as first:
        with (
            pytest.raises(LeaseTaken, match=f"run first-run .process {first.pid} on "),
            holding(checkpoint, "second-run", never),
        ):
            pass
        first.communicate("", timeout=60)
    with holding(checkpoint, "second-run", never):
        pass


def test_a_lease_ends_with_a_process_that_is_killed(checkpoint: str) -> None:
    with other_process(checkpoint) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with holding(checkpoint, "second-run", never):
        pass


def test_two_in_one_process_are_two(checkpoint: str) -> None:
    with (
        holding(checkpoint, "one", never),
        pytest.raises(LeaseTaken, match="run one "),
        holding(checkpoint, "two", never),
    ):
        pass
    with holding(checkpoint, "two", never):
        pass


def test_a_lease_that_its_holder_removes_leaves_nothing(tmp_path: Path) -> None:
    for others in ([], ["a file of the user's"]):
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for name in others:
            (folder / name).touch()
        with holding(str(folder), "one", never):
            remove_lease(str(folder))
        assert folder.exists() == bool(others)
        if others:
            assert [path.name for path in folder.iterdir()] == others


def test_a_lease_that_is_removed_while_another_run_opens_it_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, locked = fcntl.flock, []

    def after_removal(file: int, operation: int) -> None:
        if not locked:
            (tmp_path / "lease.json").unlink()
        locked.append(file)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with (
        holding(str(tmp_path), "one", never),
        pytest.raises(LeaseTaken, match="run one "),
        holding(str(tmp_path), "two", never),
    ):
        pass
    assert len(locked) == 3


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "lease.json").mkdir()
    with pytest.raises(LeaseError, match=r"lease\.json"), holding(str(tmp_path), "run", never):
        pass


def test_a_lease_that_nobody_can_read_is_still_one(tmp_path: Path) -> None:
    with holding(str(tmp_path), "one", never):
        (tmp_path / "lease.json").write_text("{")
        with pytest.raises(LeaseTaken, match="another run is at work"), holding(str(tmp_path), "two", never):
            pass


class Clock:
    """Seconds that only pass when told."""

    def __init__(self) -> None:
        import time

        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def in_bucket(server: StorageServer, tmp_path: Path) -> str:
    return f"gs://bucket/{tmp_path.name}"


def far_away(run_id: str) -> Holder:
    return Holder(run_id, "another-host", 1, "boot", "2026-01-01T00:00:00Z")


def lease(checkpoint: str, run_id: str, clock: Clock, lost: list[str], holder: Holder | None = None) -> BucketLease:
    return BucketLease(checkpoint, holder or far_away(run_id), lost.append, renew_s=1e6, clock=clock)


def test_the_lease_of_another_machine_is_taken_over_when_it_was_not_renewed_for_long(in_bucket: str) -> None:
    clock, lost = Clock(), []
    first, second = lease(in_bucket, "first", clock, lost), lease(in_bucket, "second", clock, lost)
    first.acquire()
    clock.now += 60
    with pytest.raises(LeaseTaken, match=r"run first \(process 1 on another-host.* its lease ends in (59|60|61) s"):
        second.acquire()
    clock.now += 61
    second.acquire()
    with pytest.raises(LeaseTaken, match="run second "):
        first.renew()
    first.release()
    with pytest.raises(LeaseTaken, match="run second "):
        lease(in_bucket, "third", Clock(), lost).acquire()
    second.release()


def test_a_renewed_lease_stays(in_bucket: str) -> None:
    clock, lost = Clock(), []
    first = lease(in_bucket, "first", clock, lost)
    first.acquire()
    first.renew()
    first.renew()
    with pytest.raises(LeaseTaken):
        lease(in_bucket, "second", clock, lost).acquire()
    first.release()


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once(in_bucket: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = Holder.of_this_process("first")._replace(process=ended.pid)
    clock, lost = Clock(), []
    lease(in_bucket, "first", clock, lost, gone).acquire()
    second = lease(in_bucket, "second", clock, lost)
    second.acquire()
    second.release()


def test_a_holder_is_gone_after_a_restart_of_its_machine() -> None:
    alive = Holder.of_this_process("run")
    assert not alive.is_gone()
    assert alive._replace(boot="another").is_gone()
    assert not far_away("run").is_gone(), "nobody knows"
    assert json.loads(json.dumps(alive._asdict()))["process"] == os.getpid()
