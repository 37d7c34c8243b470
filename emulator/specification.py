"""How faults on purpose are written, `key=value,key=value`, and drawn: by a seed and a number, whatever the order of work."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Reader = Callable[[str, str], Any]
"""Reads one value, given its key and its text; raises ValueError that says in one line what is expected."""


def read_specification(
    text: str, rates: Sequence[str], readers: Mapping[str, Reader]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The rates that a specification gives, which may not add up to more than 1, and its other values.

    Raises:
        ValueError: in one line, which part is wrong and what is expected.
    """
    given_rates: dict[str, float] = {}
    values: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or (key not in readers and key not in rates):
            raise ValueError(f"{part!r} is no fault: expected KEY=VALUE with a KEY of {', '.join((*rates, *readers))}")
        if key in values or key in given_rates:
            raise ValueError(f"{key!r} is there twice")
        if key in rates:
            given_rates[key] = rate(key, value)
        else:
            values[key] = readers[key](key, value)
    if math.fsum(given_rates.values()) > 1 + 1e-9:
        raise ValueError(f"the rates add up to {math.fsum(given_rates.values()):g}: expected at most 1")
    return given_rates, values


def share(seed: int, purpose: str, number: object) -> float:
    """A number from 0 to 1, 1 left out, the same for the same seed, purpose and thing."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def drawn(rates: Mapping[str, float], names: Sequence[str], number: float) -> str | None:
    """Which of the names has this number, from 0 to 1, in its share; None if it is nobody's."""
    for name in names:
        number -= rates.get(name, 0.0)
        if number < 0:
            return name
    return None


def rate(key: str, value: str) -> float:
    """A share."""
    number = _finite(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError(f"{key}={value} is no rate: expected 0 to 1")
    return number


def seconds(key: str, value: str) -> float:
    """A time of up to an hour."""
    number = _finite(value)
    if number is None or not 0 <= number <= 3600:
        raise ValueError(f"{key}={value} is no time: expected 0 to 3600 seconds")
    return number


def count(key: str, value: str) -> int:
    """A whole number."""
    if not (value.isascii() and value.isdecimal()):
        raise ValueError(f"{key}={value} is no count: expected a whole number, 0 or more")
    return int(value)


def divisor(key: str, value: str) -> int:
    """A whole number that is not 0."""
    if (number := count(key, value)) == 0:
        raise ValueError(f"{key}=0 is no count: expected 1 or more")
    return number


def _finite(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
