"""Where decoded frames belong: placed by their timestamps, so that times are the recording's own."""

from __future__ import annotations

import math

from audio.errors import Damaged
from audio.source import Gaps

_GAP_S = 0.010
_LONGEST_GAP_S = 3600


class Timeline:
    """Keeps the position in a recording whose frames carry timestamps.

    A frame that comes more than 10 ms later than the one before it ended leaves a gap, which the caller fills with
    zeros; smaller differences are the rounding of the container's clock. One that comes too early just follows on.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._tolerance = int(rate_hz * _GAP_S)
        self._origin: int | None = None
        self._behind: int | None = None
        self._gaps = 0
        self._gap_frames = 0
        self._counted_from = 0
        self._counted_to: float = math.inf
        self.position = 0
        """Frames from the recording's start to the end of what was placed."""

    def count_gaps_in(self, first: int, stop: float) -> None:
        """Let `gaps` be those that begin in frames [first, stop) only."""
        self._counted_from, self._counted_to = first, stop

    @property
    def gaps(self) -> Gaps:
        """The gaps so far."""
        return Gaps(self._gaps, self._gap_frames)

    def begin(self, timestamp: int) -> None:
        """Say that the recording's first sample has this timestamp, in frames; without it, the first one placed is it."""
        if self._origin is None:
            self._origin = timestamp

    def place(self, timestamp: int | None, frames: int) -> int:
        """Return how many zeros come before a frame of `frames` samples with this timestamp, in frames.

        Raises Damaged at a jump of more than an hour.
        """
        gap = 0
        if timestamp is not None:
            self.begin(timestamp)
            gap = self._gap_before(timestamp)
        self.position += gap + frames
        return gap

    def _gap_before(self, timestamp: int) -> int:
        late = timestamp - (self._origin or 0) - self.position
        if late > self._tolerance:
            if late > _LONGEST_GAP_S * self._rate_hz:
                raise Damaged(
                    f"the timestamps jump by {late / self._rate_hz:.0f} s at {self.position / self._rate_hz:.3f} s; "
                    f"gaps of up to {_LONGEST_GAP_S} s are filled with silence: the file is damaged there"
                )
            if self._counted_from <= self.position < self._counted_to:
                self._gaps += 1
                self._gap_frames += late
            self._behind = None
            return late
        if late >= -self._tolerance:
            self._behind = None
        elif self._behind is not None and abs(late - self._behind) <= self._tolerance:
            # Two frames in a row agree on an earlier clock: it was set back. A single one is a glitch.
            self._origin = (self._origin or 0) + late
            self._behind = None
        else:
            self._behind = late
        return 0
