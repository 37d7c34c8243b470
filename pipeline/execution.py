"""How a graph is run: here and to its end, or as a job on Dataflow, which is followed if that is wanted."""

from __future__ import annotations

import copy
import sys
from typing import NamedTuple

from apache_beam.options.pipeline_options import GoogleCloudOptions

from pipeline.dataflow_jobs import Jobs
from pipeline.launch import Build, launch
from pipeline.on_dataflow import follow, submit
from pipeline.options import Arguments
from pipeline.settings import RunSettings
from pipeline.worker_pool import WorkerPool
from rows.bucket_lease import BucketLease
from rows.lease_holder import Job

_LONGEST_NAME = 63


class Ending(NamedTuple):
    """How a run stands when its command has done what it does before the summary is read."""

    said: str | None = None
    """What is said in place of the summary, which is still to come, or which another step writes."""
    shortfall: str | None = None
    """Why what was asked for is no success, whatever the summary says."""


class Execution:
    """Runs the graphs of one run, one after the other.

    Args:
      arguments: of the command.
      lease: of the checkpoint, if that is on Cloud Storage.
      jobs: what is asked about jobs on Dataflow.
    """

    def __init__(self, arguments: Arguments, lease: BucketLease | None, jobs: Jobs) -> None:
        self._arguments = arguments
        self._lease = lease
        self._jobs = jobs

    @property
    def pool(self) -> WorkerPool | None:
        """The workers on Dataflow; None where the work is done from here."""
        return self._arguments.pool

    @property
    def waits(self) -> bool:
        """Whether `run` returns after the graph's end."""
        return self._arguments.waits

    def is_at_work(self) -> bool:
        """Whether a job has taken over what this process would otherwise clean up."""
        return self._lease is not None and self._lease.is_handed_over

    def run(self, build: Build, part: str = "") -> Job | None:
        """Runs a graph; the job that is at work, if nobody waits for it. Raises RunFailed, JobGoesOn, LeaseError.

        Args:
          build: adds the graph to a pipeline.
          part: a word for the job's name, where a run has more than one.
        """
        if self.pool is None:
            launch(self._arguments.run, self._arguments.beam, build)
            return None
        assert self._lease is not None
        options = self._arguments.beam
        if part:
            options = copy.deepcopy(options)  # Beam writes into them
            cloud = options.view_as(GoogleCloudOptions)
            cloud.job_name = f"{cloud.job_name[: _LONGEST_NAME - 1 - len(part)]}-{part}"
        job = submit(options, build, lease=self._lease, jobs=self._jobs)
        if not self.waits:
            return job
        say(job.link)
        follow(job, self._lease, self._jobs, say)
        return None


def left_to(job: Job, run: RunSettings) -> Ending:
    """The ending of a run whose job is not waited for."""
    return Ending(f"{where_is(job)}\nits summary will be {run.summary_path}")


def where_is(job: Job) -> str:
    """Where a job is to be looked at, or what it will be called."""
    return job.link if job.id else f"the graph is written, for a job named {job.name}"


def say(text: str) -> None:
    """Says something on the way."""
    print(text, file=sys.stderr, flush=True)
