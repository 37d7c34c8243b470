"""Lists of a clip's samples, read with numpy from JSON in the renderings that are usual, instead of number by number.

Each number is looked at as a word of its first eight bytes, `d.dddddd`, and if one is longer, of the eight that follow. What
is not certain to be read as a JSON parser and `clip_digest.digest_of_numbers` would is left to them.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from endpoint.clip_digest import USUAL_LIMIT
from endpoint.items import CLIP_SAMPLES

_Words: TypeAlias = "npt.NDArray[np.uint64]"
_Bytes: TypeAlias = "npt.NDArray[np.uint8]"
_Places: TypeAlias = "npt.NDArray[np.intp]"

_COMMA, _MINUS, _SPACE, _ZERO = b",- 0"
_WORD_BYTES = 8
_ZEROS = np.uint64(0x30303030_30302E30)
"""`0.000000`; the first character is the lowest byte."""
_NO_NUMBER = np.uint64(0xF0F0F0F0_F0F0FFF0)
"""Bits in which no number differs from it."""
_NEAR_HALF = 0.49
"""Of a millionth. What is nearer to the middle of two is not rounded here: digits are cut off, and products are inexact."""

_LEAST_BYTES, _MOST_BYTES = 2 * CLIP_SAMPLES - 1, 32 * CLIP_SAMPLES
"""Of a list: from single digits without spaces to more digits than float64 has. So memory is bounded, too."""
_TENS = 10.0 ** np.arange(10)
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_WORD_BYTES + 1)], np.uint64)
_STRICT_MASKS = _MASKS.copy()
# Where there is no number or one that ends with the point, they keep the next character, too: no digit, and so it shows.
_STRICT_MASKS[[0, 2]] = _MASKS[[1, 3]]


class SampleParser(threading.local):
    """Reads lists in memory that is used again; each thread has its own."""

    def __init__(self) -> None:
        self._make_text(0)
        self._starts, self._lengths, self._index = np.empty((3, CLIP_SAMPLES), np.intp)
        self._shift, self._high, self._spare = np.empty((3, CLIP_SAMPLES), np.uint64)
        self._heads, self._tails = np.empty((2, CLIP_SAMPLES), np.uint64)
        self._signs = np.empty(CLIP_SAMPLES, np.int32)

    def _make_text(self, words: int) -> None:
        self._words = np.empty(words, "<u8")
        self._bytes = self._words.view(np.uint8)
        self._flags = np.empty(len(self._bytes), np.bool_)

    def millionths(self, text: bytes, start: int, stop: int) -> npt.NDArray[np.int32] | None:
        """Reads 32000 numbers below 10 in magnitude.

        Args:
            text: JSON.
            start: where the list's numbers begin in it, after the bracket.
            stop: where they end, at the closing bracket.

        Returns:
            Whole millionths, int32 (32000,); None for anything else, rare renderings, and numbers between two millionths.
        """
        if not _LEAST_BYTES <= stop - start <= _MOST_BYTES:
            return None
        data = self._copied(text, start, stop)
        starts, lengths = self._starts, self._lengths
        ends = np.flatnonzero(np.equal(data, _COMMA, out=self._flags[: len(data)]))
        if len(ends) != CLIP_SAMPLES:
            return None
        starts[0] = 0
        np.add(ends[:-1], 1, out=starts[1:])
        spaces = 0
        if data[starts[1]] == _SPACE:
            if (data.take(starts[1:]) != _SPACE).any():
                return None
            starts[1:] += 1
            spaces = CLIP_SAMPLES - 1
        is_negative = data.take(starts) == _MINUS
        starts += is_negative
        np.subtract(ends, starts, out=lengths)
        exponents = _find_exponents(text, start, stop, data, ends, lengths)
        if exponents is None:
            return None
        lengths[exponents.numbers] -= exponents.width

        self._place(starts)
        heads = self._read(0, self._heads)
        heads ^= _ZEROS
        heads &= _STRICT_MASKS.take(lengths, out=self._spare, mode="clip")
        if np.bitwise_or.reduce(heads) & _NO_NUMBER:
            return None
        # These, all in their places, are all that there is beside digits.
        points = np.count_nonzero(lengths > 1)
        others = CLIP_SAMPLES + spaces + np.count_nonzero(is_negative) + points + 2 * len(exponents.numbers)
        if self._count_digits(data) + others != len(data):
            return None

        self._join_digits(heads)
        more = None
        if lengths.max() > _WORD_BYTES:
            more = _two_digits(self._read(1, self._tails), lengths - _WORD_BYTES)
        if not (_scale(heads, more, exponents) and (more is None or _round(heads, more))):
            return None
        return self._signed(heads, is_negative)

    def _copied(self, text: bytes, start: int, stop: int) -> _Bytes:
        """The numbers, each with a comma after it."""
        size = stop - start
        words = size // _WORD_BYTES + 4
        if words > len(self._words):
            self._make_text(words)
        self._bytes[:size] = np.frombuffer(text, np.uint8, size, start)
        # Words that begin in the last number reach as far.
        self._bytes[size : words * _WORD_BYTES] = _COMMA
        return self._bytes[: size + 1]

    def _place(self, starts: _Places) -> None:
        # Shifts, as dividing signed integers takes numpy ten times as long.
        np.right_shift(starts, 3, out=self._index)
        np.left_shift(starts, 3, out=self._shift.view(np.intp))
        self._shift &= np.uint64(0x38)

    def _read(self, number: int, low: _Words) -> _Words:
        """The eight bytes from so many words after each place, as words."""
        high = self._high
        self._words[number:].take(self._index, out=low, mode="clip")
        self._words[number + 1 :].take(self._index, out=high, mode="clip")
        low >>= self._shift
        # In two steps, as a shift of 64 bits is not defined.
        high <<= np.uint64(1)
        high <<= np.bitwise_xor(self._shift, np.uint64(63), out=self._spare)
        low |= high
        return low

    def _count_digits(self, data: _Bytes) -> int:
        flags = self._flags[: len(data)]
        digits = np.subtract(data, _ZERO, out=flags.view(np.uint8))
        return int(np.count_nonzero(np.less(digits, np.uint8(10), out=flags)))

    def _join_digits(self, heads: _Words) -> None:
        """Makes a word of seven digits, with a zero at the second place, their value in millionths."""
        # The first digit goes to where the point was. Then neighbours are put together, of one, two and four digits.
        first = np.bitwise_and(heads, np.uint64(0xFF), out=self._spare)
        first *= np.uint64(0xFF)
        heads += first
        heads *= np.uint64(1 + (10 << 8))
        heads >>= np.uint64(8)
        heads &= np.uint64(0x00FF00FF_00FF00FF)
        heads *= np.uint64(1 + (100 << 16))
        heads >>= np.uint64(16)
        heads &= np.uint64(0x0000FFFF_0000FFFF)
        heads *= np.uint64(1 + (10_000 << 32))
        heads >>= np.uint64(32)

    def _signed(self, values: _Words, is_negative: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Negates some as two's complement does, in a fourth of the time that it takes with a mask."""
        signed, ones = values.astype(np.int32), self._signs
        np.negative(is_negative.view(np.int8), out=ones)
        signed ^= ones
        signed -= ones
        return signed


class _Exponents(NamedTuple):
    """Which numbers have one, such as `1.2e-05`."""

    width: int
    numbers: _Places
    powers: _Bytes
    """The digits that they end with: how many places the point moves to the left."""


def _find_exponents(
    text: bytes, start: int, stop: int, data: _Bytes, ends: _Places, lengths: _Places
) -> _Exponents | None:
    """Exponents of the kind that the first one is of; None for one that is not negative, or not below 10."""
    place = max(text.find(b"e", start, stop), text.find(b"E", start, stop))
    if place < 0:
        return _Exponents(0, np.empty(0, np.intp), np.empty(0, np.uint8))
    letter = text[place]
    signs = b"-0" if text[place + 2] == _ZERO else b"-"
    width = 1 + len(signs) + 1
    numbers = np.flatnonzero((data.take(ends - width, mode="clip") == letter) & (lengths > width))
    after = ends[numbers]
    for back, sign in enumerate(reversed(signs), 2):
        if (data[after - back] != sign).any():
            return None
    return _Exponents(width, numbers, data[after - 1] - _ZERO)


def _two_digits(tails: _Words, lengths: _Places) -> _Words:
    """Values of the first two bytes, digits or what is beyond a number's length, in hundredths of millionths."""
    tails ^= np.uint64(0x3030)
    tails &= _MASKS[:3].take(lengths, mode="clip")
    return (tails & np.uint64(0xFF)) * np.uint64(10) + (tails >> np.uint64(8))


def _scale(values: _Words, more: _Words | None, exponents: _Exponents) -> bool:
    """Applies exponents, in place, and rounds these numbers; False if one is too near to the middle."""
    if not len(exponents.numbers):
        return True
    scaled = values[exponents.numbers].astype(np.float64)
    if more is not None:
        scaled += more[exponents.numbers] / 100
        more[exponents.numbers] = 0
    scaled /= _TENS.take(exponents.powers)
    rounded = np.rint(scaled)
    values[exponents.numbers] = rounded
    return bool((np.abs(scaled - rounded) < _NEAR_HALF).all())


def _round(values: _Words, more: _Words) -> bool:
    """Rounds, in place; False if one is too near to the middle, or becomes 10."""
    values += more >= 50
    return bool(((more < 49) | (more > 50)).all() and values.max() < USUAL_LIMIT)
