"""Which endpoint `--endpoint` names, and which model answers there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from emulator.standin import MODEL_ID as STAND_IN_MODEL_ID
from endpoint.address import parse_host
from endpoint.settings import InstanceFormat, SendAs

RESEARCH_NAMES: Final[dict[SendAs, str]] = {
    "audio": "projects/4016704501/locations/us-west1/endpoints/200",
    "uris": "projects/4016704501/locations/us-west1/endpoints/220",
}
"""The research endpoints of the HeAR API documentation, by what is sent."""

RESEARCH_MODEL: Final = "projects/4016704501/locations/us-west1/models/220"
"""The model of batch predictions (same source)."""

HEAR_MODEL_ID = "hear"

_NAME = re.compile(r"projects/[^/\s]+/locations/(?P<location>[a-z0-9-]+)/(?P<kind>endpoints|models)/[^/\s]+")


@dataclass(frozen=True)
class Target:
    """Where clips go."""

    name: str
    """The resource name of the endpoint, or of the model of a batch prediction job; empty for the local endpoint, which is started
    with the run."""
    host: str
    local: bool

    @property
    def default_model_id(self) -> str:
        """The stand-in's where requests stay on this machine, so that its rows are never taken for HeAR's."""
        return STAND_IN_MODEL_ID if self.local or is_loopback(self.host) else HEAR_MODEL_ID


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine by its loopback interface."""
    return parse_host(host).is_loopback


def resolve(endpoint: str, host: str | None, send: SendAs, instance_format: InstanceFormat) -> Target:
    """The target that `--endpoint` and `--endpoint_host` name; ValueError where they make no sense."""
    if endpoint == "local":
        return _local(host)
    _check_research(endpoint, instance_format, "endpoint")
    return _target(
        "endpoint",
        endpoint,
        RESEARCH_NAMES[send] if endpoint == "research" else endpoint,
        host,
        "local, research or projects/PROJECT/locations/LOCATION/endpoints/ENDPOINT",
    )


def resolve_model(endpoint: str | None, model: str | None, host: str | None, instance_format: InstanceFormat) -> Target:
    """The target of a batch prediction job, as `--endpoint` or `--batch_model` names it; ValueError where they make no sense."""
    if endpoint not in (None, "local", "research"):
        raise ValueError(
            f"--endpoint is {endpoint!r}, but a batch prediction job asks a model and no endpoint: expected local, research, or "
            "instead of it --batch_model projects/PROJECT/locations/LOCATION/models/MODEL"
        )
    if endpoint is not None and model is not None:
        raise ValueError(
            f"--batch_model is {model!r}, but --endpoint {endpoint} names a model, too: leave one of them out"
        )
    if endpoint == "local":
        return _local(host)
    if endpoint is None and model is None:
        raise ValueError(
            "--endpoint is missing: expected with --send batch --endpoint local or research, or --batch_model NAME"
        )
    _check_research(endpoint, instance_format, "model")
    return _target(
        "batch_model",
        model or "",
        model or RESEARCH_MODEL,
        host,
        "projects/PROJECT/locations/LOCATION/models/MODEL",
    )


def _local(host: str | None) -> Target:
    if host is not None:
        raise ValueError(
            f"--endpoint_host is {host!r}, but --endpoint local is started by the run itself: leave one of them out"
        )
    return Target("", "", local=True)


def _check_research(endpoint: str | None, instance_format: InstanceFormat, kind: str) -> None:
    if endpoint == "research" and instance_format != "research":
        raise ValueError(
            f"--instance_format is {instance_format!r}, but --endpoint research takes the research format: name the {kind} "
            "in your own project"
        )


def _target(option: str, value: str, name: str, host: str | None, expected: str) -> Target:
    match = _NAME.fullmatch(name)
    if not match or match["kind"] != ("endpoints" if option == "endpoint" else "models"):
        raise ValueError(f"--{option} is {value!r}: expected {expected}")
    if host is None:
        host = f"{match['location']}-aiplatform.googleapis.com"
    try:
        parse_host(host)
    except ValueError as error:
        raise ValueError(f"--endpoint_host: {error}") from None
    return Target(name, host, local=False)
