"""What every decoder gives: one recording as blocks of samples, in order, at its own rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from audio.errors import UnsupportedChannels, UnsupportedRate

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
MAX_CHANNELS = 64

BLOCK_FRAMES = 32_768
_BLOCK_BYTES = 4 << 20

Block = npt.NDArray[Any]
"""Samples of shape (frames, channels): int16, of which 32768 is full scale, or float32, of which 1.0 is."""


class CannotDecode(Exception):
    """A decoder cannot read a file, or not beyond what it has given; another one may."""


class NoSamples(CannotDecode):
    """A decoder knows the format, and there is not one sample in the file."""


class Gaps(NamedTuple):
    """Stretches in which the recording has no samples of its own: zeros stand in their place."""

    stretches: int
    frames: int


class AudioSource(Protocol):
    """A recording that is being decoded."""

    @property
    def rate_hz(self) -> int:
        """Frames per second."""

    @property
    def channels(self) -> int:
        """1 to MAX_CHANNELS."""

    @property
    def container(self) -> str:
        """FFmpeg's short name of the container in lower case, e.g. `wav`, `mp4`, `matroska`."""

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, e.g. `pcm_s16le`, `aac`."""

    @property
    def decoder(self) -> str:
        """`libsndfile` or `ffmpeg`."""

    @property
    def gaps(self) -> Gaps:
        """The gaps that were met so far."""

    def blocks(self) -> Iterator[Block]:
        """Yield the samples, at most BLOCK_FRAMES frames at a time; a block is valid until the next one is asked for.

        Raises AudioError after the last sample that could be had: EndedEarly when the recording goes on beyond it,
        DamagedParts when it does not.
        """

    def close(self) -> None:
        """Free the decoder. The file stays open."""


def block_frames(channels: int) -> int:
    """Return how many frames of float32 to decode at a time: fewer of many channels."""
    return max(1024, min(BLOCK_FRAMES, _BLOCK_BYTES // (4 * channels)))


def check_layout(rate_hz: int, channels: int) -> None:
    """Raise UnsupportedRate or UnsupportedChannels for what no recording has (a damaged header does)."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UnsupportedRate(
            f"its header gives a sample rate of {rate_hz} Hz; rates from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz can be read: "
            "the header is damaged, or this is no sound recording"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedChannels(
            f"its header gives {channels} channels; 1 to {MAX_CHANNELS} can be read: "
            "the header is damaged, or the channels must be split into files first"
        )


def int16_to_float32(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return 16-bit samples as float32 of full scale 1.0: exact, and what libsndfile itself computes."""
    return np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
