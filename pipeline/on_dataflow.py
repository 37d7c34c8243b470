"""A run on Dataflow: the job is submitted, has the checkpoint's lease, and is followed to its end if that is wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipeline.dataflow import RUNNER
from pipeline.dataflow_jobs import Jobs, has_ended, is_refusal, quiet_beam, reason
from pipeline.launch import Build, RunFailed
from pipeline.stopping import INTERRUPTED
from pipeline.usage import UsageError
from pipeline.watch import progress_line
from rows.bucket_lease import BucketLease
from rows.lease_holder import Job, JobUnclear, LeaseError, LeaseTaken

_FIRST_PAUSE_S: Final = 1.0
_PAUSE_S: Final = 15.0
_COUNTS_EVERY_S: Final = 60.0
_UNREACHABLE_S: Final = 600.0
"""So long may Dataflow not be asked until a job is no longer followed."""


class JobGoesOn(Exception):
    """The command ends before its job, which is or may be at work; the message says how to find and to stop it.

    Args:
      message: says so.
      status: the exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def submit(
    options: PipelineOptions,
    build: Build,
    *,
    lease: BucketLease,
    jobs: Jobs,
) -> Job:
    """Builds the graph, hands the lease over, and submits the job; or writes the graph, where `--template_location` asks for that.

    Returns the job; without an id where none was submitted. Raises RunFailed if there is no job, and JobGoesOn if there may be one.
    """
    try:
        with quiet_beam():
            pipeline = beam.Pipeline(runner=RUNNER, options=options)
    except ValueError as error:  # what its validator says of options
        raise UsageError(" ".join(str(error).split())) from None
    build(pipeline)
    cloud = options.view_as(GoogleCloudOptions)
    job = Job(cloud.project, cloud.region, cloud.job_name)
    lease.hand_over(job)
    try:
        with quiet_beam():
            result = pipeline.run()
    except KeyboardInterrupt:
        raise JobGoesOn(
            f"interrupted while the job was being submitted: look whether it is there at {job.link}", INTERRUPTED
        ) from None
    except Exception as error:  # noqa: BLE001 - Beam and its clients raise whatever; their texts are not ours to show
        if not is_refusal(error):
            _raise_if_there(job, jobs, reason(error))
        lease.take_back()
        raise RunFailed(
            f"the job could not be submitted to Dataflow ({reason(error)}): is its API enabled in project {job.project}, may you create "
            f"jobs and act as {cloud.service_account_email}, may {cloud.staging_location} be written, and is no other job named {job.name}?"
        ) from None
    if not result.has_job:
        return job
    job = job._replace(id=result.job_id())
    try:
        lease.hand_over(job)
    except LeaseTaken:
        jobs.cancel(job)
        raise
    except LeaseError as error:
        print(f"note: {error}", file=sys.stderr)  # the job's name is in it already
    return job


def _raise_if_there(job: Job, jobs: Jobs, why: str) -> None:
    """After an error that leaves it open it is asked whether the job was created all the same: then it has the lease."""
    try:
        state = jobs.ask(job, time.time())
    except JobUnclear:
        state = "active"
    if state == "active":
        raise JobGoesOn(f"submitting the job failed ({why}), but it may have been created: look at {job.link}", 1)


def follow(
    job: Job,
    lease: BucketLease,
    jobs: Jobs,
    say: Callable[[str], None],
    *,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Waits for the end of a job, and takes the lease back. Raises RunFailed if it does not end well, JobGoesOn, LeaseError.

    Args:
      job: whose id is known.
      lease: which the job has.
      jobs: what is asked.
      say: told of changes of its state, and now and then of how far it is.
      pause: waits for some seconds.
      clock: seconds.
    """
    try:
        state = _wait(job, jobs, say, pause, clock)
    except KeyboardInterrupt:
        raise JobGoesOn(
            f"interrupted: the job goes on, see {job.link}; to stop it: gcloud dataflow jobs cancel {job.id} --region={job.region} "
            f"--project={job.project}",
            INTERRUPTED,
        ) from None
    lease.take_back()
    if state != "done":
        known = jobs.known_error(job)
        why = f": {known.rstrip('.')}" if known else ""
        raise RunFailed(f"the job {job} on Dataflow ended as {state}{why} (more at {job.link})")


def _wait(
    job: Job, jobs: Jobs, say: Callable[[str], None], pause: Callable[[float], None], clock: Callable[[], float]
) -> str:
    """The state in which it ended."""
    said, pause_s = "", _FIRST_PAUSE_S
    answered_s = counted_s = began_s = clock()
    while True:
        try:
            state = jobs.state(job)
            answered_s = clock()
            if state != said:
                say(f"job {job.id} is {state}")
                said = state
            if has_ended(state):
                return state
            if clock() - counted_s >= _COUNTS_EVERY_S:
                counted_s = clock()
                if (counts := jobs.counts(job)).total():
                    say(progress_line(counts, clock() - began_s))
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            if clock() - answered_s > _UNREACHABLE_S:
                raise JobGoesOn(
                    f"Dataflow cannot be asked about the job any more ({reason(error)}): it goes on, see {job.link}", 1
                ) from None
        pause(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S)
