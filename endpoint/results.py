"""What becomes of clips: an embedding or a refusal each, and the outcome of the batch they were sent in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from endpoint.errors import RunEnded


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A clip that was answered."""

    embedding: npt.NDArray[np.float32] = field(repr=False)
    """(512,), finite."""
    deployed_model_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A clip that was not answered, for a reason of its own."""

    code: str
    """`rejected`; or, after the last attempt, `quota`, `timeout`, `unavailable`, `server_error`, `bad_answer`."""
    message: str
    """A sentence of ours; never the service's text, which may hold samples."""
    retryable: bool
    """Whether a later run may have more luck."""
    attempts: int
    """How often the clip was sent."""


ClipResult: TypeAlias = Embedded | Refused


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The end of one `Client.submit`."""

    results: tuple[ClipResult | None, ...]
    """One for each clip, in the order in which they were submitted. None only where `error` is set: the run ended before
    the clip had its result, and it is neither embedded nor failed."""
    requests: int
    """Requests that were sent for this batch, retries and parts of a split batch included."""
    retries: int
    """Those of them that repeated a request."""
    error: RunEnded | None = None
    """Why the run ended before all of these clips had their results."""
