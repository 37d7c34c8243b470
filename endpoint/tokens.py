"""Bearer tokens with which a service reads clips from buckets: of little power, and fetched when a request is sent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from endpoint.items import ClipObject

if TYPE_CHECKING:
    from endpoint.token_source import TokenSource

PLACEHOLDER = "local-practice"
"""What stands in for a token where the storage server asks for none; no secret."""


@dataclass(frozen=True)
class BucketTokenSettings:
    """Whose tokens go with URIs, and what they may read. Holds no secrets; pickled to workers."""

    service_account: str | None = None
    """Impersonated for them; None: the environment's own credentials."""
    full_scope: bool = False
    """Whether they may do all that the account may, rather than read objects of one bucket."""
    staging: tuple[str, str] | None = None
    """Bucket and prefix of staged clips: tokens for objects there can read nothing else."""


class BearerTokens(Protocol):
    """Tokens for objects. Safe for all threads."""

    def token(self, item: ClipObject) -> str:
        """A token that can read the object and lives long enough for a request.

        Raises:
            TokenUnavailable: there is none just now; ask again later.
            RunEnded: there is none, and waiting does not help.
        """

    def renew(self, minted_before_s: float) -> None:
        """Lets tokens had before that time (the clock's) be replaced when next asked for; newer ones stay."""


class PlaceholderTokens:
    """For a storage server of one's own that asks for no token."""

    def token(self, item: ClipObject) -> str:  # noqa: ARG002 - one serves for all
        """See `BearerTokens.token`; always the same."""
        return PLACEHOLDER

    def renew(self, minted_before_s: float) -> None:
        """See `BearerTokens.renew`; there is nothing to renew."""


class BucketTokens:
    """Tokens of Google credentials, by default downscoped to reading the object's bucket, or the staging prefix in it.

    Credentials are looked for when the first token is asked for. There is one token for each bucket and prefix.

    Args:
        settings: whose tokens, and what they may read.
        margin_s: how long a token must live when it is handed out: as long as a request may take, and some.
        clock: that of the times given to `renew`.
        source: whose tokens are handed out or downscoped, in place of what the settings say.
    """

    def __init__(
        self,
        settings: BucketTokenSettings,
        margin_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        source: TokenSource | None = None,
    ) -> None:
        self._settings = settings
        self._margin_s = margin_s
        self._clock = clock
        self._lock = threading.Lock()
        self._source = source
        self._downscoped: dict[tuple[str, str], TokenSource] = {}

    def token(self, item: ClipObject) -> str:
        """See `BearerTokens.token`."""
        return self._source_for(item).token(self._margin_s)

    def renew(self, minted_before_s: float) -> None:
        """See `BearerTokens.renew`."""
        with self._lock:
            sources = [self._source, *self._downscoped.values()]
        for source in sources:
            if source is not None:
                source.renew(minted_before_s)

    def __reduce__(self) -> NoReturn:
        raise TypeError("bucket tokens are not pickled; make them in each process from their settings")

    def _source_for(self, item: ClipObject) -> TokenSource:
        with self._lock:
            if self._source is None:
                from endpoint.credentials import default_credentials

                self._source = default_credentials(self._settings.service_account, clock=self._clock)
            if self._settings.full_scope:
                return self._source
            staging = self._settings.staging
            is_staged = staging is not None and item.bucket == staging[0] and item.name.startswith(staging[1])
            key = (item.bucket, staging[1] if staging is not None and is_staged else "")
            if key not in self._downscoped:
                from endpoint.downscoping import downscoped

                self._downscoped[key] = downscoped(self._source, *key, margin_s=self._margin_s, clock=self._clock)
            return self._downscoped[key]


def bearer_tokens(
    settings: BucketTokenSettings,
    margin_s: float,
    *,
    is_loopback: bool,
    clock: Callable[[], float] = time.monotonic,
    source: TokenSource | None = None,
) -> BearerTokens:
    """The tokens that go with URIs.

    They are placeholders only where neither endpoint nor storage is a cloud's: an endpoint on loopback,
    STORAGE_EMULATOR_HOST, and no GOOGLE_APPLICATION_CREDENTIALS.

    Args:
        settings: see `BucketTokens`.
        margin_s: see there.
        is_loopback: whether the endpoint is this machine's own.
        clock: see `BucketTokens`.
        source: see `BucketTokens`.
    """
    is_practice = (
        is_loopback
        and bool(os.environ.get("STORAGE_EMULATOR_HOST"))
        and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    )
    return PlaceholderTokens() if is_practice else BucketTokens(settings, margin_s, clock=clock, source=source)
