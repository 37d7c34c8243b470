"""Clients and quotas in virtual time: how much of a quota a rate uses, and how much is refused, without waiting.

Run as a program it prints a table over kinds of quota, sizes, latencies and windows, and one over refusals by chance and
clients that are slow for several reasons.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from endpoint.rate import LocalRate, Rate
from endpoint.retry import Backoff

PerMinute = Callable[[float], float]
"""A quota in requests per minute as it is at a time."""


class Quota(Protocol):
    """What an endpoint decides about a request when it arrives."""

    def take(self, now_s: float) -> bool:
        """Whether a request is accepted; refused ones are not counted."""

    def wait_s(self, now_s: float) -> float:
        """When the next request would be accepted, in seconds from now: what a hint says."""


class SlidingMinute:
    """As many requests as the quota in any 60 s."""

    def __init__(self, per_minute: PerMinute) -> None:
        self._per_minute = per_minute
        self._accepted: deque[float] = deque()

    def take(self, now_s: float) -> bool:
        while self._accepted and self._accepted[0] <= now_s - 60:
            self._accepted.popleft()
        if len(self._accepted) >= self._per_minute(now_s):
            return False
        self._accepted.append(now_s)
        return True

    def wait_s(self, now_s: float) -> float:
        return self._accepted[0] + 60 - now_s


class CalendarMinute:
    """As many requests as the quota in each minute of the clock."""

    def __init__(self, per_minute: PerMinute) -> None:
        self._per_minute = per_minute
        self._minute = -1
        self._accepted = 0

    def take(self, now_s: float) -> bool:
        minute = int(now_s // 60)
        if minute != self._minute:
            self._minute, self._accepted = minute, 0
        if self._accepted >= self._per_minute(now_s):
            return False
        self._accepted += 1
        return True

    def wait_s(self, now_s: float) -> float:
        return 60 - now_s % 60


class TokenBucket:
    """Tokens that flow in at the quota's rate, up to what flows in within `burst_s`."""

    def __init__(self, per_minute: PerMinute, burst_s: float) -> None:
        self._per_minute = per_minute
        self._burst_s = burst_s
        self._tokens = math.inf
        self._now_s = 0.0

    def take(self, now_s: float) -> bool:
        per_s = self._per_minute(now_s) / 60
        self._tokens = min(self._tokens + (now_s - self._now_s) * per_s, max(1.0, self._burst_s * per_s))
        self._now_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait_s(self, now_s: float) -> float:
        return (1 - self._tokens) / (self._per_minute(now_s) / 60)


class RandomFaults:
    """Refuses some requests whatever their number."""

    def __init__(self, fraction: float, seed: int, hint_s: float = 0.2) -> None:
        self._fraction = fraction
        self._rng = random.Random(seed)
        self._hint_s = hint_s

    def take(self, now_s: float) -> bool:
        return self._rng.random() >= self._fraction

    def wait_s(self, now_s: float) -> float:
        return self._hint_s


class Both:
    """A request must pass two tests."""

    def __init__(self, first: Quota, second: Quota) -> None:
        self._quotas = (first, second)
        self._refused_by = first

    def take(self, now_s: float) -> bool:
        for quota in self._quotas:
            if not quota.take(now_s):
                self._refused_by = quota
                return False
        return True

    def wait_s(self, now_s: float) -> float:
        return self._refused_by.wait_s(now_s)


@dataclass(frozen=True)
class Arrival:
    """A line of the endpoint's log."""

    at_s: float
    is_accepted: bool


@dataclass
class _Client:
    """A process: as many batches as its window holds, and the slot that it has taken ahead."""

    rate: Rate
    ready: int
    slot_s: float | None = None
    due_s: float = math.inf
    awake_s: float = -math.inf
    """When it next gets the processor."""
    batch_s: float = -math.inf
    """When its last new batch was ready."""


def simulate(
    quota: Quota,
    rates: Sequence[Rate],
    *,
    duration_s: float,
    in_flight: int,
    latency_s: float,
    has_hints: bool = False,
    refusal_latency_s: float | None = None,
    wakes_every_s: float = 0.0,
    batches_per_s: float = math.inf,
    start_s: float = 1017.0,
    seed: int = 1,
) -> list[Arrival]:
    """The arrivals at an endpoint of one client per rate, each with more to send than it can (as `Dispatcher` does).

    Args:
        quota: what is accepted.
        rates: the clients' rates; those that share a limit are one object.
        duration_s: when clients stop sending.
        in_flight: window of each client, batches that wait to be sent again included.
        latency_s: between request and reply, give or take a half; half of it passes before the request arrives.
        has_hints: whether refusals say how long to wait.
        refusal_latency_s: between request and refusal, where that is quicker than an answer.
        wakes_every_s: a client on a busy machine does all it has to do at once, so many seconds apart on average.
        batches_per_s: a client has a new batch to send no more often than that.
        start_s: the clock at the start.
        seed: of latencies and backoff.
    """
    rng = random.Random(seed)
    backoff = Backoff()
    sequence = itertools.count()
    arrivals: list[Arrival] = []
    events: list[tuple[float, int, Callable[[float], None]]] = []
    clients = [_Client(rate, in_flight) for rate in rates]
    end_s = start_s + duration_s

    def at(time_s: float, action: Callable[[float], None]) -> None:
        heapq.heappush(events, (time_s, next(sequence), action))

    def when_awake(client: _Client, time_s: float, action: Callable[[float], None]) -> None:
        """Lets a client do something at that time, or when it is awake after that."""
        if wakes_every_s and time_s > client.awake_s:
            client.awake_s = time_s + wakes_every_s * rng.uniform(0.0, 2.0)
        at(max(time_s, client.awake_s) if wakes_every_s else time_s, action)

    def proceed(client: _Client, now_s: float) -> None:
        while client.ready and now_s < end_s:
            if client.slot_s is None:
                client.slot_s = client.rate.reserve(now_s)
            if client.slot_s > now_s:
                if client.due_s != client.slot_s:
                    client.due_s = client.slot_s
                    at(client.slot_s, lambda now_s: proceed(client, now_s))
                return
            client.slot_s = None
            client.ready -= 1
            send(client, now_s, 0)

    def send(client: _Client, sent_s: float, failures: int) -> None:
        latency = latency_s * rng.uniform(0.5, 1.5)
        quick = latency if refusal_latency_s is None else min(latency, refusal_latency_s)
        at(sent_s + quick / 2, lambda now_s: arrive(client, sent_s, now_s, sent_s + latency, sent_s + quick))

    def arrive(client: _Client, sent_s: float, now_s: float, answer_s: float, refusal_s: float) -> None:
        is_accepted = quota.take(now_s)
        arrivals.append(Arrival(now_s, is_accepted))
        hint_s = quota.wait_s(now_s) if has_hints and not is_accepted else None
        reply_s = answer_s if is_accepted else refusal_s
        when_awake(client, reply_s, lambda now_s: receive(client, sent_s, now_s, is_accepted, hint_s))

    def receive(client: _Client, sent_s: float, now_s: float, is_accepted: bool, hint_s: float | None) -> None:
        if is_accepted:
            client.rate.answered(sent_s, now_s)
            client.batch_s = max(now_s, client.batch_s + 1 / batches_per_s)
            when_awake(client, client.batch_s, lambda now_s: come_back(client, now_s))
            return
        client.rate.refused(sent_s, now_s, hint_s)
        if client.slot_s is not None:
            client.rate.release(client.slot_s)
            client.slot_s = None
        at(now_s + backoff.delay_s(1, hint_s, rng), lambda now_s: come_back(client, now_s))
        proceed(client, now_s)

    def come_back(client: _Client, now_s: float) -> None:
        client.ready += 1
        proceed(client, now_s)

    for client in clients:
        proceed(client, start_s)
    while events:
        now_s, _, action = heapq.heappop(events)
        action(now_s)
    return [arrival for arrival in arrivals if arrival.at_s < end_s]


def most_in_window(times_s: Sequence[float], window_s: float = 60.0) -> int:
    """The most times within any window, ends not both included."""
    times_s = sorted(times_s)
    most = first = 0
    for last, time_s in enumerate(times_s):
        while times_s[first] <= time_s - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def steady(per_minute: float) -> PerMinute:
    """A quota that stays."""
    return lambda _: per_minute


def changing(*steps: tuple[float, float]) -> PerMinute:
    """A quota of some size from some time on: pairs of time in seconds and requests per minute."""
    return lambda now_s: next(size for from_s, size in reversed(steps) if now_s >= from_s)


KINDS: dict[str, Callable[[PerMinute], Quota]] = {
    "sliding minute": SlidingMinute,
    "calendar minute": CalendarMinute,
    "bucket of 1 s": lambda per_minute: TokenBucket(per_minute, 1.0),
    "bucket of 10 s": lambda per_minute: TokenBucket(per_minute, 10.0),
    "bucket of 60 s": lambda per_minute: TokenBucket(per_minute, 60.0),
}


def print_quotas() -> None:
    """What a client that knows no quota uses of it, and how much of what it sends is refused."""
    duration_s = 600.0
    print("kind              a minute  window  latency_s  hints  used_%  refused_%  refused_%_after_3_min")
    for (name, kind), per_minute, in_flight, latency_s, has_hints in itertools.product(
        KINDS.items(), (120, 1000, 6000, 30000), (32, 128), (0.02, 0.1, 0.5), (False, True)
    ):
        if per_minute > 0.9 * 60 * in_flight / latency_s:
            continue  # the window is the limit
        arrivals = simulate(
            kind(steady(per_minute)),
            [LocalRate()],
            duration_s=duration_s,
            in_flight=in_flight,
            latency_s=latency_s,
            has_hints=has_hints,
        )
        used = sum(arrival.is_accepted for arrival in arrivals) / (per_minute * duration_s / 60)
        refused = [not arrival.is_accepted for arrival in arrivals]
        late = [not arrival.is_accepted for arrival in arrivals if arrival.at_s > arrivals[0].at_s + 180]
        print(
            f"{name:16} {per_minute:9} {in_flight:7} {latency_s:10} {'yes' if has_hints else 'no':>6} "
            f"{100 * used:7.1f} {100 * sum(refused) / len(refused):10.2f} {100 * sum(late) / len(late):10.2f}",
            flush=True,
        )


def print_chance(seeds: int = 4) -> None:
    """What a client gets through if refusals come by chance, of what it gets through without: the least and the middle."""
    print("latency_s  refusal_s  wakes_s  batches/s  refused_%  least_%  median_%")
    for latency_s, refusal_s, wakes_s, batches, fraction in itertools.product(
        (0.05, 0.3, 2.0), (None, 0.01), (0.0, 0.5, 2.0), (math.inf, 30.0, 5.0, 1.0), (0.005, 0.02, 0.1)
    ):
        shares = []
        for seed in range(seeds):
            without, disturbed = (
                sum(
                    arrival.is_accepted
                    for arrival in simulate(
                        RandomFaults(share, seed),
                        [LocalRate()],
                        duration_s=300.0,
                        in_flight=32,
                        latency_s=latency_s,
                        refusal_latency_s=refusal_s,
                        wakes_every_s=wakes_s,
                        batches_per_s=batches,
                        has_hints=True,
                        seed=seed,
                    )
                )
                for share in (0.0, fraction)
            )
            shares.append(100 * disturbed / without)
        quick = "same" if refusal_s is None else refusal_s
        print(
            f"{latency_s:9} {quick:>10} {wakes_s:8} {batches:10} {100 * fraction:10} "
            f"{min(shares):8.0f} {statistics.median(shares):9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    print_quotas()
    print_chance()
