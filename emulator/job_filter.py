"""Filters of a list of jobs: conditions joined by AND, a part of https://google.aip.dev/160."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from emulator.job_messages import JobState
from emulator.refusals import InvalidArgumentError

_CONDITION = re.compile(
    r"""\s*(?P<key>labels\.[a-z][a-z0-9_-]*|display_name|state)\s*(?P<operator>!=|=|:)\s*"""
    r"""(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"]+))\s*(?:(?P<joined>AND)\s|$)""",
    re.ASCII,
)

Condition = Callable[[Any], bool]


def job_filter(text: str) -> Condition:
    """Whether a BatchPredictionJob is one of those that a filter asks for; an empty filter asks for all.

    Taken are `labels.KEY="VALUE"`, `labels.KEY:*`, `display_name="NAME"` and `state="JOB_STATE_..."`, the last two also
    with `!=`, several of them joined by AND; the quotes may be left out.

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
    key, operator = match["key"], match["operator"]
    value = match["bare"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
    if key.startswith("labels."):
        label = key.removeprefix("labels.")
        if operator == ":" and value == "*":
            return lambda job: label in job.labels
        if operator == "=":
            return lambda job: label in job.labels and job.labels[label] == value
        raise _not_taken()
    if operator == ":":
        raise _not_taken()
    if key == "state":
        if value not in JobState.__members__:
            raise InvalidArgumentError("Invalid filter: that is no state of a job.")
        return lambda job: (JobState(job.state).name == value) == (operator == "=")
    return lambda job: (job.display_name == value) == (operator == "=")


def _not_taken() -> InvalidArgumentError:
    return InvalidArgumentError(
        'Invalid filter: expected conditions such as labels.KEY="VALUE", display_name="NAME" or state="STATE", joined by AND.'
    )
