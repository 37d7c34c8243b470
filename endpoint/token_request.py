"""How google-auth reaches the services that give out tokens: quickly given up, past .netrc, and what came of it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request

_TIMEOUT_S = 20.0
"""Of each attempt to connect and to read. google-auth's own is 120 s."""
_METADATA_TIMEOUT_S = 1.0
_METADATA_HOST = "169.254.169.254"
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class TokenRequest(Request):
    """google-auth's own transport, which remembers how the last request ended. For one thread at a time."""

    def __init__(self) -> None:
        session = requests.Session()
        # Any `auth` keeps `requests` from replacing authorization headers by what .netrc holds; proxies stay in use.
        session.auth = lambda prepared: prepared
        super().__init__(session)
        self.forget()

    def forget(self) -> None:
        """Begins anew, before the requests of one refresh."""
        self.status: int | None = None
        """HTTP status of the last answer; None if the last request was not answered, or there was none."""
        self._is_unanswered = False

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Any = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """See google-auth's `Request`."""
        self.status, self._is_unanswered = None, True
        response = super().__call__(
            url, method=method, body=body, headers=headers, timeout=min(timeout or _TIMEOUT_S, _TIMEOUT_S), **options
        )
        self.status, self._is_unanswered = response.status, False
        return response

    def failure_passes(self, error: Exception) -> bool:
        """Whether a refresh that raised this may succeed later.

        What google-auth marks as retryable is only a part of it: errors of impersonation and of token exchange bear no
        mark, whatever their status.
        """
        if isinstance(error, GoogleAuthError):
            return (
                error.retryable
                or isinstance(error, TransportError)
                or self._is_unanswered
                or self.status in _PASSING_STATUSES
            )
        # A missing CA bundle is an OSError; anything else is an answer that could not be read.
        return not isinstance(error, OSError)


class SignInRequest(TokenRequest):
    """For `google.auth.default`: where there is no metadata server, the search for one ends within a second."""

    def __call__(self, url: str, *args: Any, **options: Any) -> Any:
        """See google-auth's `Request`."""
        if urlsplit(url).hostname == _METADATA_HOST and not _is_metadata_server_near():
            # google-auth's ping catches a TransportError and tries three times, for 12 s and more.
            raise DefaultCredentialsError("no metadata server")
        return super().__call__(url, *args, **options)


def _is_metadata_server_near() -> bool:
    try:
        if _PRODUCT_NAME.read_text().startswith("Google"):
            return True
    except OSError:
        pass
    try:
        socket.create_connection((_METADATA_HOST, 80), _METADATA_TIMEOUT_S).close()
    except OSError:
        return False
    return True
