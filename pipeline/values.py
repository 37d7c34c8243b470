"""What the values of options look like: a pattern for each kind, which the command and the template share.

Patterns are POSIX extended regular expressions for the whole value that mean the same to Python's `re`: the template's
metadata hands them to Dataflow, which checks a launch by them before anything starts. What they cannot say, such as the
limits of decimal numbers, only the command checks.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

_T = TypeVar("_T")

TRUTHS: Final = {"true": True, "false": False}
_LONGEST_TIMEOUT_S: Final = 3600
_MOST_REQUESTS_PER_MINUTE: Final = 1_000_000


@dataclass(frozen=True)
class Kind(Generic[_T]):
    """A kind of value, as argparse's `type`."""

    pattern: str
    """Of the whole value."""
    refusal: Callable[[str], str]
    """What is said of a value that the pattern does not match."""
    convert: Callable[[str], _T]
    """The value itself; argparse.ArgumentTypeError where one that matches is beyond the kind's limits all the same."""

    def __call__(self, text: str) -> _T:
        if not re.fullmatch(self.pattern, text):
            raise argparse.ArgumentTypeError(self.refusal(text))
        return self.convert(text)


MODEL_ID: Final = "[A-Za-z0-9._:/@+-]{1,200}"
IMAGE: Final = "[a-z0-9][a-z0-9.:/_-]*@sha256:[0-9a-f]{64}"
"""An image by its digest."""


def truth(text: str) -> bool:
    """What a switch is set to."""
    if text not in TRUTHS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither true nor false: expected one of them, or the option alone for true"
        )
    return TRUTHS[text]


SWITCH: Final[Mapping[str, Any]] = {
    "nargs": "?",
    "const": True,
    "default": False,
    "type": truth,
    "metavar": "true|false",
}
"""A switch that is on when it is given, and takes a value too, as a template's parameters always have one: `--x=false`."""


def whole_number(least: int, most: int | None = None) -> Kind[int]:
    """Whole numbers from `least` to `most`, both included."""

    def refusal(text: str) -> str:
        if most is not None and re.fullmatch("[0-9]+", text) and int(text) > most:
            return f"{text!r} is more than {most}"
        return f"{text!r} is not a whole number of at least {least}"

    return Kind(_spellings(least, most), refusal, int)


def _spellings(least: int, most: int | None) -> str:
    """A pattern of the decimal spellings of the whole numbers from `least` to `most`, with leading zeros or without."""
    shortest = len(str(least))
    longest = shortest if most is None else len(str(most))
    parts = [
        _same_length(
            str(max(least, 10 ** (length - 1) if length > 1 else 0)),
            str(10**length - 1 if most is None else min(most, 10**length - 1)),
        )
        for length in range(shortest, longest + 1)
    ]
    if most is None:
        parts.append(f"[1-9][0-9]{{{shortest},}}")
    return f"0*({'|'.join(parts)})"


def _same_length(low: str, high: str) -> str:
    """A pattern of the numbers from `low` to `high`, which have as many digits."""
    if low == high:
        return low
    if len(low) == 1:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts = []
    if low[1:] != "0" * rest:
        parts.append(low[0] + _same_length(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        parts.append(high[0] + _same_length("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        parts.append((f"[{first}-{last}]" if first < last else str(first)) + f"[0-9]{{{rest}}}")
    return f"({'|'.join(parts)})"


def _decimal(expected: str = "a number", allowed: Callable[[float], bool] = math.isfinite) -> Kind[float]:
    def convert(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number")
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return Kind(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", lambda text: f"{text!r} is not a number", convert)


NUMBER: Final = _decimal()
SECONDS: Final = _decimal(
    f"a number of seconds above 0, {_LONGEST_TIMEOUT_S} at most", lambda value: 0 < value <= _LONGEST_TIMEOUT_S
)
FRACTION: Final = _decimal("a number from 0 to 1", lambda value: 0 <= value <= 1)
RATE: Final = _decimal(
    f"a number of requests from 1 to {_MOST_REQUESTS_PER_MINUTE}", lambda value: 1 <= value <= _MOST_REQUESTS_PER_MINUTE
)
ACCOUNT: Final = Kind(
    r"[A-Za-z0-9._-]+@[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+",
    lambda text: f"{text!r} is not a service account: expected NAME@PROJECT.iam.gserviceaccount.com",
    str,
)
