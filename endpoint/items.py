"""What is sent for a clip: its samples, a WAV of it, or the object on Cloud Storage that holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

CLIP_SAMPLES = 32_000
"""Samples of a clip: 2 s at 16 kHz."""


@dataclass(frozen=True, slots=True)
class WavClip:
    """A clip as a WAV file; see `wav.encode_wav`."""

    data: bytes = field(repr=False)
    clipped_samples: int
    """How many samples were beyond what 16 bits can say, and were limited to it."""


@dataclass(frozen=True, slots=True)
class ClipObject:
    """An object on Cloud Storage that is an audio file of exactly one clip."""

    bucket: str
    """Without `gs://` and slashes."""
    name: str
    """The object's whole name in its bucket."""

    @property
    def uri(self) -> str:
        """`gs://bucket/name`."""
        return f"gs://{self.bucket}/{self.name}"


Item: TypeAlias = npt.NDArray[np.float32] | WavClip | ClipObject
"""Audio for the research format is an array of shape (32000,), audio for Model Garden a `WavClip`."""
