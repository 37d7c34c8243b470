"""Instances as both transports hand them on: what JSON can hold, but for lists of numbers, which may be arrays."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.standin import CLIP_SAMPLES


class Request(NamedTuple):
    """A request as it was sent, not yet checked against the limits."""

    endpoint: str
    instances: list[Any]
    """None, bool, int, float, str, list, dict, `UNSET`, or float64 (any length,) for a list of nothing but numbers."""


class _Unset:
    """A google.protobuf.Value of no kind, which JSON cannot express."""


UNSET: Final = _Unset()

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class NotAClipError(Exception):
    """What was given as a clip is none; `str()` says why, without a sample."""


def type_name(value: object) -> str:
    """JSON's name for the type of a value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (list, np.ndarray)):
        return "list"
    if isinstance(value, dict):
        return "object"
    return "null" if value is None else "unset value"


def wrong_type(value: object, expected: str) -> str:
    """The service's words for a value of another type than it expects."""
    return f"JSON Value of type {type_name(value)} is not of expected type: {expected}"


def clip_numbers(value: object) -> npt.NDArray[np.float64]:
    """The clip that an instance holds as numbers, float64 (32000,), each of which float32 can hold.

    Raises:
        NotAClipError: it is no list of exactly 32000 finite 32-bit floats.
    """
    numbers = _numbers(value)
    if len(numbers) != CLIP_SAMPLES:
        raise NotAClipError(f"expected exactly {CLIP_SAMPLES} floats, got {len(numbers)}")
    # One pass finds both what JSON cannot hold and what would be infinite as float32: NaN compares false.
    if not max(numbers.max(), -numbers.min()) <= _FLOAT32_MAX:
        raise NotAClipError("not every value is a finite 32-bit float")
    return numbers


def _numbers(value: object) -> npt.NDArray[np.float64]:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list):
        raise NotAClipError(wrong_type(value, "list of floats"))
    if not set(map(type, value)) <= {int, float}:
        raise NotAClipError(
            next(wrong_type(item, "float") for item in value if type(item) is not int and type(item) is not float)
        )
    return np.array(value, np.float64)
