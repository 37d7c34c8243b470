"""A job is followed to its end, by a clock that only pauses move."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.cloud.aiplatform_v1 import types

from endpoint.errors import JobMissing, JobRefused, JobUnreachable
from endpoint.job_service import ATTEMPTS, JobService
from endpoint.job_wait import wait
from tests.endpoint.job_fakes import FakeJobs, Fault, Moments, serve_jobs, settings_for

LABELS = {"hear-clips": "0123abcd"}


@pytest.fixture
def fake() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
def service(fake: FakeJobs, moments: Moments) -> Iterator[JobService]:
    with (
        serve_jobs(fake, "grpc") as port,
        JobService(settings_for(port), pause=moments.pause, rng=random.Random(1)) as made,
    ):
        yield made


def goes_through(*states: str) -> Callable[[Any], None]:
    """Lets a job be in these states, one each time that it is asked for, and stay in the last."""
    left = list(states)

    def move(job: Any) -> None:
        job.state = types.JobState[f"JOB_STATE_{left.pop(0) if len(left) > 1 else left[0]}"]

    return move


def test_each_new_state_is_said_once_and_pauses_grow_to_a_minute(
    service: JobService, fake: FakeJobs, moments: Moments
) -> None:
    job = fake.add(LABELS)
    fake.on_get = goes_through("QUEUED", "PENDING", *["RUNNING"] * 7, "SUCCEEDED")
    said: list[str] = []
    assert wait(service, job.name, said.append, pause=moments.pause, clock=moments.clock).state == "succeeded"
    assert said == [f"batch prediction job 1 is {state}" for state in ("queued", "pending", "running", "succeeded")]
    assert moments.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("state", ["SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"])
def test_a_job_that_has_ended_is_not_waited_for(
    service: JobService, fake: FakeJobs, moments: Moments, state: str
) -> None:
    job = fake.add(LABELS, f"JOB_STATE_{state}")
    said: list[str] = []
    assert wait(service, job.name, said.append, pause=moments.pause, clock=moments.clock).is_final
    assert said == [f"batch prediction job 1 is {state.lower().replace('_', ' ')}"]
    assert moments.pauses == []


def test_counts_are_said_as_far_as_the_service_tells_them(
    service: JobService, fake: FakeJobs, moments: Moments
) -> None:
    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    counts = iter([(0, 0, -1), (500, 0, -1), (500, 0, -1), (1500, 3, 497), (1990, 10, 0)])

    def count(job: Any) -> None:
        stats = job.completion_stats
        stats.successful_count, stats.failed_count, stats.incomplete_count = next(counts)
        if not stats.incomplete_count:
            job.state = types.JobState.JOB_STATE_SUCCEEDED

    fake.on_get = count
    said: list[str] = []
    wait(service, job.name, said.append, pause=moments.pause, clock=moments.clock)
    assert said == [
        "batch prediction job 1 is running",
        "batch prediction job 1 is running: 500 clips done, 0 failed",
        "batch prediction job 1 is running: 1,500 of 2,000 clips done, 3 failed",
        "batch prediction job 1 is succeeded: 1,990 clips done, 10 failed",
    ]


def test_an_outage_of_some_minutes_is_lived_through(service: JobService, fake: FakeJobs, moments: Moments) -> None:
    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    fake.on_get = goes_through("RUNNING", "SUCCEEDED")
    fake.fail("get", *[Fault("UNAVAILABLE")] * ATTEMPTS * 4)
    said: list[str] = []
    assert wait(service, job.name, said.append, pause=moments.pause, clock=moments.clock).state == "succeeded"
    assert moments.now_s > 120
    assert said == ["batch prediction job 1 is running", "batch prediction job 1 is succeeded"]


def test_a_service_that_stays_away_for_ten_minutes_is_left_and_the_job_goes_on(
    service: JobService, fake: FakeJobs, moments: Moments
) -> None:
    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    fake.fail("get", *[Fault("UNAVAILABLE")] * 1000)
    with pytest.raises(
        JobUnreachable,
        match=f"about the batch prediction job {job.name} for 10 minutes. The job goes on .*/batch-predictions/1",
    ):
        wait(service, job.name, print, pause=moments.pause, clock=moments.clock)
    assert 600 <= moments.now_s < 900


def test_time_without_an_answer_counts_from_the_last_one(service: JobService, fake: FakeJobs, moments: Moments) -> None:
    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    answers = 0

    def answer(job: Any) -> None:
        nonlocal answers
        answers += 1
        fake.fail("get", *[Fault("UNAVAILABLE")] * ATTEMPTS * 3)
        if answers == 6:
            job.state = types.JobState.JOB_STATE_SUCCEEDED

    fake.on_get = answer
    assert wait(service, job.name, [].append, pause=moments.pause, clock=moments.clock).state == "succeeded"
    assert moments.now_s > 600


def test_a_job_that_is_deleted_or_may_not_be_seen_any_more_is_not_waited_for(
    service: JobService, fake: FakeJobs, moments: Moments
) -> None:
    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    fake.fail("get", Fault("PERMISSION_DENIED"))
    with pytest.raises(JobRefused, match=r"batchPredictionJobs\.get"):
        wait(service, job.name, print, pause=moments.pause, clock=moments.clock)
    fake.jobs.clear()
    with pytest.raises(JobMissing, match="deleted"):
        wait(service, job.name, print, pause=moments.pause, clock=moments.clock)


def test_ctrl_c_is_passed_on(service: JobService, fake: FakeJobs, moments: Moments) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    job = fake.add(LABELS, "JOB_STATE_RUNNING")
    with pytest.raises(KeyboardInterrupt):
        wait(service, job.name, print, pause=interrupt, clock=moments.clock)
    assert fake.calls == ["get"]
