"""The endpoints that are served, told apart by name, and the rules each has."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from emulator.refusals import InvalidArgumentError, NotFoundError

DEFAULT_AUDIO_ENDPOINT = "projects/local/locations/local/endpoints/200"
DEFAULT_URI_ENDPOINT = "projects/local/locations/local/endpoints/220"
DEFAULT_GARDEN_ENDPOINT = "projects/local/locations/local/endpoints/300"

MAX_REQUEST_BYTES = 1_500_000
"""Vertex says "1.500MB", not whether of 10^6 or 2^20 bytes: by the smaller reading, what passes here passes there."""

_ENDPOINT_NAME = re.compile(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/endpoints/[A-Za-z0-9_-]+", re.ASCII)


class InstanceFormat(enum.Enum):
    """What an instance looks like."""

    RESEARCH_AUDIO = enum.auto()
    """A list of 32000 floats."""
    RESEARCH_URIS = enum.auto()
    """An object with `bucket_name`, `object_uri` and `bearer_token`."""
    MODEL_GARDEN = enum.auto()
    """An object with `input_array`, `input_bytes`, or `gcs_uri` and `bearer_token`."""


@dataclass(frozen=True)
class ServedEndpoint:
    """One endpoint.

    Attributes:
        name: `projects/P/locations/L/endpoints/E`.
        instance_format: of the instances it takes; others are refused.
        max_request_bytes: the longest request it takes, in bytes of the payload.
    """

    name: str
    instance_format: InstanceFormat
    max_request_bytes: int = MAX_REQUEST_BYTES


class Endpoints:
    """All endpoints of this service, by name."""

    def __init__(self, served: Iterable[ServedEndpoint]) -> None:
        """Raises ValueError if two have the same name."""
        endpoints = list(served)
        self._by_name = {endpoint.name: endpoint for endpoint in endpoints}
        if len(self._by_name) < len(endpoints):
            raise ValueError("two endpoints have the same name")

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(self._by_name)

    def check_size(self, size_bytes: int) -> None:
        """Refuses (InvalidArgumentError) what is too long for every endpoint, so that it need not be read."""
        longest = max(endpoint.max_request_bytes for endpoint in self._by_name.values())
        if size_bytes > longest:
            raise _too_long(size_bytes, longest)

    def find(self, name: str, size_bytes: int) -> ServedEndpoint:
        """The endpoint that a request of this size is for.

        Raises:
            NotFoundError: there is none of that name.
            InvalidArgumentError: that is no endpoint's name, or the request is too long for this one.
        """
        if not is_endpoint_name(name):
            raise InvalidArgumentError(
                "Invalid resource field value in the request: endpoint must read projects/P/locations/L/endpoints/E."
            )
        endpoint = self._by_name.get(name)
        if endpoint is None:
            raise NotFoundError(f"Endpoint `{name}` not found.")
        if size_bytes > endpoint.max_request_bytes:
            raise _too_long(size_bytes, endpoint.max_request_bytes)
        return endpoint


def is_endpoint_name(name: str) -> bool:
    """Whether this reads `projects/P/locations/L/endpoints/E`."""
    return _ENDPOINT_NAME.fullmatch(name) is not None


def _too_long(size_bytes: int, limit_bytes: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"The request size ({size_bytes} bytes) exceeds {limit_bytes / 1e6:.3f}MB limit.")


DEFAULT_ENDPOINTS = Endpoints(
    [
        ServedEndpoint(DEFAULT_AUDIO_ENDPOINT, InstanceFormat.RESEARCH_AUDIO),
        ServedEndpoint(DEFAULT_URI_ENDPOINT, InstanceFormat.RESEARCH_URIS),
        ServedEndpoint(DEFAULT_GARDEN_ENDPOINT, InstanceFormat.MODEL_GARDEN),
    ]
)
