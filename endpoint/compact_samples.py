"""Samples as JSON numbers with six decimals and no character too many, written with numpy instead of one by one.

What a batch job reads is stored, and repeated in its results: trailing zeros and the spaces that give all numbers one width
in `json_samples` are left out here, so that silence takes a fifth. A number is put together in a row of 16 bytes, and
the rows are copied to where they belong in the text, each over what the one before has too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from endpoint.clip_digest import SCALE
from endpoint.items import CLIP_SAMPLES

_NUMBER_BYTES = len("-0.000000,")
_ROW_BYTES = 16
_THOUSAND = 1000
_UPPERS = 10 * _THOUSAND
_LENGTH_SHIFT = np.uint64(56)
_SIGN_SHIFT = np.uint32(31)


def _padded(text: str, size: int) -> bytes:
    """A text and zeros; the last byte says how long it is, if it ends a number."""
    length = len(text) if text.endswith(",") else 0
    return text.encode().ljust(size - 1, b"\0") + bytes((length,))


@cache  # 40 ms, which only those who write lines wait for
def _uppers() -> npt.NDArray[np.uint64]:
    """`-d.ddd` for the upper four digits, by sign; then whole numbers `-d.ddd,`, for lower digits that are zeros."""
    texts = [f"{sign}{digits // _THOUSAND}.{digits % _THOUSAND:03}" for sign in ("", "-") for digits in range(_UPPERS)]
    texts += [text.rstrip("0").rstrip(".") + "," for text in texts]
    return np.frombuffer(b"".join(_padded(text, 8) for text in texts), "<u8")


@cache
def _lowers() -> npt.NDArray[np.void]:
    """The end `ddd,` of a number, by its sign and its lower three digits, at its place; nothing for zeros."""

    def rows() -> Iterator[bytes]:
        for before in ("\0" * len("0.000"), "\0" * len("-0.000")):
            yield bytes(_ROW_BYTES)
            for digits in range(1, _THOUSAND):
                yield _padded(before + f"{digits:03}".rstrip("0") + ",", _ROW_BYTES)

    return np.frombuffer(b"".join(rows()), f"V{_ROW_BYTES}")


class CompactSamples:
    """Writes lists of samples that are below 10 in magnitude, in memory that is used again: for one thread."""

    def __init__(self) -> None:
        self._uppers, self._lowers = _uppers(), _lowers()
        self._scaled = np.empty(CLIP_SAMPLES, np.float64)
        self._millionths = np.empty(CLIP_SAMPLES, np.int32)
        self._sign, self._upper, self._lower, self._case = np.empty((4, CLIP_SAMPLES), np.uint32)
        self._upper_index, self._lower_index, self._lengths = np.empty((3, CLIP_SAMPLES), np.intp)
        self._upper_text, self._spare = np.empty((2, CLIP_SAMPLES), np.uint64)
        self._words = np.empty((CLIP_SAMPLES, 2), "<u8")
        self._rows = self._words.view(self._lowers.dtype)[:, 0]
        self._starts = np.zeros(CLIP_SAMPLES + 1, np.intp)
        self._text = np.empty(1 + _NUMBER_BYTES * CLIP_SAMPLES + _ROW_BYTES, np.uint8)
        self._text[0] = ord("[")
        # A row for each byte at which a number may begin.
        self._places = np.ndarray(_NUMBER_BYTES * CLIP_SAMPLES, self._lowers.dtype, self._text, 1, (1,))

    def rounded(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """A clip in whole millionths, (32000,), halves to even; valid until the next call."""
        np.copyto(self._scaled, samples)
        # The product is exact: 24 bits by 14, and a power of two. So the only error is that of rounding it.
        np.multiply(self._scaled, float(SCALE), out=self._scaled)
        np.rint(self._scaled, out=self._scaled)
        np.copyto(self._millionths, self._scaled, casting="unsafe")
        return self._millionths

    def line(self, millionths: npt.NDArray[np.int32]) -> bytes:
        """A clip's list and a newline, from what `rounded` gave: 300 kB for loud audio, 64 kB for silence."""
        self._look_up(millionths)
        self._lowers.take(self._lower_index, out=self._rows, mode="clip")
        self._uppers.take(self._upper_index, out=self._upper_text, mode="clip")
        heads, tails = self._words[:, 0], self._words[:, 1]
        np.bitwise_or(heads, self._upper_text, out=heads)

        # One of the two says the length, and the other zero.
        lengths = self._lengths.view(np.uint64)
        np.right_shift(tails, _LENGTH_SHIFT, out=lengths)
        np.right_shift(self._upper_text, _LENGTH_SHIFT, out=self._spare)
        np.add(lengths, self._spare, out=lengths)
        np.cumsum(self._lengths, out=self._starts[1:])

        # In order, so that what a row has beyond its number is written over by the next ones.
        self._places[self._starts[:-1]] = self._rows
        stop = 1 + int(self._starts[-1])
        self._text[stop - 1], self._text[stop] = b"]\n"
        return self._text[: stop + 1].tobytes()

    def _look_up(self, millionths: npt.NDArray[np.int32]) -> None:
        """Finds where the tables have the parts of each number."""
        sign, upper, lower, case = self._sign, self._upper, self._lower, self._case
        np.right_shift(millionths.view(np.uint32), _SIGN_SHIFT, out=sign)
        np.abs(millionths, out=case.view(np.int32))
        np.floor_divide(case, np.uint32(_THOUSAND), out=upper)
        np.multiply(upper, np.uint32(_THOUSAND), out=lower)
        np.subtract(case, lower, out=lower)

        # One less than zero has the highest bit, as nothing else here.
        np.subtract(lower, np.uint32(1), out=case)
        np.right_shift(case, _SIGN_SHIFT, out=case)
        np.left_shift(case, np.uint32(1), out=case)
        np.bitwise_or(case, sign, out=case)
        np.multiply(case, np.uint32(_UPPERS), out=case)
        np.add(upper, case, out=upper)
        np.multiply(sign, np.uint32(_THOUSAND), out=sign)
        np.add(lower, sign, out=lower)
        np.copyto(self._upper_index, upper)
        np.copyto(self._lower_index, lower)


def large_line(samples: npt.NDArray[np.float32]) -> bytes:
    """The list of a clip of any finite samples and a newline, written one by one."""
    # Exact as in `rounded`, and Python's integers have no limit.
    millionths = np.rint(samples.astype(np.float64) * SCALE).tolist()
    return b"[%b]\n" % ",".join(map(_decimal, map(int, millionths))).encode()


def _decimal(millionths: int) -> str:
    whole, fraction = divmod(abs(millionths), SCALE)
    return f"{'-' * (millionths < 0)}{whole}.{fraction:06}".rstrip("0").rstrip(".")
