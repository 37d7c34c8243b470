"""What is said when clips are refused or a run ends: our own words for each status, with the remedy."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from endpoint.canary import REJECTIONS_IN_A_ROW
from endpoint.errors import RunEnded
from endpoint.predictions import InstanceError
from endpoint.settings import EndpointSettings

ENDS_RUN = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED})
"""Statuses that mean the endpoint rather than the clips, whenever they come; UNAUTHENTICATED is one after a renewal."""

_REMEDIES = {
    grpc.StatusCode.UNAUTHENTICATED: "did not accept the credentials, renewed ones neither; sign in with `gcloud auth "
    "application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a valid credentials file",
    grpc.StatusCode.PERMISSION_DENIED: "does not let these credentials predict; check that they are those of the "
    "account that was given access (it needs aiplatform.endpoints.predict, as in the role Vertex AI User)",
    grpc.StatusCode.NOT_FOUND: "does not exist there; check its project, location and number, and that the host is the "
    "location's",
    grpc.StatusCode.UNIMPLEMENTED: "is asked at a host that does not serve Vertex AI predictions; check the host",
    grpc.StatusCode.FAILED_PRECONDITION: "cannot answer in its present state; check that a model is deployed to it",
}

_FORMATS = {
    ("research", "audio"): "raw audio in the research format (lists of 32000 floats)",
    ("research", "uris"): "object URIs in the research format",
    ("model_garden", "audio"): "audio in the Model Garden format (input_bytes)",
    ("model_garden", "uris"): "object URIs in the Model Garden format (gcs_uri)",
}

_BUCKET_RIGHTS = (
    "that the account whose tokens are sent may read the objects (storage.objects.get; --bucket_service_account names "
    "another account)"
)


@dataclass(frozen=True)
class Rejection:
    """How a request, or a clip by itself, was rejected, and what that means for a clip that was sent alone."""

    status: str
    code: str
    sentence: str
    retryable: bool


INSTANCE_REJECTED = Rejection(
    "an error for each clip", "rejected", "The endpoint rejected this clip; sending it again is of no use.", False
)
NOT_RETRIEVED = Rejection(
    "no object could be retrieved",
    "not_retrieved",
    f"The endpoint could not read this clip's object, with new tokens neither; check {_BUCKET_RIGHTS}, and that it is "
    "still there.",
    True,
)


def rejection(settings: EndpointSettings, code: grpc.StatusCode) -> Rejection:
    """The rejection of a request by its status."""
    if settings.send == "uris":
        sentence = (
            f"The endpoint rejected this clip's object when its URI was sent alone, with a new token ({code.name}); it "
            "may be gone or replaced, and sending it again is of no use."
        )
    else:
        sentence = (
            f"The endpoint rejected this clip when it was sent alone ({code.name}); sending it again is of no use."
        )
    return Rejection(code.name, "rejected", sentence, False)


def refused_alone(rejection: Rejection) -> tuple[str, str, bool]:
    """Code, message, and whether a later run may have more luck, for a clip that was rejected by itself."""
    return rejection.code, rejection.sentence, rejection.retryable


_FAILURES = {
    grpc.StatusCode.UNAUTHENTICATED: ("no_token", "No access token could be fetched"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("quota", "The endpoint's quota stayed exhausted"),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("timeout", "The endpoint did not answer in time"),
    grpc.StatusCode.UNAVAILABLE: ("unavailable", "The endpoint could not be reached, or was not available"),
}


def refused_by_status(code: grpc.StatusCode, attempts: int) -> tuple[str, str]:
    """Code and message for clips whose last attempt failed with a retryable status."""
    short, sentence = _FAILURES.get(code, ("server_error", "The endpoint failed to answer"))
    return short, f"{sentence} ({code.name}, {attempts} attempts); run again later."


_BUSY = _FAILURES.keys() - {grpc.StatusCode.UNAUTHENTICATED}
_JOB_REJECTIONS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        InstanceError.REJECTED,
    }
)


def refused_by_job(error: grpc.StatusCode | InstanceError | None) -> tuple[str, str, bool]:
    """Code, message, and whether a later run may have more luck, for a clip that a batch job answered with an error.

    Args:
        error: of which kind; None if it does not say.
    """
    said = f" ({error.name})" if isinstance(error, grpc.StatusCode) else ""
    if error in _JOB_REJECTIONS:
        return "rejected", f"The batch job rejected this clip{said}; sending it again is of no use.", False
    short = _FAILURES[error][0] if error in _BUSY else "server_error"
    return short, f"The batch job answered this clip with an error{said}; run again later.", True


def refused_by_bad_answer(reason: str, attempts: int) -> tuple[str, str]:
    """Code and message for clips whose last attempt was answered with something else than embeddings."""
    return "bad_answer", f"The endpoint's answers could not be used: {reason} ({attempts} attempts); run again later."


def ended_by_status(settings: EndpointSettings, code: grpc.StatusCode) -> RunEnded:
    """A status after which nothing more needs to be sent."""
    reason = _REMEDIES[code]
    if code is grpc.StatusCode.PERMISSION_DENIED and settings.send == "uris":
        reason += f", and {_BUCKET_RIGHTS}"
    return _run_ended(settings, f"{reason} ({code.name})")


def ended_by_first_rejection(settings: EndpointSettings, rejection: Rejection) -> RunEnded:
    """An endpoint that rejected the first request that it got."""
    known = next((remedy for code, remedy in _REMEDIES.items() if code.name == rejection.status), None)
    if known is not None:
        return _run_ended(settings, f"{known} ({rejection.status})")
    check = [
        f"that it is an endpoint for {_FORMATS[settings.instance_format, settings.send]}, see --send and "
        "--instance_format"
    ]
    if settings.send == "uris":
        check.append(_BUCKET_RIGHTS)
    elif settings.instance_format == "research":
        check.append("that its limit allows so many clips in a request")
    return _run_ended(settings, f"rejected the first request ({rejection.status}); check {', and '.join(check)}")


def ended_by_rejections(settings: EndpointSettings, rejection: Rejection) -> RunEnded:
    """Too many rejections in a row."""
    check = "that its model is still the one that this run began with"
    if settings.send == "uris":
        check += f", and {_BUCKET_RIGHTS}"
    return _run_ended(settings, f"rejected {REJECTIONS_IN_A_ROW} requests in a row ({rejection.status}); check {check}")


def ended_unanswered(settings: EndpointSettings, code: grpc.StatusCode, attempts: int) -> RunEnded:
    """An endpoint that never answered."""
    return _run_ended(
        settings,
        f"did not answer the first request in {attempts} attempts ({code.name}); check host and network, or try later",
    )


def ended_silent(settings: EndpointSettings, code: grpc.StatusCode, attempts: int) -> RunEnded:
    """An endpoint that has stopped answering."""
    return _run_ended(
        settings,
        f"has stopped answering: request after request failed in all of its {attempts} attempts ({code.name}); check "
        "host, network and quota, and run again later",
    )


def ended_by_bad_answers(settings: EndpointSettings, reason: str) -> RunEnded:
    """An endpoint whose every answer was something else than embeddings."""
    return _run_ended(
        settings,
        f"answers, but not as a HeAR endpoint for {_FORMATS[settings.instance_format, settings.send]}: {reason}; check "
        "which model it serves, and --instance_format",
    )


def _run_ended(settings: EndpointSettings, reason: str) -> RunEnded:
    return RunEnded(f"Endpoint {settings.name} at {settings.host} {reason}.")
