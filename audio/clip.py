"""What comes out of a recording: its clips, those that are left out or fail, and what the recording is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from audio.stretches import SAMPLE_RATE_HZ
from audio.window import CLIP_SAMPLES

Limits: TypeAlias = tuple[int, int] | None
"""Of a clip that holds an event among zeros: the part [lo, hi) of it that is the event, in 16 kHz samples from the
recording's start, where that leaves out audio that the recording has there. None for all other clips."""


Samples: TypeAlias = npt.NDArray[np.float32]
"""A clip's, of shape (32000,)."""


def new_samples() -> Samples:
    """Return memory for a clip's samples."""
    return np.empty(CLIP_SAMPLES, np.float32)


class Wanted(NamedTuple):
    """Who wants a clip."""

    take: int
    """The number of the take, from 0, in the order in which they were given."""
    clip_index: int
    """The how manieth clip of that take and channel it is, from 0; skipped and failed ones are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Two seconds of one channel of a recording."""

    channel: str
    """`mean`, or the channel's number from 0."""
    start_sample: int
    """Its first sample: 16 kHz samples from the recording's start; negative where an event near it is centred."""
    limits: Limits
    wanted: tuple[Wanted, ...]
    """By number of the take; never empty."""
    audio_start: int
    """The first sample that is the recording's, counted like `start_sample`: those before it are zeros."""
    audio_stop: int
    """The end of what is the recording's, likewise."""
    samples: Samples = field(repr=False)
    """float32 of shape (32000,), full scale 1.0, C-contiguous, in memory of its own."""
    rms_dbfs: float
    """Root mean square of the audio, padding left out, in dB of full scale; -inf for digital silence."""
    peak_dbfs: float
    """Largest magnitude, likewise."""

    @property
    def audio_samples(self) -> int:
        """How many of its samples are the recording's; the rest are padding."""
        return self.audio_stop - self.audio_start

    @property
    def start_s(self) -> float:
        """Seconds from the recording's start to the start of the clip's audio."""
        return self.audio_start / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """Seconds from the recording's start to the end of the clip's audio."""
        return self.audio_stop / SAMPLE_RATE_HZ

    @property
    def padded_s(self) -> float:
        """Seconds of zeros around the audio."""
        return (CLIP_SAMPLES - self.audio_samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class SkippedClip:
    """A clip that the settings leave out."""

    channel: str
    start_sample: int
    limits: Limits
    wanted: tuple[Wanted, ...]
    reason: str
    """`too_short` or `too_quiet`."""


@dataclass(frozen=True)
class FailedClip:
    """A clip that cannot be sent."""

    channel: str
    start_sample: int
    limits: Limits
    wanted: tuple[Wanted, ...]
    code: str
    """`non_finite_samples`."""
    message: str


ClipResult: TypeAlias = Clip | SkippedClip | FailedClip


class FailedTake(NamedTuple):
    """A take of which there is no clip at all, though the recording can be read."""

    take: int
    """Its number, from 0."""
    code: str
    """`event_beyond_end` or `no_such_channel`."""
    message: str


@dataclass(frozen=True)
class AudioInfo:
    """What a recording, or the part of it that was asked for, turned out to be."""

    duration_s: float | None
    """Of what was decoded, gaps included, within the part that was asked for; None if nothing was."""
    source_rate_hz: int
    source_channels: int
    container: str
    codec: str
    """FFmpeg's name, e.g. `pcm_s16le`, whichever decoder read it."""
    decoder: str
    """`libsndfile` or `ffmpeg`."""
    gap_s: float
    """Seconds in which the recording has no samples of its own: zeros stand in their place."""
    gaps: int
    """How many such stretches there are."""
