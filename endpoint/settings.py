"""Which endpoint is asked, and how hard."""

from __future__ import annotations

import re
from dataclasses import dataclass

from endpoint.address import parse_host

_ENDPOINT_NAME = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/endpoints/[^/\s]+")


@dataclass(frozen=True)
class EndpointSettings:
    """Where clips are sent, and the bounds of sending.

    Raises:
        ValueError: for a value that cannot work; the message names it and what is expected.
    """

    name: str
    """`projects/P/locations/L/endpoints/E`, as it stands in the request."""
    host: str
    """`us-west1-aiplatform.googleapis.com`, with TLS; or `127.0.0.1:PORT`, in plain text (loopback only)."""
    timeout_s: float = 60.0
    """Time limit of one request. Shared Vertex endpoints give up after 60 s, whatever a client asks."""
    max_attempts: int = 8
    """How often clips are sent until they count as failed because no attempt was answered properly."""
    max_in_flight: int = 32
    """Batches that may be without their answer at a time, those waiting to be sent again included."""
    clips_per_request: int = 4
    """Clips in a batch at most. The research endpoint takes 4 (1,408,016 of 1,500,000 bytes)."""

    def __post_init__(self) -> None:
        if not _ENDPOINT_NAME.fullmatch(self.name):
            raise ValueError(
                f"endpoint name {self.name!r}: expected projects/PROJECT/locations/LOCATION/endpoints/ENDPOINT"
            )
        parse_host(self.host)
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s is {self.timeout_s!r}: expected a number of seconds above 0, such as 60")
        for option in ("max_attempts", "max_in_flight", "clips_per_request"):
            if (value := getattr(self, option)) < 1:
                raise ValueError(f"{option} is {value!r}: expected a whole number of at least 1")
