"""A bound on how much a failing service is asked: while most requests fail, only a trickle of them goes out."""

from __future__ import annotations

import math

_FULL = 64
_RECOVERED = 16
_QUICKER = 0.75


class RetryBudget:
    """A balance that each failure lowers and each answer raises, so that half of the requests may fail for good.

    When it is used up, an outage begins: requests go out one by one, `max(1, max_in_flight / 16)` a second, and a
    quarter quicker with each answer until the next failure. It ends when the balance has recovered, not with the first
    answer: requests that then go out at once would fail all together.

    Refusals for a request's number (429) are no failures: they are the rate's (`rate.Rate`). All times are
    `time.monotonic()` seconds. For one thread.

    Args:
        max_in_flight: requests that may be without their answer at a time.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._trickle_s = 1 / max(1.0, max_in_flight / 16)
        self._interval_s = self._trickle_s
        self._balance = _FULL
        self._is_outage = False
        self._next_s = -math.inf

    def failed(self, now_s: float) -> None:
        """Notes a request that failed and may be sent again: 5xx, time limit, no connection."""
        self._balance = max(0, self._balance - 1)
        if self._balance == 0 and not self._is_outage:
            self._is_outage = True
            self._next_s = now_s + self._trickle_s
        self._interval_s = self._trickle_s

    def answered(self, now_s: float) -> None:
        """Notes any other reply."""
        self._balance = min(_FULL, self._balance + 1)
        if self._balance >= _RECOVERED:
            self._is_outage = False
        self._interval_s *= _QUICKER
        self._next_s = min(self._next_s, now_s + self._interval_s)

    def earliest(self, now_s: float) -> float:
        """Takes leave to send one request, and returns from when on it holds: `now_s`, or later during an outage."""
        if not self._is_outage:
            return now_s
        earliest_s = max(now_s, self._next_s)
        self._next_s = earliest_s + self._interval_s
        return earliest_s
