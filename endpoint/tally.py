"""How many requests were accepted and refused in each of the last 60 seconds, by the time at which they were sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

COUNTED_S = 60
"""Seconds that are counted: quotas are per minute."""

_DOUBT = 5


class Share(NamedTuple):
    """What became of the requests of some seconds."""

    accepted: int
    refused: int

    @property
    def requests(self) -> int:
        """All of them."""
        return self.accepted + self.refused

    @property
    def refused_share(self) -> float:
        """From 0 to 1, a little less than it was: of a few requests, some refusals show little."""
        return self.refused / (self.requests + _DOUBT)


@dataclass(slots=True)
class Tally:
    """Counts by second, a plain value; times are seconds of one clock, near enough in order."""

    newest: int = 0
    """The newest second that is counted."""
    accepted: list[int] = field(default_factory=lambda: [0] * COUNTED_S)
    """Requests accepted, by second modulo 60."""
    refused: list[int] = field(default_factory=lambda: [0] * COUNTED_S)
    """Requests refused, by second modulo 60."""

    def count(self, sent_s: float, *, is_accepted: bool) -> None:
        """Counts a request, unless it is so old that its second is counted no more."""
        second = math.floor(sent_s)
        if second > self.newest - COUNTED_S:
            self._advance(second)
            (self.accepted if is_accepted else self.refused)[second % COUNTED_S] += 1

    def accepted_per_minute(self, now_s: float) -> int:
        """Requests sent in the last 60 s that were accepted."""
        self._advance(math.floor(now_s))
        return sum(self.accepted)

    def most_accepted_per_s(self, seconds: range) -> int:
        """The most that were accepted in one of these seconds."""
        return max((self.accepted[second % COUNTED_S] for second in self._counted(seconds)), default=0)

    def share(self, seconds: range) -> Share:
        """The requests of these seconds, as far as they are counted still."""
        accepted = refused = 0
        for second in self._counted(seconds):
            index = second % COUNTED_S
            accepted += self.accepted[index]
            refused += self.refused[index]
        return Share(accepted, refused)

    def accepted_per_s(self, seconds: range, most_active_s: int) -> float:
        """How many were accepted in a second, on average over the last of these seconds in which any request was sent."""
        accepted = active_s = 0
        for second in reversed(self._counted(seconds)):
            index = second % COUNTED_S
            if self.accepted[index] + self.refused[index] > 0:
                accepted += self.accepted[index]
                active_s += 1
                if active_s == most_active_s:
                    break
        return accepted / max(1, active_s)

    def _counted(self, seconds: range) -> range:
        return range(max(seconds.start, self.newest - COUNTED_S + 1), min(seconds.stop, self.newest + 1))

    def _advance(self, second: int) -> None:
        for passed in range(self.newest + 1, min(second, self.newest + COUNTED_S) + 1):
            self.accepted[passed % COUNTED_S] = self.refused[passed % COUNTED_S] = 0
        self.newest = max(self.newest, second)
