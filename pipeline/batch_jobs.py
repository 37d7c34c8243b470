"""The batch prediction jobs of a checkpoint: found again, submitted once, waited for, and closed when their results are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from endpoint.errors import JobMissing, JobNotCreated, JobRefused
from endpoint.job_service import JobService
from endpoint.job_state import PredictionJob, location_of
from endpoint.job_wait import wait
from pipeline.launch import RunFailed
from pipeline.on_dataflow import JobGoesOn
from pipeline.preflight import sweep_folders
from pipeline.settings import RunSettings
from pipeline.stopping import INTERRUPTED
from rows.generations import remove_notes
from rows.job_notes import OpenBatch, attempt, note_closed
from rows.store import open_store
from transforms import job_files
from transforms.files import names_in
from transforms.join_results import FinishedJob
from transforms.submit_job import Submission, submit

_DROPPED = "dropped"


class Ended(NamedTuple):
    """A job that has ended, and the clips that it was for."""

    batch: OpenBatch
    job: PredictionJob

    @property
    def finished(self) -> FinishedJob:
        """What is joined."""
        return FinishedJob(self.batch.folder, self.job.model)

    @property
    def shortfall(self) -> str | None:
        """What is said of a job that did not end well; of one that says what it could not do the rows do."""
        if self.job.state in ("succeeded", "partially_succeeded"):
            return None
        if not self.job.name:
            return f"the batch prediction job of run {self.batch.run_id} is no longer there"
        state = self.job.state.replace("_", " ")
        why = f": {self.job.error}" if self.job.error else ""
        return f"the batch prediction job {self.job.link} ended as {state}{why}"


class BatchJobs:
    """Deals with the jobs of one run: its own, and those that earlier runs have left open.

    Args:
      run: its settings.
      service: is asked about jobs.
      submission: of a job for this run's clips.
      waits: whether to wait for jobs; else one that has not ended is an error.
      say: told of states.
    """

    def __init__(
        self,
        run: RunSettings,
        service: JobService,
        submission: Submission,
        *,
        waits: bool,
        say: Callable[[str], None],
    ) -> None:
        self._store = open_store(run.checkpoint)
        self._service = service
        self._submission = submission
        self._waits = waits
        self._is_local = run.target.local
        self._say = say

    def settled(self, batches: Iterable[OpenBatch]) -> list[Ended]:
        """Those that earlier runs have left open, once their jobs have ended; what can be of no use is dropped.

        Clips that were written and not submitted are submitted now, on the machines that this run asks for.
        """
        ended = []
        for batch in batches:
            found = self._found(batch)
            if found is None and not self._can_be_submitted(batch):
                self.drop(batch)
                continue
            self._say(f"run {batch.run_id} has left {batch.written.clips:,} clips for a batch prediction job")
            ended.append(self.ended(batch, found))
        return ended

    def ended(self, batch: OpenBatch, found: PredictionJob | None = None) -> Ended:
        """The batch's job, once it has ended. It is submitted if there is none. Raises EndpointError, RunFailed, JobGoesOn."""
        job = found
        try:
            job = found or self.submitted(batch)
            if job.is_final or not job.name:
                return Ended(batch, job)
            if not self._waits:
                raise RunFailed(
                    f"the batch prediction job {job.link} of run {batch.run_id} is {job.state}: start this step again once it has ended"
                )
            self._say(f"batch prediction job {job.link}")
            return Ended(batch, wait(self._service, job.name, self._say))
        except KeyboardInterrupt:
            raise JobGoesOn(f"interrupted: {self._left_behind(job)}", INTERRUPTED) from None

    def _left_behind(self, job: PredictionJob | None) -> str:
        if self._is_local:
            return "the local endpoint has ended, and the batch prediction job with it; the same command submits its clips again"
        if job is None:
            return "if the batch prediction job was created by then, it goes on; the same command finds it and stores its results"
        return (
            f"the batch prediction job goes on, see {job.link} (where it can be cancelled); the same command waits for it again, and "
            "stores its results"
        )

    def submitted(self, batch: OpenBatch) -> PredictionJob:
        """The batch's job. Where there will never be one nothing stays of what was written for it."""
        try:
            return submit(self._service, self._of(batch))
        except JobNotCreated:
            self.drop(batch)
            raise

    def forget(self, batches: Iterable[OpenBatch]) -> None:
        """Cancels jobs of a checkpoint that is begun anew; removes their files, and at last what was noted about them."""
        for batch in batches:
            if (job := self._found(batch)) is not None and job.name and not job.is_final:
                self._cancel(job, batch)
            if not batch.is_kept:
                sweep_folders([batch.folder])
            remove_notes(self._store, batch.run_id)

    def _cancel(self, job: PredictionJob, batch: OpenBatch) -> None:
        self._say(f"cancelling the batch prediction job {job.link} of run {batch.run_id}")
        try:
            self._service.cancel(job.name)
        except JobRefused:
            # It may have ended in the meantime.
            if not self._service.get(job.name).is_final:
                raise
        # Until it has ended, it writes results.
        wait(self._service, job.name, self._say)

    def close(self, ended: Ended) -> None:
        """Notes that nothing more is to be had of a job, and removes its files."""
        self._close(ended.batch, ended.job.state)

    def drop(self, batch: OpenBatch) -> None:
        """Notes that there will be no job, or none that anybody waits for, and removes what was written for it."""
        self._close(batch, _DROPPED)

    def _close(self, batch: OpenBatch, state: str) -> None:
        note_closed(self._store, batch.run_id, state)
        if not batch.is_kept:
            sweep_folders([batch.folder])

    def _of(self, batch: OpenBatch) -> Submission:
        mine = self._submission
        return Submission(mine.settings, mine.checkpoint, batch.run_id, batch.folder, mine.fingerprint)

    def _found(self, batch: OpenBatch) -> PredictionJob | None:
        """The batch's job, if there is one. One that was deleted since has ended, in whatever state."""
        self._check_place(batch)
        if batch.job is not None:
            try:
                return self._service.get(batch.job)
            except JobMissing:
                return PredictionJob("", state="unknown", model=self._submission.settings.model)
        jobs = self._service.find(self._of(batch).labels)
        return jobs[0] if jobs else None

    def _check_place(self, batch: OpenBatch) -> None:
        """Raises RunFailed where today's settings would have the job looked for in another place than where it is, or may be."""
        asked = self._submission.settings
        if batch.job is not None:
            theirs, mine = location_of(batch.job), asked.location
        else:
            tried = attempt(self._store, batch.run_id)
            theirs, mine = asked.parent if tried is None else tried.parent, asked.parent
        if theirs != mine:
            raise RunFailed(
                f"run {batch.run_id} has left clips for a batch prediction job in {theirs}, where this run, which asks for one in "
                f"{mine}, would not find it: give once more the --batch_model and --batch_project with which it was asked for, until its "
                "results are stored"
            )

    def _can_be_submitted(self, batch: OpenBatch) -> bool:
        """Whether the clips are in the format of today's model, and all that were written are there."""
        if batch.written.instance_format != self._submission.settings.instance_format:
            return False
        return len(names_in(f"{batch.folder}{job_files.CLIPS}", "")) == batch.written.shards
