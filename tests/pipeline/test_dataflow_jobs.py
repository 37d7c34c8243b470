"""What is found out about jobs, from a stand-in for Dataflow's service by the real client library."""

import logging
import time
from collections.abc import Iterator

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.dataflow_jobs import Jobs, has_ended, is_refusal, quiet_beam, reason
from rows.lease_holder import Job, JobUnclear
from tests.cloud.dataflow import Dataflow, dataflow

NAMED = Job("study-1", "us-west1", "hear-daily")


@pytest.fixture
def service() -> Iterator[Dataflow]:
    with dataflow() as running:
        yield running


@pytest.fixture
def jobs(service: Dataflow) -> Jobs:
    return Jobs(PipelineOptions([f"--dataflow_endpoint={service.address}", "--no_auth"]))


@pytest.mark.parametrize(
    ("state", "name", "ended"),
    [
        ("JOB_STATE_QUEUED", "queued", False),
        ("JOB_STATE_PENDING", "pending", False),
        ("JOB_STATE_RUNNING", "running", False),
        ("JOB_STATE_CANCELLING", "cancelling", False),
        ("JOB_STATE_RESOURCE_CLEANING_UP", "resource cleaning up", False),
        ("JOB_STATE_DONE", "done", True),
        ("JOB_STATE_FAILED", "failed", True),
        ("JOB_STATE_CANCELLED", "cancelled", True),
    ],
)
def test_states(service: Dataflow, jobs: Jobs, state: str, name: str, ended: bool) -> None:
    job = NAMED._replace(id=service.add_job(NAMED.name, state))
    assert jobs.state(job) == name
    assert has_ended(name) == ended
    assert jobs.ask(job, time.time()) == ("ended" if ended else "active")


def test_a_job_is_found_by_its_name_if_it_is_not_older_than_the_lease(service: Dataflow, jobs: Jobs) -> None:
    service.add_job("another", "JOB_STATE_RUNNING")
    service.add_job(NAMED.name, "JOB_STATE_DONE", age_s=86_400)
    assert jobs.ask(NAMED, time.time()) == "absent"
    service.add_job(NAMED.name, "JOB_STATE_RUNNING")
    assert jobs.ask(NAMED, time.time() - 60) == "active"
    for job in service.jobs.values():
        job["currentState"] = "JOB_STATE_FAILED"
    assert jobs.ask(NAMED, time.time() - 60) == "ended"


@pytest.mark.parametrize("job", [NAMED, NAMED._replace(id="job-1")])
def test_what_the_service_says_of_a_refusal_is_not_repeated(service: Dataflow, jobs: Jobs, job: Job) -> None:
    service.refuse_with = 403
    with pytest.raises(JobUnclear, match=r"^HTTP 403$"):
        jobs.ask(job, time.time())


def test_a_service_that_is_not_there_leaves_it_unclear() -> None:
    with dataflow() as gone:
        address = gone.address
    jobs = Jobs(PipelineOptions([f"--dataflow_endpoint={address}", "--no_auth"]))
    with pytest.raises(JobUnclear, match=r"^[A-Za-z]+$"):
        jobs.ask(NAMED, time.time())


def test_counts_are_those_of_the_stage_that_embeds(service: Dataflow, jobs: Jobs) -> None:
    job = NAMED._replace(id=service.add_job(NAMED.name, "JOB_STATE_RUNNING"))
    assert not jobs.counts(job)
    service.counters = {"embedded": 1234, "recordings": 7}
    assert jobs.counts(job) == {"embedded": 1234, "recordings": 7}


def test_only_this_programs_own_words_are_taken_from_error_messages(service: Dataflow, jobs: Jobs) -> None:
    job = NAMED._replace(id=service.add_job(NAMED.name, "JOB_STATE_FAILED"))
    assert jobs.known_error(job) is None
    service.errors = [
        "Workflow failed. ya29.TEST-secret",
        'Traceback (most recent call last):\n  File "x", line 1\n'
        "endpoint.errors.RunEnded: The endpoint is not there. [while running 'Embed/Embed clips-ptransform-7']\n\nNote: ya29.TEST-secret",
    ]
    assert jobs.known_error(job) == "The endpoint is not there."


def test_a_job_is_cancelled(service: Dataflow, jobs: Jobs) -> None:
    job = NAMED._replace(id=service.add_job(NAMED.name, "JOB_STATE_RUNNING"))
    jobs.cancel(job)
    assert service.job["requestedState"] in ("JOB_STATE_CANCELLED", 5)


def test_reasons_hold_codes_and_names_only() -> None:
    from google.api_core import exceptions

    assert reason(exceptions.Forbidden("secret")) == "HTTP 403"
    assert reason(exceptions.ServiceUnavailable("secret")) == "HTTP 503"
    assert reason(ConnectionResetError("secret")) == "ConnectionResetError"
    refusals = (exceptions.Forbidden("no"), exceptions.Conflict("no"), exceptions.NotFound("no"))
    assert all(map(is_refusal, refusals))
    unclear = (exceptions.ServiceUnavailable("?"), exceptions.TooManyRequests("?"), ConnectionResetError(), OSError())
    assert not any(map(is_refusal, unclear))


def test_beam_is_quiet_only_for_the_time(caplog: pytest.LogCaptureFixture) -> None:
    talkative = logging.getLogger("apache_beam.runners.dataflow.internal.apiclient")
    with quiet_beam():
        talkative.error("the service said ya29.TEST-secret")
    assert not caplog.records
    talkative.error("heard")
    assert [record.message for record in caplog.records] == ["heard"]
