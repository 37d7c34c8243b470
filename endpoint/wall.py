"""A wall: everything is refused, as when a quota per minute is used up. Until it falls, one request at a time tries it."""

from __future__ import annotations

import math
from dataclasses import dataclass

# So many refusals in a row, and this share of what was sent meanwhile. Refusals come back sooner than answers, so that
# where they are slow, refusals by chance follow one another as well.
_REFUSALS = 3
_SHARE = 0.5
_STANDS_S = 0.05

_LONG_S = 8.0
_LONG_PAUSE_S = 1.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0
_LONGEST_HOLD_S = 600.0


@dataclass(slots=True)
class Wall:
    """Whether a wall stands, and how often it is tried; a plain value. Times are seconds of one clock."""

    pause_s: float = 0.0
    """The time between requests while a wall stands; 0 if none does."""
    hold_s: float = -math.inf
    """Nothing may go out before: the service asked for it."""
    paused_s: float = -math.inf
    """When the pause was last made longer."""
    refused_sent_s: float = -math.inf
    """When the newest of the refused requests was sent."""
    row_s: float = -math.inf
    """When the first refusal of the present row came."""
    row_sent_s: float = math.inf
    """When that request was sent."""
    row_before: int = 0
    """Requests that had gone out before it came."""
    row_hint_s: float = -math.inf
    """Until when the service asked to wait, in this row."""
    is_likely: bool = False
    """Whether so many were refused in this row that a wall stands, if they were not all refused at one moment."""
    row: int = 0
    """Refusals in a row: none was accepted that was sent after the first of them."""
    sent: int = 0
    """Requests that went out."""

    @property
    def stands(self) -> bool:
        """Whether there is one."""
        return self.pause_s > 0

    def note_refused(self, sent_s: float, now_s: float, hint_s: float | None) -> bool:
        """Notes a refusal, and what the service asked to wait; returns whether from this one on a wall may stand."""
        self.refused_sent_s = max(self.refused_sent_s, sent_s)
        if self.row == 0:
            self.row_s, self.row_sent_s, self.row_before = now_s, sent_s, self.sent
            self.row_hint_s = -math.inf
        self.row += 1
        until_s = -math.inf if hint_s is None else now_s + min(hint_s, _LONGEST_HOLD_S)
        self.row_hint_s = max(self.row_hint_s, until_s)
        is_new = False
        if not self.stands:
            is_new = self.row >= max(_REFUSALS, _SHARE * (self.sent - self.row_before))
            self.is_likely = self.is_likely or is_new
            if not is_new or now_s < self.row_s + _STANDS_S:
                return is_new
        if sent_s >= self.paused_s:
            self.pause_s = min(max(2 * self.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self.paused_s = now_s
        self.hold_s = max(self.hold_s, until_s)
        return is_new

    def note_accepted(self, sent_s: float) -> bool:
        """Notes an answer; returns whether a long wall has fallen, which shows a quota per minute.

        Shorter ones may be a bucket of tokens that was empty, or chance. One that held all that there was to send, as
        the service asked for it, was never tried again: it counts as well.
        """
        if sent_s <= (self.refused_sent_s if self.stands else self.row_sent_s):
            return False
        was_tried = self.pause_s >= _LONG_PAUSE_S or self.row_hint_s > self.row_s + _LONG_S
        was_long = self.is_likely and was_tried and sent_s > self.row_s + _LONG_S
        self.row = 0
        self.is_likely = False
        self.row_sent_s = math.inf
        self.pause_s = 0.0
        return was_long
