"""A job is followed to its end, whatever that is, and however often Dataflow cannot be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.launch import RunFailed
from pipeline.on_dataflow import JobGoesOn, follow
from rows.lease_holder import Job

JOB = Job("study-1", "us-west1", "hear-daily", "2026-01-01_00_00_00-123")
LINK = "https://console.cloud.google.com/dataflow/jobs/us-west1/2026-01-01_00_00_00-123?project=study-1"


class Unavailable(Exception):
    code = 503


class FakeJobs:
    """Answers with the states, one after the other, the last one again and again; raises those that are errors."""

    def __init__(self, *states: str | BaseException, known: str | None = None) -> None:
        self.states = list(states)
        self.known = known

    def state(self, job: Job) -> str:
        assert job == JOB
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, BaseException):
            raise state
        return state

    def counts(self, job: Job) -> Counter[str]:
        return Counter(recordings=3, embedded=12)

    def known_error(self, job: Job) -> str | None:
        return self.known


class FakeLease:
    def __init__(self) -> None:
        self.is_taken_back = False

    def take_back(self) -> None:
        self.is_taken_back = True


class Following:
    """Follows without waiting, and notes what was said."""

    def __init__(self, jobs: FakeJobs, pause: Callable[[float], None] | None = None) -> None:
        self.jobs = jobs
        self.lease = FakeLease()
        self.said: list[str] = []
        self.now_s = 0.0
        self.pauses_s: list[float] = []
        self._pause = pause

    def wait(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds
        if self._pause is not None:
            self._pause(seconds)

    def run(self) -> None:
        follow(JOB, self.lease, self.jobs, self.said.append, pause=self.wait, clock=lambda: self.now_s)  # type: ignore[arg-type]


def test_changes_of_state_are_said_once() -> None:
    following = Following(FakeJobs("pending", "pending", "running", "running", "running", "done"))
    following.run()
    identity = "job 2026-01-01_00_00_00-123 is"
    assert following.said == [f"{identity} pending", f"{identity} running", f"{identity} done"]
    assert following.lease.is_taken_back
    assert following.pauses_s == [1, 2, 4, 8, 15]


def test_now_and_then_it_is_said_how_far_the_job_is() -> None:
    following = Following(FakeJobs(*["running"] * 12, "done"))
    following.run()
    assert [line for line in following.said if "recordings" in line] == [
        "3 recordings, 12 clips embedded, 0 clips/s"
    ] * 2


@pytest.mark.parametrize("state", ["failed", "cancelled", "drained"])
def test_any_other_end_is_an_error_with_the_link(state: str) -> None:
    following = Following(FakeJobs("running", state))
    with pytest.raises(RunFailed) as failed:
        following.run()
    assert (
        str(failed.value)
        == f"the job hear-daily (2026-01-01_00_00_00-123) on Dataflow ended as {state} (more at {LINK})"
    )
    assert following.lease.is_taken_back


def test_an_error_of_this_program_is_said_in_its_own_words() -> None:
    following = Following(FakeJobs("failed", known="The endpoint is not there."))
    with pytest.raises(RunFailed, match=r"ended as failed: The endpoint is not there \(more at https"):
        following.run()


def test_while_dataflow_cannot_be_asked_it_is_tried_again() -> None:
    following = Following(FakeJobs("running", *[Unavailable()] * 20, ConnectionResetError(), "done"))
    following.run()
    assert following.lease.is_taken_back


def test_after_ten_minutes_the_job_goes_on_without_being_followed() -> None:
    following = Following(FakeJobs("running", Unavailable()))
    with pytest.raises(JobGoesOn, match=r"\(HTTP 503\): it goes on, see https") as left:
        following.run()
    assert left.value.status == 1
    assert 600 < following.now_s < 640
    assert not following.lease.is_taken_back


def test_an_interruption_leaves_the_job_at_work() -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    following = Following(FakeJobs("running"), interrupt)
    with pytest.raises(JobGoesOn) as left:
        following.run()
    assert left.value.status == 130
    assert LINK in str(left.value)
    assert "gcloud dataflow jobs cancel 2026-01-01_00_00_00-123 --region=us-west1 --project=study-1" in str(left.value)
    assert not following.lease.is_taken_back
