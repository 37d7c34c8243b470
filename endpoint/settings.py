"""Which endpoint is asked, in which format, and how hard."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from endpoint.address import parse_host
from endpoint.tokens import BucketTokenSettings

SendAs: TypeAlias = Literal["audio", "uris"]
InstanceFormat: TypeAlias = Literal["research", "model_garden"]
TransportName: TypeAlias = Literal["grpc", "rest"]

MAX_REQUEST_BYTES = 1_500_000
"""Of shared Vertex endpoints; dedicated ones take 10 MB (design.md 2.2, 2.3)."""

_ENDPOINT_NAME = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/endpoints/[^/\s]+")


@dataclass(frozen=True)
class EndpointSettings:
    """Where clips are sent, how they are written, and the bounds of sending. Holds no secrets; pickled to workers.

    Raises:
        ValueError: for a value that cannot work; the message names it and what is expected.
    """

    name: str
    """`projects/P/locations/L/endpoints/E`, as it stands in the request."""
    host: str
    """`us-west1-aiplatform.googleapis.com`, with TLS; or `127.0.0.1:PORT`, in plain text (loopback only)."""
    send: SendAs = "audio"
    """Whether requests hold the audio itself, or the URIs of objects on Cloud Storage that hold it."""
    instance_format: InstanceFormat = "research"
    """How a clip is written: as the research endpoints want it, or those of Model Garden (design.md 2.1, 2.2)."""
    transport: TransportName = "grpc"
    timeout_s: float = 60.0
    """Time limit of one request. Shared Vertex endpoints give up after 60 s, whatever a client asks."""
    max_attempts: int = 8
    """How often clips are sent until they count as failed because no attempt was answered properly."""
    max_in_flight: int = 32
    """Batches that may be without their answer at a time, those waiting to be sent again included."""
    clips_per_request: int | None = None
    """Clips in a batch at most; None: as many as the format allows."""
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_requests_per_minute: float | None = None
    """Of all processes of this machine together, retries included; None: what the endpoint lets through."""
    max_requests: int | None = None
    """Of all processes of this machine that belong to the run together, retries and the probe's included; None: no limit.
    The count must have been started (`SharedBudget.begin`)."""
    run_id: str = ""
    """Names the run whose requests are counted, another one each time; needed with `max_requests`."""
    service_account: str | None = None
    """Impersonated for calls of the endpoint."""
    bucket_tokens: BucketTokenSettings = field(default_factory=BucketTokenSettings)
    """What the service may read with the tokens that go with URIs."""
    is_proven: bool = False
    """Whether it has embedded clips sent in this way (the probe's): a rejection is then a matter of the clips in it."""

    def __post_init__(self) -> None:
        if not _ENDPOINT_NAME.fullmatch(self.name):
            raise ValueError(
                f"endpoint name {self.name!r}: expected projects/PROJECT/locations/LOCATION/endpoints/ENDPOINT"
            )
        parse_host(self.host)
        for option, choices in (("send", SendAs), ("instance_format", InstanceFormat), ("transport", TransportName)):
            if (value := getattr(self, option)) not in get_args(choices):
                raise ValueError(f"{option} is {value!r}: expected {' or '.join(get_args(choices))}")
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s is {self.timeout_s!r}: expected a number of seconds above 0, such as 60")
        for option in ("max_attempts", "max_in_flight", "clips_per_request", "max_requests"):
            if (value := getattr(self, option)) is not None and value < 1:
                raise ValueError(f"{option} is {value!r}: expected a whole number of at least 1")
        if self.max_request_bytes < MAX_REQUEST_BYTES:
            raise ValueError(f"max_request_bytes is {self.max_request_bytes!r}: expected {MAX_REQUEST_BYTES} or more")
        if self.max_requests_per_minute is not None and not 0 < self.max_requests_per_minute < float("inf"):
            raise ValueError(f"max_requests_per_minute is {self.max_requests_per_minute!r}: expected a number above 0")
        if self.max_requests is not None and not self.run_id:
            raise ValueError(f"run_id is {self.run_id!r}: expected a name for this run, as max_requests is given")
