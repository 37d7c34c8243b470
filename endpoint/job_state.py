"""What is known of a batch prediction job at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/batchPredictionJobs/([^/]+)")

JobState: TypeAlias = Literal[
    "queued",
    "pending",
    "running",
    "succeeded",
    "partially_succeeded",
    "failed",
    "cancelling",
    "cancelled",
    "paused",
    "expired",
    "updating",
    "unknown",
]
"""The names of Vertex AI's `JobState`, in lower case; `unknown` for those that this project does not know."""

FINAL: frozenset[JobState] = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled", "expired"})
"""States that a job never leaves."""


def location_of(name: str) -> str | None:
    """L of `projects/P/locations/L/batchPredictionJobs/J`; None for other names."""
    parts = _NAME.fullmatch(name)
    return None if parts is None else parts[2]


@dataclass(frozen=True)
class PredictionJob:
    """A job as the service described it when it was last asked."""

    name: str
    """`projects/P/locations/L/batchPredictionJobs/J`, where P may be the project's number."""
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    state: JobState = "unknown"
    output_folder: str = ""
    """Where its results are, `gs://BUCKET/...`; empty as long as the service names none."""
    model: str = ""
    """`projects/P/locations/L/models/M@VERSION`; without a version where the service tells none."""
    created: str = ""
    """When, in UTC by the service's clock: ISO 8601."""
    done: int | None = None
    """Instances that it has answered; None: the service does not say."""
    failed: int | None = None
    """Instances that it could not answer."""
    total: int | None = None
    """All of its instances."""
    error: str | None = None
    """The code and, as far as it may be shown (see `job_error`), the text of the job's error, in one line."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    @property
    def link(self) -> str:
        """Its page in Google's console, as the official client's `BatchPredictionJob` names it."""
        parts = _NAME.fullmatch(self.name)
        if parts is None:
            return "https://console.cloud.google.com/agent-platform/batch-predictions"
        project, location, number = parts.groups()
        return (
            f"https://console.cloud.google.com/agent-platform/locations/{location}/batch-predictions/{number}"
            f"?project={project}"
        )
