"""What an endpoint's refusals teach about its quota: a rate in requests per second, and when to hold back altogether.

A quota is seldom known, and 429 may mean three things, which are told apart like this:

- *Too fast*: some requests are refused. The rate is cut to 0.7 of what it was, but not below 0.95 of what was accepted
  in the last 60 s, which is the best estimate of a quota per minute. If more than a fifth are refused, that is too
  high, and the rate of the last seconds counts.
- *A wall*: all requests are refused, as when a quota per minute is used up. While it stands, one request at a time
  tries it, at growing intervals, and the server's hint holds for all. Nothing is learnt from those. A long wall shows
  the quota: what was accepted in the 60 s before.
- *Chance*: requests are still refused after a cut. The rate is cut once more; if the share of refusals stays, it does
  not depend on the rate. Then that goes back to where it was, and refusals do not count for a minute.

A cut is not followed by another until it has been tried with some requests; those sent before it do not count. At
other times the rate grows with each answer: slowly near the level at which the last refusal came, else fast.

The constants were chosen by simulating quotas per sliding minute, per calendar minute and by token bucket
(`tests/endpoint/quota_simulation.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

COUNTED_S = 60
"""Seconds of which accepted requests are counted: quotas are per minute."""

_DECREASE = 0.7
_FLOOR = 0.95
_OBSERVED_S = 5
_LEAST_KNOWN = 20

# More than this are refused: the rate is far too high, whatever was accepted earlier.
_HEAVY_REFUSALS = 2
_HEAVY_FRACTION = 0.2
_HEAVY_DECREASE = 0.9
_HEAVY_FLOOR = 0.5

_SETTLING_S = 0.5
_SETTLING_REQUESTS = 50
_TRIAL_REQUESTS = 200
_TRIAL_S = 120.0
_CHANCE_REFUSALS = 3
_CERTAIN_REFUSALS = 6
_CHANCE_FRACTION = 0.015
_CHANCE_REMAINS = 0.5
_TRUST_S = 60.0

# Requests per second that an answer adds, and how much of it as a fraction of a rate below 1.5 per second.
_SLOW = 0.003
_FAST = 0.02
_TRUSTING = 0.1
_MOST_GROWTH = 0.66
_NEAR = (0.93, 1.08)

_WALL_REFUSALS = 3
_WALL_S = 0.05
_LONG_WALL_S = 8.0
_LONG_WALL_PAUSE_S = 1.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0
_LONGEST_HOLD_S = 600.0
_LOWEST_PER_S = 0.1


@dataclass(slots=True)
class LearntRate:
    """The state of learning; a plain value that answers and refusals change. Times are seconds of one clock."""

    per_s: float = math.inf
    """Requests per second that may go out; infinite before anything is known."""
    level_per_s: float = math.inf
    """The level at which the last refusal came, near which the rate grows slowly."""
    before_per_s: float = math.inf
    """The rate before the cuts that are being tried."""
    cut_s: float = -math.inf
    """When the last cut had settled: what was sent before shows nothing about the present rate."""
    trusted_until_s: float = -math.inf
    """Until then refusals are taken for chance."""
    hold_s: float = -math.inf
    """Nothing may go out before: the service asked for it."""
    pause_s: float = 0.0
    """The time between requests while a wall stands; 0 if none does."""
    paused_s: float = -math.inf
    """When the pause was last made longer."""
    refused_sent_s: float = -math.inf
    """When the newest of the refused requests was sent."""
    row_s: float = -math.inf
    """When the first of the refusals came that are in a row."""
    first_accepted_s: float = math.inf
    """When the first request was sent that was accepted after the cut."""
    suspected: float = 0.0
    """The share that was refused in a first trial, while the second is made to see whether it depends on the rate."""
    in_a_row: int = 0
    """Refusals since the last answer."""
    before_wall: int = 0
    """Requests accepted in the 60 s before the wall."""
    accepted: int = 0
    """Requests accepted since then, or since the last verdict."""
    refused: int = 0
    """Requests refused since then, those of a wall left out."""
    is_trial: bool = False
    """Whether the last cut has not had its verdict yet."""
    second: int = 0
    """The newest second that is counted."""
    counts: list[int] = field(default_factory=lambda: [0] * COUNTED_S)
    """Requests accepted, by the second in which they were sent, modulo 60."""

    def note_accepted(self, sent_s: float, now_s: float) -> None:
        """Learns that a request was not refused."""
        self._count(sent_s)
        if sent_s > self.refused_sent_s:
            self._end_row(sent_s)
        if sent_s < self.cut_s:
            return
        self.first_accepted_s = min(self.first_accepted_s, sent_s)
        self.accepted += 1
        if not self.is_trial:
            self._grow(now_s)
        self._judge(now_s)

    def note_refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """Learns that a request was refused for its number."""
        self.refused_sent_s = max(self.refused_sent_s, sent_s)
        self._note_row(sent_s, now_s, hint_s)
        if self.pause_s > 0 or sent_s < self.cut_s or sent_s < self.first_accepted_s:
            return
        self.refused += 1
        accepted_per_s = self.accepted_per_minute(now_s) / 60
        if self.refused > _HEAVY_REFUSALS + _HEAVY_FRACTION * (self.accepted + self.refused):
            self._cut(max(_HEAVY_DECREASE * self._observed_per_s(now_s), _HEAVY_FLOOR * accepted_per_s), now_s)
        elif math.isinf(self.per_s) and accepted_per_s < _LEAST_KNOWN / 60:
            return  # too little is known to tell chance from a quota; a wall is noticed all the same
        elif not self.is_trial and now_s >= self.trusted_until_s:
            lowered_per_s = _DECREASE * min(self.per_s, self._observed_per_s(now_s))
            self._cut(max(lowered_per_s, _FLOOR * accepted_per_s), now_s)
        else:
            self._judge(now_s)

    def accepted_per_minute(self, now_s: float) -> int:
        """Requests sent in the last 60 s that were accepted."""
        self._advance(int(now_s))
        return sum(self.counts)

    def _note_row(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        if self.in_a_row == 0:
            self.row_s = now_s
        self.in_a_row += 1
        if self.in_a_row < _WALL_REFUSALS or now_s < self.row_s + _WALL_S:
            return
        if self.pause_s == 0:
            self.before_wall = self.accepted_per_minute(now_s)
        if sent_s >= self.paused_s:
            self.pause_s = min(max(2 * self.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self.paused_s = now_s
        if hint_s is not None:
            self.hold_s = max(self.hold_s, now_s + min(hint_s, _LONGEST_HOLD_S))

    def _end_row(self, sent_s: float) -> None:
        is_wall = self.pause_s > 0
        was_tried = self.pause_s >= _LONG_WALL_PAUSE_S or self.hold_s > self.row_s + _LONG_WALL_S
        if is_wall and was_tried and self.before_wall > 0 and sent_s > self.row_s + _LONG_WALL_S:
            # A quota per minute was used up. Shorter walls may be a bucket of tokens, or chance.
            self.level_per_s = self.before_wall / 60
            self.per_s = max(min(self.per_s, _FLOOR * self.level_per_s), _LOWEST_PER_S)
        self.in_a_row = 0
        self.pause_s = 0.0

    def _grow(self, now_s: float) -> None:
        low, high = _NEAR
        if now_s < self.trusted_until_s:
            growth = _TRUSTING
        elif low * self.level_per_s < self.per_s < high * self.level_per_s:
            growth = _SLOW
        else:
            growth = _FAST
        self.per_s += min(growth, _MOST_GROWTH * growth * self.per_s)

    def _cut(self, per_s: float, now_s: float) -> None:
        if not self.is_trial:
            self.before_per_s = min(self.per_s, self._observed_per_s(now_s))
        self.per_s = max(min(self.per_s, per_s), _LOWEST_PER_S)
        self.level_per_s = max(self.accepted_per_minute(now_s) / 60, self.per_s)
        # Until those sent before have arrived, requests are refused that the new rate would not be the reason for.
        self.cut_s = now_s + min(_SETTLING_S, _SETTLING_REQUESTS / self.per_s)
        self.is_trial = True
        self.suspected = 0.0
        self.first_accepted_s = math.inf
        self.accepted = self.refused = 0

    def _judge(self, now_s: float) -> None:
        requests = self.accepted + self.refused
        share = self.refused / max(1, requests)
        is_over = requests >= _TRIAL_REQUESTS or now_s >= self.cut_s + _TRIAL_S
        if self.is_trial and self.suspected == 0:
            if self.refused >= _CERTAIN_REFUSALS or (
                is_over and self.refused >= max(_CHANCE_REFUSALS, _CHANCE_FRACTION * requests)
            ):
                self._cut(_DECREASE * self.per_s, now_s)
                self.suspected = share
                return
        elif self.is_trial:
            remains = share >= _CHANCE_REMAINS * self.suspected
            if remains and (is_over or self.refused >= _CHANCE_REFUSALS):
                self.per_s = max(self.per_s, self.before_per_s)
                self.trusted_until_s = now_s + _TRUST_S
                is_over = True
            elif is_over:
                # What the first trial let through is what there is.
                self.per_s *= _FLOOR * (1 - self.suspected) / _DECREASE
        if is_over:
            self.is_trial = False
            self.suspected = 0.0
            self.accepted = self.refused = 0

    def _observed_per_s(self, now_s: float) -> float:
        """The rate of accepted requests in the last seconds; of the first second if there is no more."""
        self._advance(int(now_s))
        last = [self.counts[(self.second - back) % COUNTED_S] for back in range(_OBSERVED_S + 1)]
        if math.isinf(self.per_s) and 0 in last[1:]:
            # Nothing held requests back: there was nothing to send, as between a probe and its run.
            last = last[: last.index(0, 1)]
        seen = max((back for back, count in enumerate(last) if count), default=0)
        since_s = max(self.second - seen, self.first_accepted_s if self.cut_s == -math.inf else -math.inf)
        return sum(last) / max(now_s - since_s, 0.05)

    def _count(self, sent_s: float) -> None:
        second = int(sent_s)
        if second > self.second - COUNTED_S:
            self._advance(second)
            self.counts[second % COUNTED_S] += 1

    def _advance(self, second: int) -> None:
        for passed in range(self.second + 1, min(second, self.second + COUNTED_S) + 1):
            self.counts[passed % COUNTED_S] = 0
        self.second = max(self.second, second)
