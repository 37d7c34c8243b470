"""Which clips are due next, over all takes of a recording: those that begin together come together."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from audio.recording import Take
from audio.window import NEVER, Place, Rules, Window


class Due(NamedTuple):
    """The places of several takes that begin with the same sample."""

    start: int
    places: list[tuple[int, Place]]
    """(number of the take, its place), by number."""


class Schedule:
    """The places of all `takes` that begin in samples [first, stop), in order; those before 0 count as at 0.

    Takes are known by their numbers.
    """

    def __init__(self, takes: Mapping[int, Take], rules: Rules, first: int = 0, stop: int | None = None) -> None:
        self._takes = takes
        self._first = first if first else -NEVER
        self._stop = NEVER if stop is None else stop
        self._end: int | None = None
        self._heap: list[tuple[int, int, Place, Window]] = []
        for take, wanted in takes.items():
            window = Window(wanted, rules)
            if first:
                window.skip_to(first)
            self._add(take, window)
        self.next_start = self._heap[0][0] if self._heap else NEVER
        """Where the next clip begins; NEVER after the last one. The recording's end may bring it forward by a clip."""

    def take(self) -> Due:
        """Return what begins at `next_start`, and go on to what comes after it."""
        heap, start = self._heap, self.next_start
        places = []
        while heap and heap[0][0] == start:
            _, take, place, window = heapq.heappop(heap)
            places.append((take, place))
            window.go_on()
            self._add(take, window)
        self.next_start = heap[0][0] if heap else NEVER
        return Due(start, places)

    def end_is(self, end: int) -> list[int]:
        """Take notice of where the recording ends; return the numbers of the takes that begin there or later."""
        self._end = end
        waiting, self._heap = self._heap, []
        for _, take, _, window in waiting:
            self._add(take, window)
        self.next_start = self._heap[0][0] if self._heap else NEVER
        return sorted(take for _, take, _, _ in waiting if self._takes[take].start >= end)

    def _add(self, take: int, window: Window) -> None:
        place = window.place(self._end)
        if place is not None and self._first <= place.start < self._stop:
            heapq.heappush(self._heap, (place.start, take, place, window))
