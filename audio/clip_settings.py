"""What decides which clips a recording gives, and what is in them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from audio.mix import CHANNEL_PATTERN, MEAN
from audio.resample import ResamplerName
from audio.stretches import SAMPLE_RATE_HZ
from audio.window import CLIP_SAMPLES, Rules, Tail

EventContext = Literal["audio", "zeros"]

_CLIP_S = CLIP_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ClipSettings:
    """What decides which clips a recording gives, and what is in them. Wrong values raise ValueError with a message for the user."""

    channel: str = MEAN
    """`mean` of all channels, `each` channel by itself, or the number of one, from 0."""
    hop_s: float = 2.0
    """Seconds from one clip's start to the next one's: a positive whole number of 16 kHz samples."""
    tail: Tail = "pad"
    """What becomes of a last piece that is shorter than a clip: `pad` with zeros, `shift` back so that it ends with the
    recording (one shorter than a clip is padded), or `drop`."""
    min_audio_s: float = 0.5
    """A padded last clip with less audio than this is skipped, unless it is the channel's only one. 0 to 2 seconds."""
    min_rms_dbfs: float | None = None
    """Clips whose audio is quieter than this are skipped: dB of full scale, not above 0; None keeps all."""
    event_context: EventContext = "audio"
    """What surrounds an event in a clip that it does not fill: the recording's `audio` around it, or `zeros`."""
    resampler: ResamplerName = "soxr"
    """What resamples: `soxr`, in quality HQ, or `tensorflow_io`. Not which clips there are, but what is in them."""

    def __post_init__(self) -> None:
        if not re.fullmatch(CHANNEL_PATTERN, self.channel):
            raise ValueError(f"channel is {self.channel!r}; expected mean, each, or a channel's number from 0")
        samples = self.hop_s * SAMPLE_RATE_HZ
        if not (math.isfinite(samples) and round(samples) > 0 and abs(samples - round(samples)) < 1e-6):
            raise ValueError(
                f"hop_s is {self.hop_s!r}; expected a positive number of seconds that is a whole number of "
                f"samples at {SAMPLE_RATE_HZ} Hz (a multiple of {1 / SAMPLE_RATE_HZ})"
            )
        if self.tail not in get_args(Tail):
            raise ValueError(f"tail is {self.tail!r}; expected one of {', '.join(get_args(Tail))}")
        if not 0 <= self.min_audio_s <= _CLIP_S:
            raise ValueError(f"min_audio_s is {self.min_audio_s!r}; expected 0 to {_CLIP_S} seconds, a clip's length")
        if self.min_rms_dbfs is not None and not (math.isfinite(self.min_rms_dbfs) and self.min_rms_dbfs <= 0):
            raise ValueError(
                f"min_rms_dbfs is {self.min_rms_dbfs!r}; expected dB of full scale, 0 or below, for example -60"
            )
        if self.event_context not in get_args(EventContext):
            raise ValueError(
                f"event_context is {self.event_context!r}; expected one of {', '.join(get_args(EventContext))}"
            )
        if self.resampler not in get_args(ResamplerName):
            raise ValueError(f"resampler is {self.resampler!r}; expected one of {', '.join(get_args(ResamplerName))}")

    @property
    def hop_samples(self) -> int:
        """The hop in 16 kHz samples."""
        return round(self.hop_s * SAMPLE_RATE_HZ)

    @property
    def rules(self) -> Rules:
        """What decides where clips are."""
        return Rules(self.hop_samples, self.tail, round(self.min_audio_s * SAMPLE_RATE_HZ))

    @property
    def choice(self) -> str:
        """Compact JSON of what decides which clips a take gives: the same for settings that give the same clips."""
        chosen = {
            "event_context": self.event_context,
            "hop_samples": self.hop_samples,
            "min_audio_s": float(self.min_audio_s),
            "min_rms_dbfs": None if self.min_rms_dbfs is None else float(self.min_rms_dbfs),
            "tail": self.tail,
        }
        return json.dumps(chosen, separators=(",", ":"), sort_keys=True)
