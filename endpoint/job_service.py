"""Vertex AI's service of batch prediction jobs: a job is found, created once, and asked about.

Creating a job twice would be paid for twice, and the service has no way to tell that two requests mean the same job. So
a job has labels that are its own: after a failure that leaves it open whether the job was created, jobs with these labels
are looked for before it is asked for again.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import grpc

from endpoint.credentials import CallCredentials
from endpoint.errors import RunEnded
from endpoint.job_calls import JobCalls, JobReply
from endpoint.job_messages import check_accelerator, check_labels, job_message, label_filter, read_job
from endpoint.job_settings import JobSettings
from endpoint.job_state import PredictionJob
from endpoint.job_verdicts import Asked, refused, unclear, unreachable
from endpoint.retry import Backoff, is_retryable

ATTEMPTS: Final = 8
"""How often the service is asked until it counts as out of reach: with the default back-off, for a minute on average."""
LOOKS_AFTER_S: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses before each look for a job that may have been created: lists lag behind."""


class JobService:
    """A client of the service; for one thread at a time.

    Args:
        settings: the model, the machines, and how the service is asked.
        credentials: for hosts other than loopback; those that the settings name unless given.
        root_certificates: see `channel.open_tls_channel`; over gRPC only.
        server_name: see there.
        backoff: how long to wait before asking again.
        pause: waits for some seconds.
        rng: the source of jitter.

    Raises:
        ValueError: if there is no accelerator of the type that the settings name.
        RunEnded: if credentials are needed and there are none.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        credentials: CallCredentials | None = None,
        root_certificates: bytes | None = None,
        server_name: str | None = None,
        backoff: Backoff | None = None,
        pause: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._calls = JobCalls(
            settings, credentials=credentials, root_certificates=root_certificates, server_name=server_name
        )
        self._backoff = backoff or Backoff()
        self._pause = pause
        self._rng = rng or random.Random()
        check_accelerator(settings)

    def find(self, labels: Mapping[str, str]) -> list[PredictionJob]:
        """All jobs of the project that have these labels (and maybe others), newest first.

        Raises:
            JobRefused, JobUnreachable: see `errors`.
        """
        check_labels(labels)
        jobs: list[PredictionJob] = []
        token = ""
        while True:
            page = self._ask("list", partial(self._calls.page, self.settings.parent, label_filter(labels), token))
            jobs += map(read_job, page.batch_prediction_jobs)
            token = page.next_page_token
            if not token:
                break
        # Whatever the service makes of the filter.
        jobs = [job for job in jobs if labels.items() <= job.labels.items()]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def get(self, name: str) -> PredictionJob:
        """The job of that name, `projects/P/locations/L/batchPredictionJobs/J`, as it is now.

        Raises:
            JobMissing: if there is none.
            JobRefused, JobUnreachable: see `errors`.
        """
        return read_job(self._ask("get", partial(self._calls.get, name), name))

    def cancel(self, name: str) -> None:
        """Has a job cancelled, which takes some time; one that has ended stays as it is.

        Raises:
            JobMissing: if there is none.
            JobRefused, JobUnreachable: see `errors`.
        """
        self._ask("cancel", partial(self._calls.cancel, name), name)

    def create(
        self,
        display_name: str,
        labels: Mapping[str, str],
        source_uris: Sequence[str],
        destination_prefix: str,
        *,
        known: bool = False,
        further_labels: Mapping[str, str] | None = None,
    ) -> PredictionJob:
        """The job with these labels: created now, or found if an earlier request has created it after all.

        Args:
            display_name: shown in Google's console; at most 128 characters.
            labels: the job's alone; what has them all is taken for this job, whatever its state.
            source_uris: its JSONL files, `gs://BUCKET/...`; wildcards as Cloud Storage's tools have them.
            destination_prefix: `gs://BUCKET/...`, in which the service makes the folder of results.
            known: whether an earlier process may have asked for it; then it is looked for first.
            further_labels: it gets them, too, but is not looked for by them.

        Raises:
            ValueError: for values that the service does not allow.
            JobNotCreated: if the service will not have it.
            JobRefused: if it will not now, as a quota is used up or nobody is signed in; or if jobs may not be looked for.
            JobUnreachable: if it cannot be said whether the job was created; to be tried again with `known`.
        """
        message = job_message(
            self.settings, display_name, {**(further_labels or {}), **labels}, source_uris, destination_prefix
        )
        if known and (job := self._look(labels)):
            return job

        def create() -> JobReply | PredictionJob:
            reply = self._calls.create(self.settings.parent, message)
            found = self._look_after(reply, labels) if reply.leaves_open else None
            return found or reply

        made = self._ask("create", create)
        return made if isinstance(made, PredictionJob) else read_job(made)

    def close(self) -> None:
        """Releases the connections."""
        self._calls.close()

    def __enter__(self) -> JobService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look_after(self, reply: JobReply, labels: Mapping[str, str]) -> PredictionJob | None:
        """`_look` for a job whose creation failed in a way that says nothing."""
        with contextlib.suppress(RunEnded):
            return self._look(labels)
        raise unclear(self.settings, reply.code)

    def _look(self, labels: Mapping[str, str]) -> PredictionJob | None:
        """Looks for a job again and again for a minute."""
        for pause_s in LOOKS_AFTER_S:
            if pause_s:
                self._pause(pause_s)
            if jobs := self.find(labels):
                return jobs[0]
        return None

    def _ask(self, asked: Asked, call: Callable[[], JobReply | PredictionJob], name: str = "") -> Any:
        """The message of a call that may be repeated; or the job, where the call has found that in place of an answer."""
        failures, is_renewed = 0, False
        while True:
            reply = call()
            if isinstance(reply, PredictionJob):
                return reply
            if reply.code is grpc.StatusCode.OK:
                return reply.message
            if reply.code is grpc.StatusCode.UNAUTHENTICATED and not is_renewed:
                self._calls.renew_credentials()
                is_renewed = True
                continue
            failures += 1
            if not is_retryable(reply.code):
                raise refused(self.settings, asked, reply.code, name)
            if failures == ATTEMPTS:
                if asked == "create" and reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise refused(self.settings, asked, reply.code)
                raise unreachable(self.settings, asked, reply.code, failures)
            self._wait(failures, reply)

    def _wait(self, failures: int, reply: JobReply) -> None:
        self._pause(self._backoff.delay_s(failures, reply.retry_after_s, self._rng))
