"""One run at a time on a checkpoint, on disk and on a real storage server."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rows.bucket_lease import JOB_APPEARS_WITHIN_S
from rows.lease import BucketLease, Holder, LeaseError, LeaseTaken, holding, remove_lease
from rows.lease_holder import AskJob, Job, JobState, JobUnclear, from_json, to_json
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


JOB = Job("study-1", "us-west1", "hear-daily")
CREATED = JOB._replace(id="2026-01-01_00_00_00-123")


def test_a_lease_is_read_as_it_was_written() -> None:
    for holder in (far_away("run"), far_away("run")._replace(job=JOB), far_away("run")._replace(job=CREATED)):
        assert from_json(to_json(holder)) == holder
    # As the version before wrote it.
    assert from_json(b'{"run_id": "run", "host": "h", "process": 1, "boot": "", "started": "t"}') == Holder(
        "run", "h", 1, "", "t"
    )


class Jobs:
    """Says what became of jobs."""

    def __init__(self, state: JobState | JobUnclear) -> None:
        self.state = state
        self.asked: list[Job] = []

    def __call__(self, job: Job, handed_over_s: float) -> JobState:
        self.asked.append(job)
        if isinstance(self.state, JobUnclear):
            raise self.state
        return self.state


def handed_over(checkpoint: str, *jobs: Job) -> None:
    """What a launcher leaves that has submitted a job and ended."""
    first = lease(checkpoint, "first", Clock(), [])
    first.acquire()
    for job in jobs:
        first.hand_over(job)
    assert first.is_handed_over
    first.release()


def next_run(checkpoint: str, ask: AskJob, after_s: float = 0.0, run_id: str = "second") -> BucketLease:
    clock = Clock()
    clock.now += after_s
    return BucketLease(checkpoint, far_away(run_id), never, ask, renew_s=1e6, clock=clock)


@pytest.mark.parametrize("after_s", [0.0, 1e6])
def test_a_job_that_is_at_work_has_the_lease_however_long(in_bucket: str, after_s: float) -> None:
    handed_over(in_bucket, JOB, CREATED)
    jobs = Jobs("active")
    with pytest.raises(LeaseTaken) as refused:
        next_run(in_bucket, jobs, after_s).acquire()
    assert jobs.asked == [CREATED]
    said = str(refused.value)
    assert "run first (job hear-daily (2026-01-01_00_00_00-123) on Dataflow, project study-1, us-west1, since" in said
    assert "https://console.cloud.google.com/dataflow/jobs/us-west1/2026-01-01_00_00_00-123?project=study-1" in said


def test_a_job_that_has_ended_has_it_no_more(in_bucket: str) -> None:
    handed_over(in_bucket, JOB)
    second = next_run(in_bucket, Jobs("ended"))
    second.acquire()
    with pytest.raises(LeaseTaken, match=r"run second \(process"):
        next_run(in_bucket, Jobs("ended"), run_id="third").acquire()
    second.release()


def test_a_job_may_appear_some_minutes_after_its_launcher_has_ended(in_bucket: str) -> None:
    handed_over(in_bucket, JOB)
    with pytest.raises(LeaseTaken, match=r"its lease ends in (29\d|30\d) s; https://\S+/jobs\?project=study-1"):
        next_run(in_bucket, Jobs("absent"), JOB_APPEARS_WITHIN_S / 2).acquire()
    third = next_run(in_bucket, Jobs("absent"), JOB_APPEARS_WITHIN_S + 1)
    third.acquire()
    third.release()


def test_a_job_of_which_nobody_can_tell_counts_as_being_at_work(in_bucket: str) -> None:
    handed_over(in_bucket, JOB)
    ask = Jobs(JobUnclear("HTTP 403"))
    with pytest.raises(LeaseTaken, match=r"could not be asked \(HTTP 403\).*Dataflow Viewer.*lease\.json"):
        next_run(in_bucket, ask, 1e6).acquire()


def test_a_lease_that_is_taken_back_is_renewed_and_released_as_before(in_bucket: str) -> None:
    first = lease(in_bucket, "first", Clock(), [])
    first.acquire()
    first.hand_over(JOB)
    first.take_back()
    assert not first.is_handed_over
    with pytest.raises(LeaseTaken, match=r"run first \(process 1 on another-host"):
        next_run(in_bucket, Jobs("ended")).acquire()
    first.release()
    second = next_run(in_bucket, Jobs("active"))
    second.acquire()
    second.release()


def test_a_lease_that_another_run_took_is_neither_handed_over_nor_taken_back(in_bucket: str) -> None:
    first, clock = lease(in_bucket, "first", Clock(), []), Clock()
    first.acquire()
    clock.now += 1000
    second = lease(in_bucket, "second", clock, [])
    second.acquire()
    with pytest.raises(LeaseTaken, match="run second "):
        first.hand_over(JOB)
    assert not first.is_handed_over
    first.release()
    second.hand_over(JOB)
    third = next_run(in_bucket, Jobs("ended"), run_id="third")
    third.acquire()
    with pytest.raises(LeaseTaken, match="run third "):
        second.take_back()
    third.release()
