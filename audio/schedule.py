"""Which clips are due next, over all takes of a recording: those that begin together come together."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from audio.recording import Take
from audio.window import CLIP_SAMPLES, NEVER, Place, Rules, Window


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

    @property
    def next_start(self) -> int | None:
        """Where the next clip begins; None after the last one. The recording's end may bring it forward by a clip."""
        return self._heap[0][0] if self._heap else None

    def due(self, settled: int) -> Iterator[Due]:
        """Yield the places of which the clips end at or before sample `settled`; any, once the end is known."""
        heap = self._heap
        while heap and (self._end is not None or heap[0][0] + CLIP_SAMPLES <= settled):
            start = heap[0][0]
            places = []
            while heap and heap[0][0] == start:
                _, take, place, window = heapq.heappop(heap)
                places.append((take, place))
                window.go_on()
                self._add(take, window)
            yield Due(start, places)

    def end_is(self, end: int) -> list[int]:
        """Take notice of where the recording ends; return the numbers of the takes that begin there or later."""
        self._end = end
        waiting, self._heap = self._heap, []
        for _, take, _, window in waiting:
            self._add(take, window)
        return sorted(take for _, take, _, _ in waiting if self._takes[take].start >= end)

    def _add(self, take: int, window: Window) -> None:
        place = window.place(self._end)
        if place is not None and self._first <= place.start < self._stop:
            heapq.heappush(self._heap, (place.start, take, place, window))
