"""Which endpoint `--endpoint` names, and which model answers there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emulator.standin import MODEL_ID as STAND_IN_MODEL_ID
from endpoint.address import parse_host

RESEARCH_NAME = "projects/4016704501/locations/us-west1/endpoints/200"
"""The raw-audio research endpoint of the HeAR API documentation."""

HEAR_MODEL_ID = "hear"

MAX_CLIPS_PER_REQUEST = 4
"""Of the raw-audio research endpoint (API documentation)."""

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


def resolve(endpoint: str, host: str | None) -> Target:
    """The target that `--endpoint` and `--endpoint_host` name; ValueError where they make no sense."""
    if endpoint == "local":
        if host is not None:
            raise ValueError(
                f"--endpoint_host is {host!r}, but --endpoint local is started by the run itself: leave one of them out"
            )
        return Target("", "", local=True)
    name = RESEARCH_NAME if endpoint == "research" else endpoint
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
