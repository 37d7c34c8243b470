"""When the next request may go out: as the rate allows, and the retry budget, one request ahead."""

from __future__ import annotations

import grpc

from endpoint.rate import Rate
from endpoint.retry import is_retryable
from endpoint.retry_budget import RetryBudget
from endpoint.stats import Counters
from endpoint.transport import Reply

_SLOT_KEEPS_S = 0.25
"""A slot that is used later than that could be one too many in its minute."""


class Pacing:
    """Holds the slot for the next request, and tells rate and budget what became of those before. Not thread-safe.

    Args:
        rate: how many requests may go out.
        budget: holds them back while most of them fail.
        counters: where waiting is counted as throttled time.
    """

    def __init__(self, rate: Rate, budget: RetryBudget, counters: Counters) -> None:
        self._rate = rate
        self._budget = budget
        self._counters = counters
        self._reserved_s: float | None = None
        """The slot that was taken from the rate."""
        self._leave_s = 0.0
        """From when on the budget gives leave to use it."""

    @property
    def due_s(self) -> float:
        """When the next request may go out, by the clock; known after `may_send`."""
        return max(self._reserved_s or 0.0, self._leave_s)

    def may_send(self, now_s: float) -> bool:
        """Whether a request may go out now; if not, it may at `due_s`."""
        if self._reserved_s is not None and self.due_s < now_s - _SLOT_KEEPS_S:
            self.release()
        if self._reserved_s is None:
            self._reserved_s = self._rate.reserve(now_s)
            self._leave_s = self._budget.earliest(now_s)
            self._counters.throttled(now_s, self.due_s)
        return self.due_s <= now_s

    def sent(self) -> None:
        """Notes that a request has gone out: the slot is used."""
        self._reserved_s = None

    def answered(self, sent_s: float, now_s: float, reply: Reply) -> None:
        """Notes a reply."""
        if reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._rate.refused(sent_s, now_s, reply.retry_after_s)
            self.release()  # the slot was taken before the service asked to wait
            return
        self._rate.answered(sent_s, now_s)
        if is_retryable(reply.code):
            self._budget.failed(now_s)
        else:
            self._budget.answered(now_s)

    def release(self) -> None:
        """Gives back the slot that is held, if there is one."""
        if self._reserved_s is not None:
            self._rate.release(self._reserved_s)
            self._reserved_s = None
