"""Which model a batch prediction job runs, where, and on which machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from endpoint.address import parse_host
from endpoint.settings import InstanceFormat, TransportName

_MODEL = re.compile(r"projects/[^/\s@]+/locations/(?P<location>[^/\s@]+)/models/[^/\s@]+(?:@[^/\s@]+)?")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]*")
_MACHINE_TYPE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_ACCELERATOR_TYPE = re.compile(r"[A-Z][A-Z0-9_]+")


@dataclass(frozen=True)
class JobSettings:
    """A batch prediction job but for its files. Holds no secrets.

    Machine and accelerator are those of the HeAR API documentation's example (design.md 2.1).

    Raises:
        ValueError: for a value that cannot work; the message begins with its option's name and says what is expected.
    """

    model: str
    """`projects/P/locations/L/models/M`, with `@VERSION` behind it for another than the model's default version."""
    host: str
    """`us-west1-aiplatform.googleapis.com`, with TLS; or `127.0.0.1:PORT`, in plain text (loopback only)."""
    project: str
    """In which the job runs, and which is charged for it: an id or a number. The job's location is the model's."""
    machine_type: str = "n1-standard-8"
    accelerator_type: str | None = "NVIDIA_TESLA_V100"
    """A name of Vertex AI's `AcceleratorType`, which `JobService` checks; None: no accelerator."""
    accelerator_count: int = 1
    """In each machine; 0: no accelerator."""
    starting_replicas: int | None = None
    """Machines at the job's beginning; None: what the service chooses."""
    max_replicas: int | None = None
    """Machines at most; None: what the service chooses."""
    instance_format: InstanceFormat = "research"
    """How the clips in the job's files are written."""
    transport: TransportName = "grpc"
    """How the service of jobs is asked."""
    service_account: str | None = None
    """Impersonated for calls of the service of jobs; the job itself runs as the project's own service agent."""

    def __post_init__(self) -> None:
        for name, pattern, expected in (
            ("model", _MODEL, "projects/P/locations/L/models/M, with or without @VERSION"),
            ("project", _PROJECT, "a project's id or number"),
            ("machine_type", _MACHINE_TYPE, "a machine type of Compute Engine, such as n1-standard-8"),
        ):
            if not pattern.fullmatch(value := getattr(self, name)):
                raise ValueError(f"batch_{name} is {value!r}: expected {expected}")
        if self.accelerator_type is not None and not _ACCELERATOR_TYPE.fullmatch(self.accelerator_type):
            raise ValueError(
                f"batch_accelerator_type is {self.accelerator_type!r}: expected a name such as NVIDIA_TESLA_V100"
            )
        if self.accelerator_count < 0:
            raise ValueError(
                f"batch_accelerator_count is {self.accelerator_count!r}: expected a whole number, 0 for no accelerator"
            )
        for name in ("starting_replicas", "max_replicas"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"batch_{name} is {count!r}: expected a whole number of at least 1")
        if self.max_replicas is not None and self.max_replicas < (self.starting_replicas or 1):
            raise ValueError(
                f"batch_max_replicas is {self.max_replicas!r}: expected no less than batch_starting_replicas, "
                f"{self.starting_replicas}"
            )
        for name, choices in (("instance_format", InstanceFormat), ("transport", TransportName)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} is {value!r}: expected {' or '.join(get_args(choices))}")
        parse_host(self.host)

    @property
    def location(self) -> str:
        """The model's, in which the job must run."""
        match = _MODEL.fullmatch(self.model)
        assert match is not None
        return match["location"]

    @property
    def parent(self) -> str:
        """Where the job is created, and listed."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def has_accelerator(self) -> bool:
        """Whether machines have an accelerator."""
        return self.accelerator_type is not None and self.accelerator_count > 0
