"""Samples as JSON numbers with seven decimals, all of one width, written with numpy instead of one by one.

With seven decimals four clips always fit into 1.5 MB, and the error, at most 5e-8, is far below one 16-bit step.
Significant digits would take more for quiet audio (design.md 3.3).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from endpoint.items import CLIP_SAMPLES

CLIP_BYTES = 11 * CLIP_SAMPLES + 1
"""Of a clip's list: a sign or a space, `0.0000000` and a comma or bracket for each sample, and the opening bracket."""

_LIMIT = 10.0
_SCALE = 10_000_000
_HALF = 10_000
_EMPTY_CLIP = np.frombuffer(b"[" + b",".join([b" 0.0000000"] * CLIP_SAMPLES) + b"]", np.uint8)


def _upper_halves() -> npt.NDArray[np.uint64]:
    """`sd.ddd` for the upper four digits; those of negative numbers after the others. Two bytes more are of no use."""
    texts = [f"{sign}{digits // 1000}.{digits % 1000:03}  " for sign in " -" for digits in range(_HALF)]
    return np.frombuffer("".join(texts).encode(), "<u8")


def _lower_halves() -> npt.NDArray[np.uint32]:
    """`dddd` for the lower four digits."""
    return np.frombuffer("".join(f"{digits:04}" for digits in range(_HALF)).encode(), "<u4")


_UPPER, _LOWER = _upper_halves(), _lower_halves()


def is_fixed_width(clip: npt.NDArray[np.float32]) -> bool:
    """Whether all samples are below 10 in magnitude, so that the clip takes `CLIP_BYTES`."""
    # A sample that is not a number makes both comparisons false.
    return bool(clip.max() < _LIMIT and clip.min() > -_LIMIT)


def any_width(clip: npt.NDArray[np.float32]) -> bytes:
    """A clip of any samples, each with as many digits as float32 needs; null where it is not finite.

    JSON has no word for such samples: the service rejects this clip, and no other.
    """
    return orjson.dumps(np.ascontiguousarray(clip), option=orjson.OPT_SERIALIZE_NUMPY)


class SampleLists(threading.local):
    """Writes lists of samples into memory that is used again; each thread has its own."""

    def __init__(self) -> None:
        self._make(0)

    def _make(self, clips: int) -> None:
        self._lists = np.tile(_EMPTY_CLIP, (clips, 1))

    def filled_with(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[bytes | memoryview]:
        """A list for each clip, of `CLIP_BYTES` if `is_fixed_width`; valid until the thread's next call."""
        if len(clips) > len(self._lists):
            self._make(len(clips))
        filled: list[bytes | memoryview] = []
        for row, clip in zip(self._lists, clips, strict=False):
            if is_fixed_width(clip):
                _write(row, clip)
                filled.append(row.data)
            else:
                filled.append(any_width(clip))
        return filled


def _write(row: npt.NDArray[np.uint8], clip: npt.NDArray[np.float32]) -> None:
    # The product is exact: 24 bits by 17 and a power of two. So the only error is that of rounding it.
    digits = np.rint(clip.astype(np.float64) * _SCALE).astype(np.int32)
    magnitudes = np.abs(digits).view(np.uint32)
    upper = magnitudes // _HALF
    lower = magnitudes - upper * _HALF
    upper += (digits < 0) * np.uint32(_HALF)
    # The bytes that eight are too many for are those of the lower half, which is written after it.
    np.ndarray(CLIP_SAMPLES, "<u8", buffer=row, offset=1, strides=(11,))[:] = _UPPER[upper]
    np.ndarray(CLIP_SAMPLES, "<u4", buffer=row, offset=7, strides=(11,))[:] = _LOWER[lower]
