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

HEAR_MODEL_ID = "hear"

_NAME = re.compile(r"projects/[^/\s]+/locations/(?P<location>[a-z0-9-]+)/endpoints/[^/\s]+")


@dataclass(frozen=True)
class Target:
    """Where clips go."""

    name: str
    """The endpoint's resource name; empty for the local endpoint, which is started with the run."""
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
        if host is not None:
            raise ValueError(
                f"--endpoint_host is {host!r}, but --endpoint local is started by the run itself: leave one of them out"
            )
        return Target("", "", local=True)
    if endpoint == "research" and instance_format != "research":
        raise ValueError(
            f"--instance_format is {instance_format!r}, but --endpoint research takes the research format: name the endpoint "
            "in your own project"
        )
    name = RESEARCH_NAMES[send] if endpoint == "research" else endpoint
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(
            f"--endpoint is {endpoint!r}: expected local, research or projects/PROJECT/locations/LOCATION/endpoints/ENDPOINT"
        )
    if host is None:
        host = f"{match['location']}-aiplatform.googleapis.com"
    try:
        parse_host(host)
    except ValueError as error:
        raise ValueError(f"--endpoint_host: {error}") from None
    return Target(name, host, local=False)
