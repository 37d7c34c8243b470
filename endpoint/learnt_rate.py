"""What an endpoint's refusals teach about its quota: a rate in requests per second.

A quota is seldom known, and 429 may mean three things, which are told apart like this:

- *A wall* (`wall.Wall`): all requests are refused, as when a quota per minute is used up. A long wall shows the quota:
  what was accepted in the 60 s before.
- *Too fast*: some requests are refused, and at a lower rate hardly any. What is accepted meanwhile is the quota.
- *Chance*: at a lower rate as many are refused. So the rate is not the reason, and goes back to where it was; for a
  while refusals count only as far as they are more than that.

The last two are told apart by trying. More than a small share of refusals begins a trial: the rate is cut to a little
less than what was accepted, so that no quota would be the reason of refusals. The trial ends as soon as enough requests
have their answer to see which it is. So one refusal in two hundred changes nothing, whatever its reason (as loss slows
TCP down without bound), and a client whose refusals come by chance is never much slower than it was before.

Only whole seconds are looked at of which all requests have their answer: refusals come back sooner than answers, so
that there are too many of them among the latest replies.

The constants were chosen by simulating quotas per sliding minute, per calendar minute and by token bucket, refusals by
chance, and clients that are slow themselves (`tests/endpoint/quota_simulation.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from endpoint.tally import COUNTED_S, Share, Tally
from endpoint.wall import Wall

# More refusals than these are too many: a few, and a share of the requests; a smaller one near the level of the last.
_FEW = 2
_TOLERATED = 0.02
_FEW_NEAR = 1
_TOLERATED_NEAR = 0.005
# Where some come by chance: that share and a quarter of it, and what deviates by chance.
_CHANCE_MARGIN = 1.25
_CHANCE_DEVIATIONS = 2
# These are too many for chance.
_HEAVY_FEW = 4
_HEAVY = 0.25
_LOOKED_AT_REQUESTS = 300

# A trial's rate, of what was accepted in the last seconds; or in the last minute, if that is more. Of fewer requests
# than are enough it is not concluded that much less than half of the present rate is accepted.
_CUT = 0.8
_CUT_OF_MINUTE = 0.95
_LATELY_S = 5
_ENOUGH_REQUESTS = 20
# It ends with so many requests that this number would be refused if it were chance, and is chance if this part of them is.
_EXPECTED_REFUSALS = 6
_REMAINS = 0.35
_LONGEST_TRIAL_S = COUNTED_S
_BELOW_LEVEL = 0.95
_CHANCE_S = 60.0
_LONGEST_CHANCE_S = 600.0

# Growth in a second: at the level of the last refusals, and how much more it is far from it.
_SLOW = 0.003
_FASTER = 0.03
_NEAR = (0.93, 1.08)
_LONGEST_STEP_S = 5
_ROOM = 2.0
_ROOM_S = 10
_LOWEST_PER_S = 0.1

_LATENCY_DECAY = 0.95
_LONGEST_LATENCY_S = 5.0


@dataclass(slots=True)
class LearntRate:
    """The state of learning; a plain value that answers and refusals change. Times are seconds of one clock."""

    per_s: float = math.inf
    """Requests per second that may go out; infinite while nothing is known that would limit them."""
    level_per_s: float = math.inf
    """What was accepted when requests were refused last, near which the rate grows slowly."""
    minute_over_s: float = -math.inf
    """Until then the level is not exceeded: whether a quota per minute is kept shows after a minute."""
    latency_s: float = 0.0
    """How long answers take, slow ones included."""
    began: int = -1
    """The second of the first request; -1 if there was none yet."""
    cut_at: int = -1
    """The first second after the rate was last changed by refusals."""
    looked_from: int = -1
    """The first second that is looked at."""
    looked_until: int = -1
    """The second after the newest that was looked at."""
    is_trial: bool = False
    """Whether the present rate is one that is tried."""
    is_deep: bool = False
    """Whether it is so low that no quota would be the reason of refusals, whatever its kind."""
    tried_per_s: float = math.inf
    """What was accepted when the trial began: the quota, if there is one."""
    before_per_s: float = math.inf
    """The rate before the trial."""
    suspected: float = 0.0
    """The share that was refused when the trial began."""
    chance: float = 0.0
    """The share that is refused whatever the rate."""
    chance_until_s: float = -math.inf
    """How long that is believed."""
    chance_for_s: float = _CHANCE_S
    """For how long it will be believed the next time."""
    before_wall: int = 0
    """Requests accepted in the 60 s before the wall."""
    wall: Wall = field(default_factory=Wall)
    tally: Tally = field(default_factory=Tally)

    @property
    def interval_s(self) -> float:
        """The time from one request to the next."""
        return max(1 / self.per_s, self.wall.pause_s)

    def note_sent(self, requests: int = 1) -> None:
        """Learns that a request goes out; or, with -1, that one did not after all."""
        self.wall.sent += requests

    def note_accepted(self, sent_s: float, now_s: float) -> None:
        """Learns that a request was not refused."""
        self.tally.count(sent_s, is_accepted=True)
        self.latency_s = max(now_s - sent_s, _LATENCY_DECAY * self.latency_s)
        if self.began < 0:
            self.began = self.cut_at = self.looked_from = self.looked_until = math.floor(sent_s)
        if self.wall.note_accepted(sent_s) and self.before_wall > 0:
            self.level_per_s = self.before_wall / COUNTED_S
            self.minute_over_s = now_s + COUNTED_S
            self.is_trial = False
            self._set(min(self.per_s, _BELOW_LEVEL * self.level_per_s), now_s)
        self._look(now_s)

    def note_refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """Learns that a request was refused for its number, and for how long the service asked to wait."""
        if not self.wall.stands:
            # While it does, all are refused, which shows nothing about the rate.
            self.tally.count(sent_s, is_accepted=False)
        if self.wall.note_refused(sent_s, now_s, hint_s):
            self.before_wall = self.tally.accepted_per_minute(now_s)
        self._look(now_s)

    def _look(self, now_s: float) -> None:
        """Draws conclusions from the seconds of which all requests have their answer, once for each."""
        second = math.floor(now_s - min(self.latency_s, _LONGEST_LATENCY_S))
        passed_s = second - self.looked_until
        if self.began < 0 or passed_s <= 0:
            return
        self.looked_until = second
        seen = self.tally.share(range(self.looked_from, second))
        if seen.accepted == 0:
            return
        if now_s >= self.chance_until_s:
            self.chance = 0.0
        if seen.refused > _HEAVY_FEW + _HEAVY * seen.requests:
            self._try(seen, now_s, is_heavy=True)
        elif self.is_trial:
            self._judge(seen, now_s)
        elif self._are_too_many(seen):
            self._try(seen, now_s)
        else:
            self._grow(min(passed_s, _LONGEST_STEP_S), now_s)
            if seen.requests >= _LOOKED_AT_REQUESTS:
                self.looked_from = second

    def _are_too_many(self, seen: Share) -> bool:
        if self.chance > 0:
            expected = (_CHANCE_MARGIN * self.chance + _TOLERATED) * seen.requests
            return seen.refused > _FEW + expected + _CHANCE_DEVIATIONS * math.sqrt(expected)
        low, high = _NEAR
        if low * self.level_per_s < self.per_s < high * self.level_per_s:
            return seen.refused > _FEW_NEAR + _TOLERATED_NEAR * seen.requests
        return seen.refused > _FEW + _TOLERATED * seen.requests

    def _try(self, seen: Share, now_s: float, *, is_heavy: bool = False) -> None:
        """Begins a trial; during one, another with a lower rate."""
        lately_per_s = max(
            self.tally.accepted_per_s(range(self.cut_at, self.looked_until), _LATELY_S),
            seen.accepted / (self.looked_until - self.looked_from),
        )
        if seen.requests < _ENOUGH_REQUESTS and self.per_s < math.inf:
            lately_per_s = max(lately_per_s, self.per_s / 2)
        minute_per_s = 0.0
        if not is_heavy and not self.is_trial and now_s >= self.began + COUNTED_S:
            minute_per_s = self.tally.accepted_per_minute(now_s) / COUNTED_S
        if not self.is_trial:
            self.before_per_s = self.per_s
        self.is_trial = True
        self.is_deep = _CUT * min(lately_per_s, self.per_s) > _CUT_OF_MINUTE * min(minute_per_s, self.per_s)
        self.tried_per_s = min(lately_per_s if self.is_deep else minute_per_s, self.per_s)
        self.suspected = seen.refused_share
        self._set((_CUT if self.is_deep else _CUT_OF_MINUTE) * self.tried_per_s, now_s)

    def _judge(self, seen: Share, now_s: float) -> None:
        """Ends the trial if there is enough to see what the reason of refusals is."""
        suspected = self.suspected - self.chance
        lasted_s = self.looked_until - self.cut_at
        is_over = seen.requests * suspected >= _EXPECTED_REFUSALS or lasted_s >= _LONGEST_TRIAL_S
        remains = seen.refused_share - self.chance >= _REMAINS * suspected
        if not is_over and not (remains and seen.refused > _FEW):
            return
        if not remains:
            self.is_trial = False
            self.level_per_s = self.tried_per_s
            self.chance_for_s = _CHANCE_S
            self._set(_BELOW_LEVEL * self.tried_per_s, now_s)
        elif not self.is_deep or self.suspected > _HEAVY or seen.refused > _FEW + _HEAVY * seen.requests:
            self._try(seen, now_s)
        else:
            self.is_trial = False
            self.level_per_s = math.inf
            self.chance = (self.suspected + seen.refused_share) / 2
            self.chance_until_s = now_s + self.chance_for_s
            self.chance_for_s = min(2 * self.chance_for_s, _LONGEST_CHANCE_S)
            self._set(self.before_per_s, now_s)

    def _grow(self, passed_s: int, now_s: float) -> None:
        if now_s < self.minute_over_s and self.per_s > self.level_per_s:
            return
        lately = range(self.looked_until - _ROOM_S, self.looked_until)
        if self.per_s > _ROOM * self.tally.most_accepted_per_s(lately):
            return  # it is not what holds requests back
        growth = _SLOW + _FASTER * min(1.0, abs(self.per_s / self.level_per_s - 1))
        self.per_s *= (1 + growth) ** passed_s

    def _set(self, per_s: float, now_s: float) -> None:
        """Changes the rate; what was sent before shows nothing about the new one."""
        self.per_s = max(per_s, _LOWEST_PER_S)
        self.cut_at = self.looked_from = self.looked_until = math.floor(now_s) + 1
