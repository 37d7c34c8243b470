"""What a request is answered with, before a transport writes it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from emulator.standin import MODEL_ID, FloatArray

DEPLOYED_MODEL_ID = "1"
MODEL_NAME = f"projects/local/locations/local/models/{MODEL_ID}"
MODEL_VERSION_ID = "1"


@dataclass(frozen=True, eq=False)
class Predictions:
    """One prediction for each instance, in order.

    Attributes:
        embeddings: float32 (n, 512); rows of instances with an error mean nothing.
        as_objects: Model Garden's `{"embedding": [...]}` or `{"error": {"description": "..."}}`, else bare lists.
        errors: descriptions by the instance's position, only if `as_objects`.
    """

    embeddings: FloatArray
    as_objects: bool = False
    errors: Mapping[int, str] = field(default_factory=dict)

    def without_last(self) -> Predictions:
        """A prediction too few."""
        last = len(self.embeddings) - 1
        errors = {position: text for position, text in self.errors.items() if position != last}
        return replace(self, embeddings=self.embeddings[:last], errors=errors)

    def with_nan(self, position: int) -> Predictions:
        """NaN in the middle of one embedding."""
        embeddings = self.embeddings.copy()
        embeddings[position, embeddings.shape[1] // 2] = np.nan
        return replace(self, embeddings=embeddings)
