"""Filters of a list of jobs: conditions joined by AND, a part of https://google.aip.dev/160."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from emulator.job_messages import JobState
from emulator.refusals import InvalidArgumentError

_CONDITION = re.compile(
    r"""\s*(?P<key>labels\.[a-z][a-z0-9_-]*|display_name|state|create_time)\s*(?P<operator>[!<>]=|[=:<>])\s*"""
    r"""(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"]+))\s*(?:(?P<joined>AND)\s|$)""",
    re.ASCII,
)

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Condition = Callable[[Any], bool]


def job_filter(text: str) -> Condition:
    """Whether a BatchPredictionJob is one of those that a filter asks for; an empty filter asks for all.

    Taken are `labels.KEY="VALUE"`, `labels.KEY:*`, `display_name="NAME"` and `state="JOB_STATE_..."`, the last two also
    with `!=`, and `create_time>="2026-01-01T00:00:00Z"` with all comparisons; several of them joined by AND; the quotes may
    be left out.

    Raises:
        InvalidArgumentError: for any other filter.
    """
    conditions: list[Condition] = []
    place, more = 0, bool(text.strip())
    while more:
        match = _CONDITION.match(text, place)
        if match is None:
            raise _not_taken()
        conditions.append(_condition(match))
        place, more = match.end(), match["joined"] is not None
    if text[place:].strip():
        raise _not_taken()
    return lambda job: all(condition(job) for condition in conditions)


def _condition(match: re.Match[str]) -> Condition:
    key, sign = match["key"], match["operator"]
    value = match["bare"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
    if key.startswith("labels."):
        label = key.removeprefix("labels.")
        if sign == ":" and value == "*":
            return lambda job: label in job.labels
        if sign == "=":
            return lambda job: label in job.labels and job.labels[label] == value
        raise _not_taken()
    if key == "create_time" and sign in _COMPARISONS:
        time_ns = _time_ns(value)
        return lambda job: _COMPARISONS[sign](job.create_time.ToNanoseconds(), time_ns)
    if sign not in ("=", "!="):
        raise _not_taken()
    if key == "state":
        if value not in JobState.__members__:
            raise InvalidArgumentError("Invalid filter: that is no state of a job.")
        return lambda job: (JobState(job.state).name == value) == (sign == "=")
    return lambda job: (job.display_name == value) == (sign == "=")


def _time_ns(text: str) -> int:
    time = Timestamp()
    try:
        time.FromJsonString(text)
    except ValueError:
        raise InvalidArgumentError("Invalid filter: expected a time as RFC 3339 has it.") from None
    return int(time.ToNanoseconds())


def _not_taken() -> InvalidArgumentError:
    return InvalidArgumentError(
        'Invalid filter: expected conditions such as labels.KEY="VALUE", display_name="NAME" or state="STATE", joined by AND.'
    )
