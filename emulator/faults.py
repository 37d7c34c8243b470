"""Faults on purpose: which request gets which, decided by a seed and the request's number, whatever the order of work.

A specification is one line of `key=value`, separated by commas:

    seed=7,429=0.10,503=0.05,500=0.01,reset=0.02,timeout=0.01,echo=0.01,short=0.01,nan=0.01,slow=0.05

Rates are shares of the arriving requests; a request gets at most one fault. Those before `short` come before the
request is looked at, the last three only change how an accepted request is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from emulator.refusals import ConnectionLostError, RefusalError, UnansweredError
from emulator.specification import Reader, count, divisor, drawn, read_specification, seconds, share

RATES = ("429", "503", "500", "reset", "timeout", "echo", "short", "nan", "slow")
"""The faults that are drawn, in the order in which they share the numbers from 0 to 1."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often.

    Attributes:
        seed: other seeds choose other requests.
        rates: share of the requests for each of `RATES` that is not 0.
        retry_s: what RetryInfo says beside a drawn 429.
        slow_s: how much longer a slow answer takes.
        timeout_s: how long a request that is never answered is held.
        deny_after: every request after the first so many is PERMISSION_DENIED; None never.
        unauthenticated_after: as `deny_after`, UNAUTHENTICATED.
        missing_after: as `deny_after`, NOT_FOUND.
        reject_clips: beginnings of digests (`emulator.digests`) of clips that are always rejected.
        reject_every: a clip whose 16-bit digest, read as a number, this divides is always rejected; None: none is.
        too_large_above: a request for more predictions is refused as the response would be too large; None: none is.
    """

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    retry_s: float = 1.0
    slow_s: float = 1.0
    timeout_s: float = 60.0
    deny_after: int | None = None
    unauthenticated_after: int | None = None
    missing_after: int | None = None
    reject_clips: tuple[str, ...] = ()
    reject_every: int | None = None
    too_large_above: int | None = None

    def drawn(self, number: int) -> str | None:
        """The fault of the request with this number: one of `RATES`, or None."""
        return drawn(self.rates, RATES, share(self.seed, "fault", number))

    def chosen(self, number: int, count: int) -> int:
        """Which of `count` things a fault of this request is done to, 0 to count - 1."""
        return int(share(self.seed, "place", number) * count)

    def lost(self, number: int, endpoint: str) -> tuple[str, RefusalError] | None:
        """The fault that holds from some request on, and the refusal it means; None if this one is still before it."""
        if self.unauthenticated_after is not None and number > self.unauthenticated_after:
            message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
            return "unauthenticated", RefusalError(grpc.StatusCode.UNAUTHENTICATED, message)
        if self.deny_after is not None and number > self.deny_after:
            message = f"Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/{endpoint}'."
            return "deny", RefusalError(grpc.StatusCode.PERMISSION_DENIED, message)
        if self.missing_after is not None and number > self.missing_after:
            return "missing", RefusalError(grpc.StatusCode.NOT_FOUND, f"Endpoint `{endpoint}` not found.")
        return None

    def refusal(self, fault: str, instances: list[Any]) -> RefusalError | None:
        """What a request with this fault is refused with; None for the faults of accepted ones."""
        if fault == "429":
            message = "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model."
            return RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, self.retry_s)
        if fault == "503":
            return RefusalError(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
        if fault == "500":
            return RefusalError(grpc.StatusCode.INTERNAL, "Internal error encountered.")
        if fault == "reset":
            return ConnectionLostError()
        if fault == "timeout":
            return UnansweredError()
        if fault == "echo":
            return RefusalError(grpc.StatusCode.INTERNAL, f"Internal error. Request was: {_echo(instances)}")
        return None

    @property
    def rejects_clips(self) -> bool:
        """Whether there are clips to reject, so that digests are needed."""
        return bool(self.reject_clips) or self.reject_every is not None

    def rejects(self, digest: str, digest_16_bit: str) -> bool:
        """Whether the clip with these digests is always rejected."""
        if self.reject_every is not None and int(digest_16_bit, 16) % self.reject_every == 0:
            return True
        return digest.startswith(self.reject_clips) or digest_16_bit.startswith(self.reject_clips)

    def is_too_large(self, predictions: int) -> bool:
        """Whether a response of so many predictions is refused."""
        return self.too_large_above is not None and predictions > self.too_large_above


def parse_faults(text: str) -> Faults:
    """Reads a specification.

    Raises:
        ValueError: in one line, which part is wrong and what is expected.
    """
    rates, values = read_specification(text, RATES, _READERS)
    return Faults(rates=rates, **values)


def _digest_prefixes(key: str, value: str) -> tuple[str, ...]:
    prefixes = tuple(value.split(";"))
    if not all(0 < len(prefix) <= 16 and set(prefix) <= set("0123456789abcdef") for prefix in prefixes):
        raise ValueError(f"{key}={value} names no digests: expected 1 to 16 lower-case hex digits each, separated by ;")
    return prefixes


_READERS: dict[str, Reader] = {
    "seed": count,
    "retry_s": seconds,
    "slow_s": seconds,
    "timeout_s": seconds,
    "deny_after": count,
    "unauthenticated_after": count,
    "missing_after": count,
    "reject_clips": _digest_prefixes,
    "reject_every": divisor,
    "too_large_above": count,
}


def _echo(instances: list[Any]) -> str:
    """What a careless service says of a request: the beginning of each instance, samples and tokens included."""
    return "; ".join(
        str({key: _beginning(value) for key, value in instance.items()})
        if isinstance(instance, dict)
        else str(_beginning(instance))
        for instance in instances[:4]
    )[:4000]


def _beginning(value: Any) -> Any:
    """A text as it is, of a list of numbers the first."""
    return [float(number) for number in value[:8]] if isinstance(value, np.ndarray) else str(value)[:200]
