"""What Dataflow says about jobs: their states, counts and errors. Its texts stay out of ours; its codes do not."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from rows.lease_holder import Job, JobState, JobUnclear
from transforms.quiet import KNOWN_ERROR

if TYPE_CHECKING:
    from google.cloud import dataflow_v1beta3 as api

_CLOCKS_DIFFER_S: Final = 120.0
"""At most: between this machine, Cloud Storage and Dataflow."""
_ANSWER_WITHIN_S: Final = 60.0
_ENDED: Final = frozenset({"done", "failed", "cancelled", "updated", "drained"})
_TALKATIVE: Final = (
    "apache_beam.internal.gcp.auth",
    "apache_beam.io.gcp.gcsio",
    "apache_beam.runners.dataflow.dataflow_runner",
    "apache_beam.runners.dataflow.internal.apiclient",
    "apache_beam.utils.retry",
)
"""Loggers of Beam's that show what services answered."""


def has_ended(state: str) -> bool:
    """Whether a job in this state will never be at work again."""
    return state in _ENDED


def reason(error: Exception) -> str:
    """What is wrong, in a few words that hold nothing of the service's text."""
    code = getattr(error, "code", None)
    code = getattr(code, "value", code)
    if isinstance(code, tuple):  # gRPC's have a number and a name
        code = code[0]
    return f"HTTP {code}" if isinstance(code, int) and code >= 100 else type(error).__name__


def is_refusal(error: Exception) -> bool:
    """Whether a service has said no, so that nothing has come of the request."""
    code = getattr(error, "code", None)
    return isinstance(code, int) and 400 <= code < 500 and code not in (408, 429)


@contextlib.contextmanager
def quiet_beam() -> Iterator[None]:
    """While the context is open, Beam logs nothing of what services answer."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, before, strict=True):
            logger.disabled = was_disabled


class Jobs:
    """Asks Dataflow, with the same credentials and at the same address as Beam does when it submits a job.

    Args:
      options: Beam's.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options
        self._made: dict[str, Any] = {}

    def state(self, job: Job) -> str:
        """The state of a job whose id is known: `running`, `done` and the like. Raises what the client raises."""
        from google.cloud import dataflow_v1beta3 as api

        request = api.GetJobRequest(project_id=job.project, location=job.region, job_id=job.id)
        found = self._client("JobsV1Beta3Client").get_job(request=request, timeout=_ANSWER_WITHIN_S)
        return _state(found)

    def ask(self, job: Job, handed_over_s: float) -> JobState:
        """See rows.lease_holder.AskJob."""
        try:
            if job.id:
                return "ended" if has_ended(self.state(job)) else "active"
            # Of all jobs that ever had the name, those before belong to earlier runs.
            since_s = handed_over_s - _CLOCKS_DIFFER_S
            states = [_state(found) for found in self._of_name(job) if found.create_time.timestamp() >= since_s]
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise JobUnclear(reason(error)) from None
        if not states:
            return "absent"
        return "ended" if all(map(has_ended, states)) else "active"

    def counts(self, job: Job) -> Counter[str]:
        """The counters of the stage that embeds, by name, as far as they are known by now. Raises what the client raises."""
        from google.cloud import dataflow_v1beta3 as api

        request = api.GetJobMetricsRequest(project_id=job.project, location=job.region, job_id=job.id)
        answer = self._client("MetricsV1Beta3Client").get_job_metrics(request=request, timeout=_ANSWER_WITHIN_S)
        counts: Counter[str] = Counter()
        for metric in answer.metrics:
            name = metric.name
            if (
                name.origin == "user"
                and name.context.get("namespace") == "embed"
                and isinstance(metric.scalar, float | int)
            ):
                # Committed ones, and those that count bundles as well that are not finished.
                counts[name.name] = max(counts[name.name], int(metric.scalar))
        return counts

    def known_error(self, job: Job) -> str | None:
        """What this program's own error says that ended the job, if one did."""
        from google.cloud import dataflow_v1beta3 as api

        request = api.ListJobMessagesRequest(
            project_id=job.project,
            location=job.region,
            job_id=job.id,
            minimum_importance=api.JobMessageImportance.JOB_MESSAGE_ERROR,
        )
        with contextlib.suppress(Exception):  # the state says enough
            for message in self._client("MessagesV1Beta3Client").list_job_messages(
                request=request, timeout=_ANSWER_WITHIN_S
            ):
                if known := KNOWN_ERROR.findall(message.message_text):
                    return str(known[-1])
        return None

    def cancel(self, job: Job) -> None:
        """Asks for a job to be cancelled. Raises what the client raises."""
        from google.cloud import dataflow_v1beta3 as api

        request = api.UpdateJobRequest(
            project_id=job.project,
            location=job.region,
            job_id=job.id,
            job=api.Job(requested_state=api.JobState.JOB_STATE_CANCELLED),
        )
        self._client("JobsV1Beta3Client").update_job(request=request, timeout=_ANSWER_WITHIN_S)

    def _of_name(self, job: Job) -> Iterator[api.Job]:
        from google.cloud import dataflow_v1beta3 as api

        request = api.ListJobsRequest(project_id=job.project, location=job.region, name=job.name)
        listed = self._client("JobsV1Beta3Client").list_jobs(request=request, timeout=_ANSWER_WITHIN_S)
        return (found for found in listed if found.name == job.name)

    def _client(self, kind: str) -> Any:
        if kind not in self._made:
            from apache_beam.internal.gcp.auth import get_service_credentials
            from google.api_core.client_options import ClientOptions
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import dataflow_v1beta3 as api

            cloud = self._options.view_as(GoogleCloudOptions)
            with quiet_beam():
                found = None if cloud.no_auth else get_service_credentials(self._options)
            credentials = AnonymousCredentials() if found is None else found.get_google_auth_credentials()
            address = cloud.dataflow_endpoint.strip().rstrip("/")
            is_plain = address.startswith("http://")
            self._made[kind] = getattr(api, kind)(
                credentials=credentials,
                client_options=ClientOptions(api_endpoint=address if is_plain else re.sub("^https://", "", address)),
                transport="rest" if is_plain else "grpc",
            )
        return self._made[kind]


def _state(job: api.Job) -> str:
    name: str = job.current_state.name
    return name.removeprefix("JOB_STATE_").lower().replace("_", " ")
