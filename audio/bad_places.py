"""Which 16 kHz samples of a channel bad input has touched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_Places = npt.NDArray[np.floating] | npt.NDArray[np.integer]


class _Span:
    """Samples [start, stop)."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


class BadPlaces:
    """Spans of 16 kHz samples, counted from the recording's start: `margin` to either side of each bad value."""

    def __init__(self, margin: int) -> None:
        self.margin = margin
        self._spans: list[_Span] = []

    def mark(self, places: _Places, first: int | None = None, stop: int | None = None) -> None:
        """Mark what is around `places`, positions in rising order, as far as it lies in [first, stop)."""
        for earliest, latest in _runs(places, self.margin):
            begin, end = int(earliest) - self.margin, int(latest) + self.margin + 1
            begin, end = max(begin, begin if first is None else first), min(end, end if stop is None else stop)
            if begin >= end:
                continue
            last = self._spans[-1] if self._spans else None
            if last is not None and begin <= last.stop and end >= last.start:
                last.start = min(begin, last.start)
                last.stop = max(end, last.stop)
            else:
                self._spans.append(_Span(begin, end))

    def touched(self, start: int, stop: int) -> bool:
        """Return whether a sample of [start, stop) is marked."""
        return any(span.start < stop and span.stop > start for span in self._spans)

    def forget(self, before: int) -> None:
        """Let go of marks on samples before this one: nobody asks for those any more."""
        if self._spans:
            self._spans = [span for span in self._spans if span.stop > before]


def _runs(places: _Places, reach: int) -> Iterator[tuple[float, float]]:
    """Yield (first, last) of each run of places of which neighbours are no further apart than `reach`."""
    breaks = np.flatnonzero(np.diff(places) > reach)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.concatenate((breaks, [len(places) - 1]))]
    yield from zip(firsts.tolist(), lasts.tolist(), strict=True)
