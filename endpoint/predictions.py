"""What a checked answer holds: an embedding for each instance, or why there is none."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from endpoint.errors import BadAnswer

EMBEDDING_WIDTH = 512
"""Floats of an embedding."""

_NOT_RETRIEVED = "Failed to retrieve data from request instance"


class InstanceError(enum.Enum):
    """Why an instance of a Model Garden request was not embedded although its request was answered."""

    NOT_RETRIEVED = enum.auto()
    """The service could not read the object: it is not there, or the token that came with it does not open it."""
    REJECTED = enum.auto()
    """Anything else: the instance itself is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A checked answer."""

    embeddings: npt.NDArray[np.float32] = field(repr=False)
    """(instances, 512), finite, in the order of the request; memory of its own. Rows of failed instances are zeros."""
    deployed_model_id: str
    """Which deployed model answered."""
    errors: Mapping[int, InstanceError] = field(default_factory=dict)
    """By position in the request; always empty in the research format."""


def error_of_description(description: object) -> InstanceError:
    """Which error a Model Garden endpoint's description of one means (design.md 2.2); the text is not kept."""
    if isinstance(description, str) and description.startswith(_NOT_RETRIEVED):
        return InstanceError.NOT_RETRIEVED
    return InstanceError.REJECTED


def check_count(predictions: int, instances: int) -> None:
    """Raises `BadAnswer` unless there is a prediction for each instance."""
    if predictions != instances:
        raise BadAnswer(f"the answer holds {predictions} predictions for {instances} instances")


def check_finite(embeddings: npt.NDArray[np.float32]) -> None:
    """Raises `BadAnswer` for the first row of (instances, 512) with a number that is not finite."""
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        position = int(np.argmin(finite))
        raise BadAnswer(f"prediction {position} of {len(embeddings)} holds numbers that are not finite float32")


def as_float32(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Rounds; too large a number becomes infinite and a signalling NaN a quiet one, for `check_finite` to refuse."""
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(np.float32)
