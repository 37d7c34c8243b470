"""What a batch prediction job does, from its input in the storage server to its results there."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

import grpc

from emulator.clips import ClipReader
from emulator.faults import Faults
from emulator.job_faults import JobFaults
from emulator.job_messages import JobState
from emulator.job_rows import RowWorker
from emulator.job_rules import ServedModel
from emulator.job_shards import ShuffledShards, default_shards, result_name
from emulator.job_storage import JobFailedError, JobStorage, StoredObject
from emulator.standin import MODEL_ID

_ROWS_AT_A_TIME = 16
_BLOCK_BYTES = 4 * 2**20

_ENDS_OF_JOBS = {
    JobState.JOB_STATE_FAILED: (grpc.StatusCode.INTERNAL, "The job has failed on purpose."),
    JobState.JOB_STATE_CANCELLED: (grpc.StatusCode.CANCELLED, "The job was cancelled."),
    JobState.JOB_STATE_EXPIRED: (grpc.StatusCode.DEADLINE_EXCEEDED, "The job has run for longer than it may."),
}
"""The errors of jobs that end so."""


@dataclass
class Job:
    """A job as it runs.

    Attributes:
        number: 1 for the first job; faults are drawn by it.
        message: its BatchPredictionJob, kept up to date.
        model: the one that it asks for.
        cancelled: set once it is to end.
        clips: digests of the clips that the model was given so far.
    """

    number: int
    message: Any
    model: ServedModel
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    clips: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`projects/P/locations/L/batchPredictionJobs/J`."""
        return str(self.message.name)

    @property
    def state(self) -> JobState:
        return JobState(self.message.state)

    @property
    def has_ended(self) -> bool:
        return bool(self.message.HasField("end_time"))

    def becomes(self, state: JobState) -> None:
        """Enters a state, now."""
        self.message.state = state
        self.message.update_time.GetCurrentTime()

    def ends(self, state: JobState) -> None:
        """Enters its last state, now."""
        self.becomes(state)
        self.message.end_time.CopyFrom(self.message.update_time)

    def fails(self, code: grpc.StatusCode, message: str) -> None:
        """Takes note of an error, google.rpc.Status."""
        self.message.error.code, self.message.error.message = code.value[0], message


class JobRunner:
    """Runs jobs."""

    def __init__(self, storage: JobStorage, clips: ClipReader, faults: Faults, job_faults: JobFaults) -> None:
        self._storage = storage
        self._clips = clips
        self._faults = faults
        self._job_faults = job_faults

    async def run(self, job: Job) -> None:
        """Runs a job to its end, whatever that is; its message says which."""
        job.becomes(job.state if job.cancelled.is_set() else JobState.JOB_STATE_RUNNING)
        job.message.start_time.CopyFrom(job.message.update_time)
        try:
            state = await _Run(job, self._storage, self._clips, self._faults, self._job_faults).work()
        except JobFailedError as error:
            job.fails(error.code, str(error))
            state = JobState.JOB_STATE_FAILED
        if self._job_faults.end is not None and state is not JobState.JOB_STATE_CANCELLED:
            state = self._job_faults.end
            job.message.ClearField("error")
            if state in _ENDS_OF_JOBS:
                job.fails(*_ENDS_OF_JOBS[state])
        job.ends(state)


class _Block(NamedTuple):
    """Some lines of the input, and the share of it that ends with them, 0 to 1."""

    lines: list[bytes]
    progress: float


class _Run:
    """One job's work."""

    def __init__(self, job: Job, storage: JobStorage, clips: ClipReader, faults: Faults, job_faults: JobFaults) -> None:
        self._job = job
        self._storage = storage
        self._faults = job_faults
        self._rows = RowWorker(job.number, job.model.instance_format, clips, faults, job_faults)
        self._chance = random.Random(f"{job_faults.seed}:{job.number}")
        self._started_s = time.monotonic()
        self._died = False

    async def work(self) -> JobState:
        """Reads, predicts and writes; gives the state that fits what came of it.

        Raises:
            JobFailedError: there is no input, or the storage server failed.
        """
        message = self._job.message
        found = {stored for uri in message.input_config.gcs_source.uris for stored in await self._storage.find(uri)}
        stored = sorted(found)
        input_bytes = sum(item.size for item in stored)
        # Neither within files nor from one to the next does the order stay the input's.
        self._chance.shuffle(stored)
        shards = self._shards(input_bytes)
        stats = message.completion_stats
        row = 1
        async with aclosing(self._blocks(stored, input_bytes)) as blocks:
            async for block in blocks:
                if self._job.cancelled.is_set():
                    break
                output = await self._rows.work(row, block.lines)
                row += len(block.lines)
                self._job.clips += output.clips
                for line in output.lines:
                    await shards.add(line.is_error, line.data)
                failed = sum(line.is_error for line in output.lines)
                stats.failed_count += failed
                stats.successful_count += len(output.lines) - failed
                await self._paced(block.progress)
                await shards.move_on(block.progress)
        is_cancelled = self._job.cancelled.is_set()
        await shards.finish(complete=not self._died and not is_cancelled)
        if is_cancelled:
            stats.incomplete_count = -1
            self._job.fails(*_ENDS_OF_JOBS[JobState.JOB_STATE_CANCELLED])
            return JobState.JOB_STATE_CANCELLED
        if self._died:
            stats.incomplete_count = -1
            raise JobFailedError(self._faults.die_code, f"The job has died after {row - 1} rows, on purpose.")
        stats.incomplete_count = row - 1 - stats.successful_count - stats.failed_count
        return JobState.JOB_STATE_PARTIALLY_SUCCEEDED if stats.failed_count else JobState.JOB_STATE_SUCCEEDED

    def _shards(self, input_bytes: int) -> ShuffledShards:
        """Where the results go, which the job's message says from now on."""
        prefix = self._job.message.output_config.gcs_destination.output_uri_prefix.rstrip("/")
        created = self._job.message.create_time.ToDatetime(timezone.utc)
        directory = f"{prefix}/prediction-{MODEL_ID}-{_timestamp(created)}"
        self._job.message.output_info.gcs_output_directory = directory
        bucket, _, folder = directory.removeprefix("gs://").partition("/")
        shards = self._faults.shards or default_shards(input_bytes)

        def name(is_error: bool, shard: int) -> str:
            return f"{folder}/{result_name(is_error, shard, shards, old=self._faults.old_names)}"

        return ShuffledShards(self._storage, bucket, shards, name, self._chance)

    async def _blocks(self, stored: list[StoredObject], input_bytes: int) -> AsyncGenerator[_Block, None]:
        """The input, some lines at a time, until it ends or the job dies."""
        most_bytes = input_bytes if self._faults.die_after is None else self._faults.die_after * input_bytes
        most_rows = 1 if self._faults.least_s else _ROWS_AT_A_TIME
        self._died = self._faults.die_after is not None
        lines: list[bytes] = []
        waiting = done = 0
        for item in stored:
            async with aclosing(self._storage.lines(item)) as read:
                async for line in read:
                    if done + len(line) > most_bytes:
                        if lines:
                            yield _Block(lines, done / input_bytes)
                        return
                    done += len(line) + 1
                    waiting += len(line)
                    lines.append(line)
                    if len(lines) == most_rows or waiting > _BLOCK_BYTES:
                        yield _Block(lines, min(done / input_bytes, 1.0))
                        lines, waiting = [], 0
        if lines:
            yield _Block(lines, 1.0)

    async def _paced(self, progress: float) -> None:
        """Waits until so much of the least time has passed, or the job is cancelled."""
        rest_s = self._started_s + progress * self._faults.least_s - time.monotonic()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._job.cancelled.wait(), max(rest_s, 0.0))


def _timestamp(time: datetime) -> str:
    """In the form that the names of the service's folders have: `2025_01_31T12_34_56_789Z`."""
    return f"{time:%Y_%m_%dT%H_%M_%S}_{time.microsecond // 1000:03d}Z"
