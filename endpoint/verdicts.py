"""What is said when clips are refused or a run ends: our own words for each status, with the remedy."""

from __future__ import annotations

import grpc

from endpoint.canary import REJECTIONS_IN_A_ROW
from endpoint.errors import RunEnded
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
    grpc.StatusCode.INVALID_ARGUMENT: "rejected the first request as invalid; check that it is an endpoint for raw "
    "audio (lists of 32000 floats) and that its limit allows so many clips in a request",
    grpc.StatusCode.FAILED_PRECONDITION: "cannot answer in its present state; check that a model is deployed to it",
}

_FAILURES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("quota", "The endpoint's quota stayed exhausted"),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("timeout", "The endpoint did not answer in time"),
    grpc.StatusCode.UNAVAILABLE: ("unavailable", "The endpoint could not be reached, or was not available"),
}


def refused_by_status(code: grpc.StatusCode, attempts: int) -> tuple[str, str]:
    """Code and message for clips whose last attempt failed with a retryable status."""
    short, sentence = _FAILURES.get(code, ("server_error", "The endpoint failed to answer"))
    return short, f"{sentence} ({code.name}, {attempts} attempts); run again later."


def refused_by_bad_answer(reason: str, attempts: int) -> tuple[str, str]:
    """Code and message for clips whose last attempt was answered with something else than embeddings."""
    return "bad_answer", f"The endpoint's answers could not be used: {reason} ({attempts} attempts); run again later."


def rejected(code: grpc.StatusCode) -> tuple[str, str]:
    """Code and message for a clip that is rejected when it is sent alone."""
    return (
        "rejected",
        f"The endpoint rejected this clip when it was sent alone ({code.name}); sending it again is of no use.",
    )


def ended_by_status(settings: EndpointSettings, code: grpc.StatusCode) -> RunEnded:
    """A status after which nothing more needs to be sent."""
    reason = _REMEDIES.get(code, "rejected the first request; check that it is an endpoint for raw audio")
    return _run_ended(settings, f"{reason} ({code.name})")


def ended_by_rejections(settings: EndpointSettings, code: grpc.StatusCode) -> RunEnded:
    """Too many rejections in a row."""
    return _run_ended(
        settings,
        f"rejected {REJECTIONS_IN_A_ROW} requests in a row ({code.name}); check that its model is still the one "
        "that this run began with",
    )


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
        settings, f"answers, but not as a HeAR endpoint for raw audio: {reason}; check which model it serves"
    )


def _run_ended(settings: EndpointSettings, reason: str) -> RunEnded:
    return RunEnded(f"Endpoint {settings.name} at {settings.host} {reason}.")
