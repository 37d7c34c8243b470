"""Counts of what was sent."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClientStats:
    """Counts since the client was made; a snapshot."""

    requests: int
    """Requests sent, retries and parts of split batches included."""
    retries: int
    """Requests that repeated one."""
    retries_by_code: Mapping[str, int]
    """Why: gRPC status names such as `RESOURCE_EXHAUSTED`, and `BAD_ANSWER`."""
    rejections: int
    """Answers that refused a request as invalid."""
    throttled_s: float
    """Seconds, by the clock, during which a request waited because the service had answered RESOURCE_EXHAUSTED."""
    bytes_sent: int
    """Size of the requests before compression and framing."""
    requests_in_flight: int
    """Requests without an answer now."""
    requests_in_flight_peak: int
    """Most requests without an answer at one time."""
    waited_s: float = 0.0
    """Seconds that callers waited for a place in flight, added up over their threads."""


_KEPT_LATENCIES = 100_000
"""Older ones are dropped where nobody asks for them."""


@dataclass
class Counters:
    """The same counts, growing; for one thread."""

    requests: int = 0
    rejections: int = 0
    bytes_sent: int = 0
    in_flight: int = 0
    in_flight_peak: int = 0
    throttled_s: float = 0.0
    retries_by_code: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))
    """From sending to the reply, whatever it was; for any other thread to take from its left end."""
    _throttled_until: float = float("-inf")

    def sent(self, request_bytes: int) -> None:
        """Counts a request that goes out."""
        self.requests += 1
        self.bytes_sent += request_bytes
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def answered(self, latency_s: float) -> None:
        """Counts a request that came back, with whatever answer."""
        self.in_flight -= 1
        self.latencies_ms.append(round(1000 * latency_s))

    def throttled(self, now: float, until: float) -> None:
        """Counts the time from `now` to `until`, but for what waits of other requests have covered."""
        self.throttled_s += max(0.0, until - max(now, self._throttled_until))
        self._throttled_until = max(until, self._throttled_until)

    def snapshot(self, waited_s: float = 0.0) -> ClientStats:
        """The counts so far, and what is counted elsewhere."""
        by_code = dict(self.retries_by_code)
        return ClientStats(
            requests=self.requests,
            retries=sum(by_code.values()),
            retries_by_code=by_code,
            rejections=self.rejections,
            throttled_s=self.throttled_s,
            bytes_sent=self.bytes_sent,
            requests_in_flight=self.in_flight,
            requests_in_flight_peak=self.in_flight_peak,
            waited_s=waited_s,
        )
