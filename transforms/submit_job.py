"""The job for the clips that were written: submitted once, however often that is tried; by the launcher, or where none waits by a step."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import apache_beam as beam

from endpoint.job_service import JobService
from endpoint.job_settings import JobSettings
from endpoint.job_state import PredictionJob
from endpoint.quiet import keep_secrets_out_of_logs
from rows.job_notes import Written, attempt, note_job, note_submitting
from rows.store import open_store
from transforms import job_files
from transforms.quiet import quiet_worker

RUN_LABEL: Final = "hear-run"
FINGERPRINT_LABEL: Final = "hear-fingerprint"
CHECKPOINT_LABEL: Final = "hear-checkpoint"
_LISTED_AFTER_S: Final = 600.0
"""Clocks may differ by some minutes, too."""


@dataclass(frozen=True)
class Submission:
    """A job that is to be submitted."""

    settings: JobSettings
    checkpoint: str
    run_id: str
    """Of the run that has written the clips."""
    folder: str
    """Where they are, `gs://bucket/.../`."""
    fingerprint: str

    @property
    def labels(self) -> dict[str, str]:
        """By which the job is found again: no other one has them."""
        return {RUN_LABEL: self.run_id.lower(), FINGERPRINT_LABEL: self.fingerprint}

    @property
    def further_labels(self) -> dict[str, str]:
        """By which others find all jobs of a checkpoint, if that is on Cloud Storage, where it has but one name."""
        return {CHECKPOINT_LABEL: checkpoint_label(self.checkpoint)} if self.checkpoint.startswith("gs://") else {}


def checkpoint_label(checkpoint: str) -> str:
    """What stands for a checkpoint in a label: of functions that Google's Workflows have, too (templates/scheduled/batch.yaml)."""
    digest = base64.b64encode(hashlib.sha256(checkpoint.encode()).digest()).decode()
    return re.sub("[^A-Za-z0-9]", "-", digest).lower()


def submit(service: JobService, submission: Submission) -> PredictionJob:
    """Submits the job, unless that was done before. Raises EndpointError, and StoreError."""
    store, run_id = open_store(submission.checkpoint), submission.run_id
    earlier = attempt(store, run_id)
    note_submitting(store, run_id, submission.settings.parent)
    # What an earlier attempt may have created is listed by now, if that is long ago; else the service takes its time to be sure.
    is_known = earlier is not None and time.time() - earlier.since_s < _LISTED_AFTER_S
    found = service.find(submission.labels) if earlier is not None and not is_known else []
    job = next(iter(found), None) or service.create(
        f"hear-{run_id.lower()}",
        submission.labels,
        [job_files.source(submission.folder)],
        job_files.destination(submission.folder),
        known=is_known,
        further_labels=submission.further_labels,
    )
    note_job(store, run_id, job.name)
    return job


class _Submit(beam.DoFn):
    def __init__(self, submission: Submission) -> None:
        self._submission = submission

    def setup(self) -> None:
        quiet_worker()
        keep_secrets_out_of_logs()

    def process(self, element: Written) -> Iterator[str]:
        if element.clips:
            with JobService(self._submission.settings) as service:
                yield submit(service, self._submission).name


class SubmitJob(beam.PTransform):
    """Submits the job once its clips are noted as written; returns its name, or nothing where there are no clips."""

    def __init__(self, submission: Submission) -> None:
        super().__init__()
        self._submission = submission

    def expand(self, written: beam.PCollection) -> beam.PCollection:
        return written | "Submit job" >> beam.ParDo(_Submit(self._submission))
