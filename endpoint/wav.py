"""Clips as WAV files: 16-bit PCM, 16 kHz, mono, the form in which Model Garden endpoints and objects take them."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from endpoint.items import CLIP_SAMPLES, WavClip

_RATE_HZ = 16_000
_FULL_SCALE = 32768.0
_LOWEST, _HIGHEST = -32768.0, 32767.0
_SAMPLE_BYTES = 2
_DATA_BYTES = CLIP_SAMPLES * _SAMPLE_BYTES
_FORMAT = struct.pack("<HHIIHH", 1, 1, _RATE_HZ, _RATE_HZ * _SAMPLE_BYTES, _SAMPLE_BYTES, 8 * _SAMPLE_BYTES)
_HEADER = struct.pack(
    "<4sI4s4sI16s4sI",
    *(b"RIFF", 36 + _DATA_BYTES, b"WAVE"),
    *(b"fmt ", len(_FORMAT), _FORMAT),
    *(b"data", _DATA_BYTES),
)


def encode_wav(samples: npt.NDArray[np.float32]) -> WavClip:
    """Writes a clip as a WAV file of 64,044 bytes.

    Each sample becomes the nearest of the 65,536 steps, a 32768th apart (the even one of two that are as near); so
    samples that were read from 16 bits and scaled by 1/32768 come out as they were. Those beyond the highest or lowest
    step become that step, and are counted.

    Args:
        samples: float32 of shape (32000,).

    Raises:
        ValueError: for another shape or type, or samples that are not numbers.
    """
    if samples.shape != (CLIP_SAMPLES,) or samples.dtype != np.float32:
        raise ValueError(
            f"a clip of {samples.dtype} of shape {samples.shape}: expected float32 of shape ({CLIP_SAMPLES},)"
        )
    # Scaling by a power of two is exact in float32, until it overflows to an infinity, which is limited as well.
    with np.errstate(over="ignore"):
        steps = np.rint(samples * np.float32(_FULL_SCALE))
    lowest, highest = steps.min(), steps.max()
    if np.isnan(lowest):
        raise ValueError("a clip holds samples that are not numbers")
    clipped = 0
    if lowest < _LOWEST or highest > _HIGHEST:
        clipped = int(np.count_nonzero((steps < _LOWEST) | (steps > _HIGHEST)))
        np.clip(steps, _LOWEST, _HIGHEST, out=steps)
    return WavClip(_HEADER + steps.astype("<i2").tobytes(), clipped)


def read_steps(data: bytes) -> npt.NDArray[np.int16]:
    """The steps of a WAV file of one clip, int16 (32000,), whatever chunks it has beside them.

    Raises:
        ValueError: for anything else than 32000 frames of 16-bit PCM, 16 kHz, mono.
    """
    if data.startswith(_HEADER) and len(data) == len(_HEADER) + _DATA_BYTES:
        return np.frombuffer(data, "<i2", CLIP_SAMPLES, len(_HEADER))
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    is_pcm, place = False, 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        body = memoryview(data)[place + 8 : place + 8 + size]
        if name == b"fmt ":
            is_pcm = bytes(body[:16]) == _FORMAT
        elif name == b"data":
            if is_pcm and size == len(body) == _DATA_BYTES:
                return np.frombuffer(body, "<i2")
            break
        # Chunks begin at even places.
        place += 8 + size + size % 2
    raise ValueError("not a WAV file of a clip")
