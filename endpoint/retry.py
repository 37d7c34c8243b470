"""When a request is sent again, and how long it waits before that.

Predicting changes nothing on the service's side, so that sending again is always safe.
"""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # 429: over the quota
        grpc.StatusCode.INTERNAL,  # 500
        grpc.StatusCode.UNAVAILABLE,  # 502, 503; refused, reset and lost connections
        grpc.StatusCode.DEADLINE_EXCEEDED,  # 504, and our own time limit
        grpc.StatusCode.UNKNOWN,  # what gRPC makes of a stream that ends without a status
        grpc.StatusCode.CANCELLED,  # a stream that a proxy or the service cancelled; we never cancel one to go on
        grpc.StatusCode.ABORTED,  # a conflict inside the service
    }
)

_LONGEST_HINT_S = 600.0


def is_retryable(code: grpc.StatusCode) -> bool:
    """Whether the same request may be answered when it is sent again later.

    Yes for what passes (design.md 2.3): too many requests, a service or a connection that fails, an answer that comes
    too late. No for what a request or its sender has wrong: INVALID_ARGUMENT, PERMISSION_DENIED, NOT_FOUND and the
    like. UNAUTHENTICATED is no as well: it is worth one more try with new credentials, which is not a matter of
    waiting.
    """
    return code in _RETRYABLE


@dataclass(frozen=True)
class Backoff:
    """Exponential waiting with full jitter: after the n-th failure, anything up to `base_s * 2**(n - 1)` or `cap_s`.

    Full jitter spreads requests that failed together over the whole time, so that they do not come back together. With
    the defaults, eight attempts take 61 s on average: longer than the minute by which Vertex counts its quotas.
    """

    base_s: float = 1.0
    cap_s: float = 60.0

    def delay_s(self, failures: int, hint_s: float | None, rng: random.Random) -> float:
        """Seconds to wait after that many failures in a row (at least 1).

        A server's hint is a minimum: the jitter comes on top, for the same hint goes to many requests at once.
        """
        # Beyond 2**60 the cap always applies; the bound keeps the power from overflowing.
        ceiling_s = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))
        return (hint_s or 0.0) + rng.uniform(0.0, ceiling_s)


def retry_hint_s(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """The wait that a server asks for in a failed call's trailing metadata, in seconds; None if it asks for none.

    Reads `google.rpc.RetryInfo` in `grpc-status-details-bin`, and `retry-after`; the longer one counts, ten minutes at
    most. What cannot be read is no hint.
    """
    hints_s = [0.0]
    for key, value in trailing_metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            hints_s.append(_retry_info_s(value))
        elif key == "retry-after" and isinstance(value, str):
            hints_s.append(_retry_after_s(value, time.time()))
    return _bounded(max(hints_s))


def http_retry_hint_s(retry_after: str | None, details: object, now_s: float | None = None) -> float | None:
    """The same for a failed HTTP request.

    Args:
        retry_after: the header `Retry-After`: seconds, or a date.
        details: `error.details` of Google's errors as JSON.
        now_s: seconds since 1970 by the clock that a date is compared with; this machine's unless given.
    """
    hints_s = [_retry_after_s(retry_after or "", time.time() if now_s is None else now_s)]
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith("/google.rpc.RetryInfo"):
            # A Duration as JSON: seconds with up to nine decimals, and an s.
            hints_s.append(_seconds(str(detail.get("retryDelay")).removesuffix("s")))
    return _bounded(max(hints_s))


def _bounded(hint_s: float) -> float | None:
    return min(hint_s, _LONGEST_HINT_S) if hint_s > 0 else None


def _retry_info_s(details: bytes) -> float:
    info = error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        pass
    return 0.0


def _retry_after_s(value: str, now_s: float) -> float:
    try:
        # Dates that name no time zone are in UTC, as all of HTTP's are.
        date = email.utils.parsedate_tz(value)
        return email.utils.mktime_tz(date) - now_s if date is not None else _seconds(value)
    except (ValueError, OverflowError):
        return 0.0


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
