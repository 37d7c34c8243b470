"""Recordings that are clips already: objects that an endpoint can fetch as they are, so that nothing is staged for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from audio.clips import CLIP_SAMPLES, SAMPLE_RATE_HZ, Clip
from audio.recording import Recording
from audio.source import int16_to_float32

_GS = "gs://"
_DATA_BYTES = 2 * CLIP_SAMPLES
_MIN_BYTES = 44 + _DATA_BYTES
# Broadcast WAV and its like put some kilobytes of text around the samples.
_MAX_BYTES = _MIN_BYTES + (64 << 10)
_PCM = 1


@dataclass(frozen=True, eq=False)
class ReadyMade:
    """An object on Cloud Storage that is a WAV file of exactly one clip: 16 kHz, mono, 16 bits, 32000 frames."""

    bucket: str
    name: str
    _samples: npt.NDArray[np.int16] = field(repr=False)

    def holds(self, clip: Clip) -> bool:
        """Whether `clip` is what the object holds, without padding and sample for sample."""
        return clip.audio_samples == CLIP_SAMPLES and np.array_equal(clip.samples, int16_to_float32(self._samples))


def may_be_ready_made(recording: Recording) -> bool:
    """Whether the recording's place and size allow that it is a clip already: costs nothing."""
    return recording.uri.startswith(_GS) and _MIN_BYTES <= recording.size_bytes <= _MAX_BYTES


def ready_made(recording: Recording, file: BinaryIO) -> ReadyMade | None:
    """Return the object that is a clip by itself, by its header; None for every other recording.

    `file` is the opened recording; it is read only where `may_be_ready_made`, and its position is left as it was.
    What reading it raises is not kept back.
    """
    if not may_be_ready_made(recording):
        return None
    position = file.tell()
    file.seek(0)
    data = file.read(_MAX_BYTES + 1)
    file.seek(position)
    samples = _clip_samples(data)
    if samples is None:
        return None
    bucket, _, name = recording.uri.removeprefix(_GS).partition("/")
    return ReadyMade(bucket, name, samples)


def _clip_samples(data: bytes) -> npt.NDArray[np.int16] | None:
    """Return the samples of a file that is a clip; None unless every size in its header agrees with what is there."""
    if len(data) > _MAX_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        return None
    is_clip_format = False
    at = 12
    while at + 8 <= end:
        kind, size, body = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        if kind == b"fmt ":
            is_clip_format = _is_clip_format(data[body : body + size])
        if kind == b"data":
            if not is_clip_format or size != _DATA_BYTES or body + size > end:
                return None
            return np.frombuffer(data, "<i2", CLIP_SAMPLES, body).astype(np.int16)
        at = body + size + size % 2
    return None


def _is_clip_format(fmt: bytes) -> bool:
    """Whether a `fmt ` chunk announces plain 16-bit PCM, mono, at 16 kHz; what few readers know does not count."""
    tag, channels, frame_bytes, bits = (int.from_bytes(fmt[at : at + 2], "little") for at in (0, 2, 12, 14))
    rate_hz = int.from_bytes(fmt[4:8], "little")
    return (tag, channels, rate_hz, frame_bytes, bits) == (_PCM, 1, SAMPLE_RATE_HZ, 2, 16)
