"""Time and google-auth credentials under a test's control."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from google.auth.credentials import Credentials

from endpoint.token_source import TokenSource

SECRET = "ya29.planted-token"


class Time:
    """A monotonic clock and a wall clock, which go together until the wall clock is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_ahead_s = 1_700_000_000.0

    def clock(self) -> float:
        return self.now_s

    def wall_clock(self) -> float:
        return self.now_s + self.wall_ahead_s


class CountedCredentials(Credentials):  # type: ignore[misc]
    """google-auth credentials whose n-th token is SECRET-n.

    Args:
        time: when tokens expire by; None: they don't expire.
        lifetime_s: how long a token lives.
        failure: raised by refreshes as long as it is set.
    """

    def __init__(
        self, time: Time | None = None, lifetime_s: float = 3600, failure: BaseException | None = None
    ) -> None:
        super().__init__()
        self.time = time
        self.lifetime_s = lifetime_s
        self.failure = failure
        self.refreshes = 0
        self.refreshed_s: list[float] = []

    def refresh(self, request: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.refreshes += 1
        self.token = f"{SECRET}-{self.refreshes}"
        if self.time is not None:
            self.refreshed_s.append(self.time.now_s)
            expires = datetime.datetime.fromtimestamp(
                self.time.wall_clock() + self.lifetime_s, tz=datetime.timezone.utc
            )
            self.expiry = expires.replace(tzinfo=None)


def explain(status: int | None) -> str:
    return f"our own words ({status})"


def source_of(
    credentials: Credentials, time: Time, in_background: Callable[[Callable[[], None]], None] | None = None
) -> TokenSource:
    """A source by this time, whose background refreshes take place at once unless said otherwise."""
    return TokenSource(
        credentials,
        explain,
        clock=time.clock,
        wall_clock=time.wall_clock,
        in_background=in_background or (lambda function: function()),
    )
