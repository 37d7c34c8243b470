"""What is said when the service of batch prediction jobs refuses or does not answer: our own words, with the remedy."""

from __future__ import annotations

from typing import Literal, TypeAlias

import grpc

from endpoint.errors import JobMissing, JobNotCreated, JobRefused, JobUnreachable
from endpoint.job_settings import JobSettings

Asked: TypeAlias = Literal["create", "get", "list", "cancel"]

_ASKED: dict[Asked, str] = {
    "create": "create the batch prediction job",
    "get": "tell about the batch prediction job",
    "list": "list batch prediction jobs",
    "cancel": "cancel the batch prediction job",
}

_SIGN_IN = (
    "the credentials were not accepted, renewed ones neither; sign in with `gcloud auth application-default login`, or "
    "set GOOGLE_APPLICATION_CREDENTIALS to a valid credentials file"
)
_INSTANCES = {"research": "lists of 32000 numbers", "model_garden": "objects with input_bytes"}


_PASSES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
"""The same job is created another time: when a quota has room again, or somebody has signed in."""


def refused(settings: JobSettings, asked: Asked, code: grpc.StatusCode, name: str = "") -> JobRefused:
    """A status after which asking again is of no use.

    Args:
        settings: what was asked for.
        asked: the method.
        code: its status.
        name: the job's, if it has one.
    """
    reason = _creation(settings).get(code) if asked == "create" else None
    reason = reason or _any_call(settings, asked).get(code) or "it gave no reason that is known here"
    job = f" {name}" if name else ""
    kind = JobRefused
    if asked == "create" and code not in _PASSES:
        kind = JobNotCreated
    elif asked in ("get", "cancel") and code is grpc.StatusCode.NOT_FOUND:
        kind = JobMissing
    return kind(
        f"Vertex AI at {settings.host} did not {_ASKED[asked]}{job} with model {settings.model} in project "
        f"{settings.project} ({code.name}): {reason}."
    )


def unreachable(settings: JobSettings, asked: Asked, code: grpc.StatusCode, attempts: int) -> JobUnreachable:
    """A service that could not be asked for long."""
    return JobUnreachable(
        f"Vertex AI at {settings.host} could not be asked to {_ASKED[asked]} ({code.name}, {attempts} attempts); check host "
        "and network, and run the same command again: it goes on from here."
    )


def unclear(settings: JobSettings, code: grpc.StatusCode) -> JobUnreachable:
    """A job that was asked for, and may be there or not."""
    return JobUnreachable(
        f"Vertex AI at {settings.host} did not say whether it created the batch prediction job ({code.name}), and it cannot "
        "be asked; run the same command again: it looks for the job before it asks for one."
    )


def out_of_reach(settings: JobSettings, name: str, link: str, minutes: float) -> JobUnreachable:
    """A job that is at work, and cannot be asked about any more."""
    return JobUnreachable(
        f"Vertex AI at {settings.host} could not be asked about the batch prediction job {name} for {minutes:.0f} minutes. "
        f"The job goes on (see {link}): run the same command again to wait for it."
    )


def _any_call(settings: JobSettings, asked: Asked) -> dict[grpc.StatusCode, str]:
    return {
        grpc.StatusCode.UNAUTHENTICATED: _SIGN_IN,
        grpc.StatusCode.PERMISSION_DENIED: f"{_caller(settings)} needs aiplatform.batchPredictionJobs.{asked} in project "
        f"{settings.project}, as in roles/aiplatform.user, and the Vertex AI API must be enabled there; --batch_project names "
        "another project",
        grpc.StatusCode.NOT_FOUND: "there is none, or it was deleted"
        if asked == "get"
        else f"check that --batch_project exists, and that the host is that of {settings.location}",
        grpc.StatusCode.INVALID_ARGUMENT: f"check --batch_project, and that the host is that of {settings.location}",
        grpc.StatusCode.UNIMPLEMENTED: "this host does not serve Vertex AI's jobs; check the host",
    }


def _caller(settings: JobSettings) -> str:
    return settings.service_account or "the account that is signed in"


def _creation(settings: JobSettings) -> dict[grpc.StatusCode, str]:
    agent = (
        f"that the Vertex AI service agent of project {settings.project} may read and write the bucket of "
        "--staging_location (roles/storage.objectAdmin)"
    )
    place = f"that model, bucket and host are all of the location {settings.location}"
    machines = f"the machine type {settings.machine_type}"
    if settings.has_accelerator:
        machines += f" with {settings.accelerator_count} x {settings.accelerator_type}"
    return {
        grpc.StatusCode.PERMISSION_DENIED: f"{_caller(settings)} needs aiplatform.batchPredictionJobs.create in project "
        f"{settings.project}, as in roles/aiplatform.user, and access to the model; check as well that the Vertex AI API is "
        f"enabled there, and {agent}",
        grpc.StatusCode.NOT_FOUND: f"check that --batch_model and --batch_project exist, and {place}",
        grpc.StatusCode.INVALID_ARGUMENT: f"check that {settings.location} offers {machines}, that the model takes JSONL files "
        f"of {_INSTANCES[settings.instance_format]} (see --instance_format), and {place}",
        grpc.StatusCode.FAILED_PRECONDITION: "check that this version of the model can be used for batch predictions, that the "
        f"Vertex AI API is enabled in project {settings.project}, {agent}, and {place}",
        grpc.StatusCode.RESOURCE_EXHAUSTED: f"a quota of project {settings.project} in {settings.location} is used up, of jobs "
        f"or of {machines}; wait until other jobs have ended, have the quota raised, or choose other machines",
    }
