"""When the next request may go out: the pace that a limit per minute allows, and a lower one where the endpoint refuses.

Requests are paced by the generic cell rate algorithm: slots one interval apart, and nothing to remember but the last.
There is no bucket of tokens to be emptied in a burst, neither at the start nor by a second run.

The interval is that of `_SHARE` of the limit, and a slot may be taken `_CATCH_UP_S` late without delaying the next ones.
So slots in 60 s number at most `(60 + _CATCH_UP_S) / interval + 1`, which is below any whole limit, and about half a
second of differences in the time that requests take to the endpoint are left before it could count more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from endpoint.learnt_rate import LearntRate

_SHARE = 0.985
_CATCH_UP_S = 0.25
_IDLE_S = 2.0
_FORGOTTEN_AFTER_S = 300.0
_CLOCK_SLACK_S = 5.0
"""Processes read the clock before they lock the state, and find one that is a little newer than their own time."""


class Rate(Protocol):
    """When requests may go out; for one thread. All times are `time.monotonic()` seconds."""

    def reserve(self, now_s: float) -> float:
        """Takes the next slot: the time, `now_s` or later, from which one request may go out.

        A slot is to be used once its time has come. One that cannot be used then is given back by `release`.
        """

    def release(self, slot_s: float) -> None:
        """Gives back a slot that was reserved and not used.

        After `refused` a slot that is held is released and another reserved: the service may have asked to wait.
        """

    def answered(self, sent_s: float, now_s: float) -> None:
        """Notes that a request was not refused for its number: any answer but RESOURCE_EXHAUSTED, failures too."""

    def refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """Notes RESOURCE_EXHAUSTED, and for how long the service asked to wait."""


@dataclass(slots=True)
class RateState:
    """All that is known about the pace at one time; a plain value, wherever it is kept.

    `limit` below is in requests per minute, and belongs to who asks: processes with different limits may share a state.
    """

    updated_s: float = -math.inf
    slot_s: float = -math.inf
    """The last slot that was taken."""
    learnt: LearntRate = field(default_factory=LearntRate)

    def reserve(self, now_s: float, limit: float | None) -> float:
        """See `Rate.reserve`."""
        self._note_time(now_s)
        due_s = self.slot_s + self._interval_s(limit)
        late_s = now_s - due_s
        if late_s > _IDLE_S:
            due_s = now_s
        elif late_s > _CATCH_UP_S:
            due_s = now_s - _CATCH_UP_S
        self.slot_s = max(due_s, self.learnt.wall.hold_s)
        self.learnt.note_sent()
        return max(self.slot_s, now_s)

    def release(self, slot_s: float, limit: float | None) -> None:
        """See `Rate.release`; a slot is lost if a later one was taken meanwhile."""
        self.learnt.note_sent(-1)
        if self.slot_s == slot_s:
            self.slot_s -= self._interval_s(limit)

    def answered(self, sent_s: float, now_s: float) -> None:
        """See `Rate.answered`."""
        self._note_time(now_s)
        self.learnt.note_accepted(sent_s, now_s)

    def refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """See `Rate.refused`."""
        self._note_time(now_s)
        self.learnt.note_refused(sent_s, now_s, hint_s)

    def _interval_s(self, limit: float | None) -> float:
        interval_s = self.learnt.interval_s
        return interval_s if limit is None else max(interval_s, 60 / (_SHARE * limit))

    def _note_time(self, now_s: float) -> None:
        if now_s > self.updated_s + _FORGOTTEN_AFTER_S:
            self.learnt = LearntRate()
        elif now_s < self.updated_s - _CLOCK_SLACK_S:
            # Written by another clock.
            self.updated_s = self.slot_s = -math.inf
            self.learnt = LearntRate()
        self.updated_s = max(self.updated_s, now_s)


class LocalRate:
    """The pace of one process alone.

    Args:
        max_requests_per_minute: the limit; None for what the endpoint lets through.
    """

    def __init__(self, max_requests_per_minute: float | None = None) -> None:
        self._limit = max_requests_per_minute
        self._state = RateState()

    def reserve(self, now_s: float) -> float:
        """See `Rate`."""
        return self._state.reserve(now_s, self._limit)

    def release(self, slot_s: float) -> None:
        """See `Rate`."""
        self._state.release(slot_s, self._limit)

    def answered(self, sent_s: float, now_s: float) -> None:
        """See `Rate`."""
        self._state.answered(sent_s, now_s)

    def refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """See `Rate`."""
        self._state.refused(sent_s, now_s, hint_s)
