"""A quota of requests a minute: a sliding window over those that were accepted."""

from __future__ import annotations

from bisect import insort
from collections import deque

WINDOW_S = 60.0


class Quota:
    """Accepts at most so many requests in any window of 60 s. Times are seconds of any clock, near enough in order."""

    def __init__(self, requests_per_minute: int) -> None:
        self._limit = requests_per_minute
        self._accepted_s: deque[float] = deque()

    def take(self, now_s: float) -> float:
        """Takes a slot and returns 0; or takes none and returns how long it is until one frees, in seconds."""
        while self._accepted_s and self._accepted_s[0] <= now_s - WINDOW_S:
            self._accepted_s.popleft()
        if len(self._accepted_s) < self._limit:
            insort(self._accepted_s, now_s)
            return 0.0
        return self._accepted_s[0] + WINDOW_S - now_s

    def give_back(self, taken_s: float) -> None:
        """Frees the slot of a request that was refused for another reason after all; `taken_s` is when it was taken."""
        self._accepted_s.remove(taken_s)
