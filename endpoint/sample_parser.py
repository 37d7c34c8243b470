"""Lists of a clip's samples, read with numpy from JSON in the renderings that are usual, instead of number by number.

Each number is looked at as a word of its first eight bytes, `d.dddddd`, and if one is longer, of the eight that follow. What
is not certain to be read as a JSON parser and `clip_digest.digest_of_numbers` would is left to them.
"""

from __future__ import annotations

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

_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_WORD_BYTES + 1)], np.uint64)
_STRICT_MASKS = _MASKS.copy()
# Where there is no number or one that ends with the point, they keep the next character, too: no digit, and so it shows.
_STRICT_MASKS[[0, 2]] = _MASKS[[1, 3]]


def parse_millionths(text: bytes, start: int, stop: int) -> npt.NDArray[np.int32] | None:
    """Reads 32000 numbers below 10 in magnitude.

    Args:
        text: JSON.
        start: where the list's numbers begin in it, after the bracket.
        stop: where they end, at the closing bracket.

    Returns:
        Whole millionths, int32 (32000,); None for anything else, rare renderings, and numbers between two millionths.
    """
    size = stop - start
    words = np.empty(size // _WORD_BYTES + 4, "<u8")
    data = words.view(np.uint8)
    data[:size] = np.frombuffer(text, np.uint8, size, start)
    data[size:] = _COMMA

    ends = np.flatnonzero(data[: size + 1] == _COMMA)
    if len(ends) != CLIP_SAMPLES:
        return None
    starts = np.zeros(CLIP_SAMPLES, np.intp)
    np.add(ends[:-1], 1, out=starts[1:])
    spaces = 0
    if data[starts[1]] == _SPACE:
        if (data.take(starts[1:]) != _SPACE).any():
            return None
        starts[1:] += 1
        spaces = CLIP_SAMPLES - 1
    is_negative = data.take(starts) == _MINUS
    starts += is_negative
    lengths = ends - starts
    exponents = _find_exponents(text, start, stop, data, ends, lengths)
    if exponents is None:
        return None
    lengths[exponents.numbers] -= exponents.width

    reader = _WordReader(words, starts)
    heads = reader.words(0)
    heads ^= _ZEROS
    heads &= _STRICT_MASKS.take(lengths, mode="clip")
    if np.bitwise_or.reduce(heads) & _NO_NUMBER:
        return None
    # These, all in their places, are all that there is beside digits.
    points = np.count_nonzero(lengths > 1)
    others = CLIP_SAMPLES + spaces + np.count_nonzero(is_negative) + points + 2 * len(exponents.numbers)
    if np.count_nonzero(data[: size + 1] - _ZERO < np.uint8(10)) + others != size + 1:
        return None

    values = _seven_digits(heads)
    more = _two_digits(reader.words(1), lengths - _WORD_BYTES) if lengths.max() > _WORD_BYTES else None
    if not (_scale(values, more, exponents) and (more is None or _round(values, more))):
        return None
    millionths = values.astype(np.int32)
    np.negative(millionths, out=millionths, where=is_negative)
    return millionths


class _WordReader:
    """Reads eight bytes from anywhere, as two words at places of their own."""

    def __init__(self, words: _Words, starts: _Places) -> None:
        self._words = words
        self._index = starts // _WORD_BYTES
        self._shift = (8 * (starts % _WORD_BYTES)).view(np.uint64)

    def words(self, number: int) -> _Words:
        """The bytes from so many words after each start."""
        low = self._words[number:].take(self._index)
        low >>= self._shift
        high = self._words[number + 1 :].take(self._index)
        # In two steps, as none of 64 bits is defined.
        high <<= np.uint64(1)
        high <<= self._shift ^ np.uint64(63)
        low |= high
        return low


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


def _seven_digits(heads: _Words) -> _Words:
    """Values of bytes of digits, the first seven without the zero at the second place, in millionths; in place."""
    # The first digit goes to where the point was. Then neighbours are put together, of one, two and four digits.
    heads += (heads & np.uint64(0xFF)) * np.uint64(0xFF)
    heads *= np.uint64(1 + (10 << 8))
    heads >>= np.uint64(8)
    heads &= np.uint64(0x00FF00FF_00FF00FF)
    heads *= np.uint64(1 + (100 << 16))
    heads >>= np.uint64(16)
    heads &= np.uint64(0x0000FFFF_0000FFFF)
    heads *= np.uint64(1 + (10_000 << 32))
    heads >>= np.uint64(32)
    return heads


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
    scaled /= 10.0**exponents.powers
    rounded = np.rint(scaled)
    values[exponents.numbers] = rounded
    return bool((np.abs(scaled - rounded) < _NEAR_HALF).all())


def _round(values: _Words, more: _Words) -> bool:
    """Rounds, in place; False if one is too near to the middle, or becomes 10."""
    values += more >= 50
    return bool(((more < 49) | (more > 50)).all() and values.max() < USUAL_LIMIT)
