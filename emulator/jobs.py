"""The batch prediction jobs there are, whichever transport asks for them: made, looked up, listed, cancelled."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from emulator.arrivals import ArrivalsLog
from emulator.job_faults import JobFaults
from emulator.job_filter import job_filter
from emulator.job_messages import JobState, ListBatchPredictionJobsResponse
from emulator.job_rules import DEFAULT_MODELS, Models, check_job, check_job_name, is_model_name, location_of
from emulator.job_run import Job, JobRunner
from emulator.objects import NoStorageError
from emulator.refusals import InvalidArgumentError, NotFoundError, RefusalError

MODEL_VERSION_ID = "1"
MAX_PAGE_SIZE = 100

_OUTPUT_ONLY = (
    "output_info", "error", "partial_failures", "resources_consumed", "completion_stats",
    "start_time", "end_time",
)  # fmt: skip


@dataclass(frozen=True)
class JobSettings:
    """How jobs behave.

    Attributes:
        models: those there are; every other name is NOT_FOUND.
        faults: what goes wrong on purpose.
    """

    models: Models = DEFAULT_MODELS
    faults: JobFaults = field(default_factory=JobFaults)


class JobService:
    """All jobs since this process started. To be used from one event loop; jobs run beside its calls."""

    def __init__(self, settings: JobSettings, runner: JobRunner | None, arrivals: ArrivalsLog | None = None) -> None:
        """`runner` is None if there is no storage server; `arrivals` stays the caller's to close, after `stop`."""
        self._settings = settings
        self._runner = runner
        self._arrivals = arrivals
        self._jobs: dict[str, Job] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._creates = 0
        self._gets = 0

    async def create(self, transport: str, parent: str, message: Any) -> Any:
        """Makes a job from a BatchPredictionJob, and starts it; gives the job's own.

        Raises:
            RefusalError: it is refused, or (that is a fault on purpose) its answer is lost.
        """
        arrived_s = time.monotonic()
        self._creates += 1
        job: Job | None = None
        fault: str | None = None
        status = grpc.StatusCode.OK
        try:
            refused = self._settings.faults.refuses(self._creates)
            if refused is not None:
                fault = "refuse"
                raise RefusalError(refused, "The job is refused on purpose.")
            job = self._made(parent, message)
            if job.number <= self._settings.faults.lose_answers:
                fault = "lose_answer"
                raise RefusalError(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
            return _copy(job.message)
        except RefusalError as refusal:
            status = refusal.status
            raise
        finally:
            if self._arrivals is not None:
                model = message.model if is_model_name(message.model.partition("@")[0]) else None
                name = None if job is None else job.name
                self._arrivals.write_job_created(arrived_s, transport, name, model, status.name, fault)

    def get(self, name: str) -> Any:
        """The job of this name; raises RefusalError."""
        self._gets += 1
        if self._settings.faults.loses_get(self._gets):
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
        return _copy(self._find(name).message)

    def list(self, request: Any) -> Any:
        """A page of the jobs below a parent that a filter lets through, newest first; raises RefusalError."""
        location_of(request.parent)
        matches = job_filter(request.filter)
        if request.page_size < 0:
            raise InvalidArgumentError("page_size must be 0 or more.")
        before = _read_token(request.page_token) if request.page_token else len(self._jobs) + 1
        size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        found = [
            job
            for job in reversed(self._jobs.values())
            if job.number < before and _parent(job.name) == request.parent and matches(job.message)
        ]
        page = found[:size]
        more = _token(page[-1].number) if len(found) > len(page) else ""
        return ListBatchPredictionJobsResponse(
            batch_prediction_jobs=[job.message for job in page], next_page_token=more
        )

    def cancel(self, name: str) -> None:
        """Has a job end soon, with what it has done written; raises RefusalError."""
        job = self._find(name)
        if job.has_ended:
            message = f"The job has ended already: it is in {job.state.name}."
            raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, message)
        job.becomes(JobState.JOB_STATE_CANCELLING)
        job.cancelled.set()

    async def stop(self) -> None:
        """Drops all jobs that still run."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _made(self, parent: str, message: Any) -> Job:
        location_of(parent)
        check_job(message)
        model = self._settings.models.find(message.model, parent)
        if self._runner is None:
            raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, f"No jobs can be run: {NoStorageError()}.")
        own = _copy(message)
        for name in _OUTPUT_ONLY:
            own.ClearField(name)
        own.name = f"{parent}/batchPredictionJobs/{10**18 + secrets.randbelow(8 * 10**18)}"
        own.model_version_id = MODEL_VERSION_ID
        job = Job(len(self._jobs) + 1, own, model)
        job.becomes(JobState.JOB_STATE_PENDING)
        own.create_time.CopyFrom(own.update_time)
        self._jobs[job.name] = job
        task = asyncio.create_task(self._run(self._runner, job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    async def _run(self, runner: JobRunner, job: Job) -> None:
        try:
            await runner.run(job)
        except Exception:
            # A mistake of this program, which the loop reports: whoever waits for the job must not wait for ever.
            job.fails(grpc.StatusCode.INTERNAL, "Internal error encountered.")
            job.ends(JobState.JOB_STATE_FAILED)
            raise
        finally:
            if self._arrivals is not None and job.has_ended:
                self._arrivals.write_job_ended(job.name, job.state.name, job.clips)

    def _find(self, name: str) -> Job:
        check_job_name(name)
        if name not in self._jobs:
            raise NotFoundError(f"The BatchPredictionJob `{name}` does not exist.")
        return self._jobs[name]


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _parent(name: str) -> str:
    return name.rpartition("/batchPredictionJobs/")[0]


def _token(number: int) -> str:
    return base64.urlsafe_b64encode(f"before:{number}".encode()).decode()


def _read_token(token: str) -> int:
    with contextlib.suppress(ValueError):
        word, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "before":
            return int(number)
    raise InvalidArgumentError("page_token is none that this service has given.")
