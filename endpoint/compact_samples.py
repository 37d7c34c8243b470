"""Samples as JSON numbers with six decimals and no character too many, written with numpy instead of one by one.

Files of a batch job hold what requests hold, for days and for all clips at once: spaces and trailing zeros, which make all
numbers one width in `json_samples`, are left out here, so that silence takes a fifth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endpoint.clip_digest import SCALE
from endpoint.items import CLIP_SAMPLES

_WIDTH = 10
_LIST_BYTES = 1 + _WIDTH * CLIP_SAMPLES
_THOUSAND = 1000
_UPPERS = 10 * _THOUSAND


def _upper_halves() -> npt.NDArray[np.uint64]:
    """`sd.ddd`, by sign and the upper four digits; then, for numbers whose lower digits are zeros, without trailing zeros."""
    texts = [f"{sign}{digits // 1000}.{digits % 1000:03}" for sign in " -" for digits in range(_UPPERS)]
    texts += [text.rstrip("0").rstrip(".") for text in texts]
    return np.frombuffer("".join(f"{text:8}" for text in texts).encode(), "<u8")


def _lower_halves() -> npt.NDArray[np.uint32]:
    """`ddd,` for the lower three digits, with spaces for trailing zeros."""
    texts = (f"{digits:03}".rstrip("0") for digits in range(_THOUSAND))
    return np.frombuffer("".join(f"{text:3}," for text in texts).encode(), "<u4")


_UPPER, _LOWER = _upper_halves(), _lower_halves()


class CompactSamples:
    """Writes lists of samples into memory that is used again. Not for several threads at a time."""

    def __init__(self) -> None:
        self._list = bytearray(_LIST_BYTES)
        self._list[0] = ord("[")

    def write(self, millionths: npt.NDArray[np.int32]) -> bytes:
        """The list of a clip whose samples are below 10 in magnitude: whole millionths, (32000,)."""
        magnitudes = np.abs(millionths).view(np.uint32)
        upper = magnitudes // _THOUSAND
        lower = magnitudes - upper * _THOUSAND
        upper += (millionths < 0) * np.uint32(_UPPERS) + (lower == 0) * np.uint32(2 * _UPPERS)
        # The bytes that eight are too many for are those of the lower half, which is written after it.
        np.ndarray(CLIP_SAMPLES - 1, "<u8", self._list, 1, (_WIDTH,))[:] = _UPPER[upper[:-1]]
        self._list[-_WIDTH:-2] = _UPPER[upper[-1]].tobytes()
        np.ndarray(CLIP_SAMPLES, "<u4", self._list, 7, (_WIDTH,))[:] = _LOWER[lower]
        self._list[-1] = ord("]")
        return bytes(self._list.translate(None, b" "))


def write_large(samples: npt.NDArray[np.float32]) -> bytes:
    """The list of a clip of any finite samples, one by one."""
    # The product is exact, see `clip_digest.digest_of_large`; Python's integers have no limit.
    millionths = np.rint(samples.astype(np.float64) * SCALE).tolist()
    return b"[%b]" % ",".join(map(_decimal, map(int, millionths))).encode()


def _decimal(millionths: int) -> str:
    whole, fraction = divmod(abs(millionths), SCALE)
    return f"{'-' * (millionths < 0)}{whole}.{fraction:06}".rstrip("0").rstrip(".")
