"""A token that is refreshed as rarely as possible, ahead of its expiry, by one thread at a time."""

from __future__ import annotations

import datetime
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from endpoint.errors import EndpointError, RunEnded, TokenUnavailable
from endpoint.token_request import TokenRequest

CALL_MARGIN_S = 30.0
"""How long a token must live that is read once, when a call begins."""

_PARENT_SLACK_S = 15.0
"""How much longer a parent's token must live than the token that is made of it: its lifetime comes in whole seconds."""
_PAUSE_S = 10.0
"""Between refreshes: a metadata server gives out the same token until shortly before its end."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 30.0
_SKEWED_LIFETIME_S = 300.0
"""What a new token is thought to live that is past its expiry by this machine's clock: the clock is wrong."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and when it came."""

    value: str = field(repr=False)
    minted_s: float
    """When it was had, by the source's clock."""
    minted_wall_s: float
    """The same in seconds since 1970."""
    lifetime_s: float
    """How long it lived then; infinite if it never expires."""


class TokenSource:
    """Tokens of one google-auth credentials object, for all threads of a process.

    `refresh` of the credentials is called here rather than left to google-auth, which refreshes 225 s before expiry
    whatever the lifetime (`google.auth._helpers.REFRESH_THRESHOLD`): of a token that lives 240 s each 15 s. Here a token
    is refreshed when it lives no longer than the margin of who asks, or has half of its life behind it if that is
    later; in the background while it will do for some more requests.

    The age of a token is taken by the monotonic clock or the wall clock, whichever moved more: the former stands still
    while a laptop sleeps, the latter can be set back.

    Args:
        credentials: google-auth's; used by this source only.
        explain: turns the HTTP status of a failure that does not pass (None: there was no answer) into a sentence.
        parent: the source whose token the credentials exchange, see `borrowed.BorrowedCredentials`.
        request: how google-auth reaches its services.
        clock: seconds that only go forward.
        wall_clock: seconds since 1970.
        in_background: runs a function without waiting for it.
    """

    def __init__(
        self,
        credentials: Any,
        explain: Callable[[int | None], str],
        *,
        parent: TokenSource | None = None,
        request: TokenRequest | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        in_background: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._credentials = credentials
        self._explain = explain
        self._parent = parent
        self._request = request if request is not None else TokenRequest()
        self._clock = clock
        self._wall_clock = wall_clock
        self._in_background = in_background or _start_thread
        self._state = threading.Condition()
        self._token: Token | None = None
        self._is_refreshing = False
        self._failures = 0
        self._failure: EndpointError | None = None
        self._next_try_s = -math.inf

    def token(self, margin_s: float = CALL_MARGIN_S) -> str:
        """A token that lives longer than `margin_s`, or what comes nearest to it.

        Waits for a refresh only where there is no token or it lives for less than half of the margin.

        Raises:
            TokenUnavailable: if there is none now, but may be later.
            RunEnded: if there is none, and waiting does not help; says what does.
        """
        return self._obtain(margin_s, 1 / 2, waits=False).value

    def lasting_token(self, margin_s: float) -> Token:
        """A token of which one is to be made that lives as long; waits for the refresh if it is due. Raises like `token`."""
        return self._obtain(margin_s + _PARENT_SLACK_S, 3 / 4, waits=True)

    def renew(self, minted_before_s: float) -> None:
        """Lets a token had before that time (the clock's) be replaced when one is next asked for; newer ones stay."""
        with self._state:
            if self._token is not None and self._token.minted_s < minted_before_s:
                self._token = None
        if self._parent is not None:
            # What was made of a revoked token is refused as well.
            self._parent.renew(minted_before_s)

    def apply(self, headers: dict[str, str], token: str) -> None:
        """Puts the token, and the project that is charged if there is one, on a request's headers."""
        self._credentials.apply(headers, token=token)

    def remaining_s(self, token: Token) -> float:
        """Seconds until the token expires; negative afterwards."""
        age_s = max(self._clock() - token.minted_s, self._wall_clock() - token.minted_wall_s)
        return token.lifetime_s - age_s

    def expiry(self, token: Token) -> datetime.datetime | None:
        """When the token expires, as google-auth has it: UTC without a time zone, None if never."""
        if math.isinf(token.lifetime_s):
            return None
        return datetime.datetime.fromtimestamp(
            self._wall_clock() + self.remaining_s(token), tz=datetime.timezone.utc
        ).replace(tzinfo=None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a source of tokens is not pickled: tokens and keys would go with it")

    def _obtain(self, margin_s: float, share: float, *, waits: bool) -> Token:
        while True:
            with self._state:
                token = self._token
                remaining_s = -math.inf if token is None else self.remaining_s(token)
                due_s = 0.0 if token is None else min(margin_s, token.lifetime_s * share)
                if token is not None and remaining_s > due_s:
                    return token
                is_dead_early = remaining_s <= 0 and not self._failures
                may_try = is_dead_early or self._clock() >= self._next_try_s
                if token is not None and remaining_s > (0.0 if not may_try else due_s / 2) and not (waits and may_try):
                    if may_try and not self._is_refreshing:
                        self._start_refresh()
                    return token
                if self._is_refreshing:
                    self._state.wait()
                    continue
                if not may_try:
                    self._raise_failure()
                self._is_refreshing = True
            self._refresh()

    def _start_refresh(self) -> None:
        self._is_refreshing = True
        try:
            self._in_background(self._refresh)
        except RuntimeError:
            # No more threads, as at the end of a process: whoever needs the next token will fetch it.
            self._is_refreshing = False

    def _refresh(self) -> None:
        token: Token | None = None
        failure: EndpointError = TokenUnavailable("No access token could be had: the refresh was interrupted.")
        try:
            token_or_failure = self._ask()
            if (
                isinstance(token_or_failure, RunEnded)
                and self._parent is not None
                and self._request.status in (400, 401)
            ):
                # The token that was to be exchanged may have been revoked.
                self._parent.renew(self._clock())
                token_or_failure = self._ask()
            if isinstance(token_or_failure, Token):
                token = token_or_failure
            else:
                failure = token_or_failure
        finally:
            with self._state:
                if token is not None:
                    self._token, self._failure, self._failures = token, None, 0
                    self._next_try_s = self._clock() + min(_PAUSE_S, token.lifetime_s / 2)
                else:
                    self._failure, self._failures = failure, self._failures + 1
                    delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 10))
                    self._next_try_s = self._clock() + delay_s
                self._is_refreshing = False
                self._state.notify_all()

    def _ask(self) -> Token | EndpointError:
        # The failure is returned, not raised here: it would drag google-auth's exception along, which can hold tokens.
        self._request.forget()
        try:
            self._credentials.refresh(self._request)
        except EndpointError as error:
            return type(error)(error.message)
        except Exception as error:  # noqa: BLE001 - whatever google-auth and its transport raise
            return self._failure_of(error)
        value, expiry = self._credentials.token, self._credentials.expiry
        if not isinstance(value, str) or not value:
            return TokenUnavailable("No access token could be had: the sign-in service answered without one.")
        wall_s = self._wall_clock()
        lifetime_s = math.inf
        if expiry is not None:
            lifetime_s = expiry.replace(tzinfo=datetime.timezone.utc).timestamp() - wall_s
            if lifetime_s <= 0:
                lifetime_s = _SKEWED_LIFETIME_S
        return Token(value, self._clock(), wall_s, lifetime_s)

    def _failure_of(self, error: Exception) -> EndpointError:
        if self._request.failure_passes(error):
            where = "could not be reached" if self._request.status is None else f"failed (HTTP {self._request.status})"
            return TokenUnavailable(f"No access token could be had: Google's sign-in service {where}.")
        return RunEnded(self._explain(self._request.status))

    def _raise_failure(self) -> NoReturn:
        failure = self._failure or TokenUnavailable("No access token could be had just now.")
        # A new one each time: tracebacks of several threads would pile up on a shared one.
        raise type(failure)(failure.message)


def _start_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="hear-token-refresh", daemon=True).start()
