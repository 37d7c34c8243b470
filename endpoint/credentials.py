"""Google credentials for calls: fetched when a request is sent, one at a time, and renewed when they are refused."""

from __future__ import annotations

import threading
from typing import Any

import google.auth
import google.auth.exceptions
import grpc
import requests
from google.auth.transport.requests import Request

from endpoint.errors import RunEnded

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def default_credentials() -> Any:
    """The environment's application default credentials.

    Raises:
        RunEnded: if there are none, with the way to get some.
    """
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except google.auth.exceptions.GoogleAuthError:
        # google-auth's own words are left out: they can hold parts of a credentials file.
        raise RunEnded(
            "No usable Google credentials were found; sign in with `gcloud auth application-default login` "
            "(with --impersonate-service-account=ACCOUNT to act as a service account), or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a valid credentials file."
        ) from None
    return credentials


class CallCredentials(grpc.AuthMetadataPlugin):
    """Puts the authorization header on each call; gRPC asks it on threads of its own, and over TLS only.

    google-auth's own plugin is not used because it lets exceptions through, which gRPC logs with their text, and
    because calls that find the token expired would each fetch a new one.
    """

    def __init__(self, credentials: Any, request: Any = None) -> None:
        self._credentials = credentials
        self._request = request if request is not None else _token_request()
        self._lock = threading.Lock()
        self._must_refresh = False
        self.are_invalid = False
        """Whether the last attempt to get a token failed in a way that waiting does not mend."""

    def renew(self) -> None:
        """Lets the next call fetch a new token, however long the present one is said to live."""
        self._must_refresh = True

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Hands gRPC the headers for a call, or an error in our own words."""
        try:
            headers = self._headers(context)
        except Exception as error:  # noqa: BLE001 - whatever it is, gRPC must not see and log its text
            self.are_invalid = isinstance(error, google.auth.exceptions.RefreshError) and not error.retryable
            callback((), grpc.RpcError("no access token"))
        else:
            callback(tuple((name.lower(), value) for name, value in headers.items()), None)

    def _headers(self, context: grpc.AuthMetadataContext) -> dict[str, str]:
        headers: dict[str, str] = {}
        with self._lock:
            if self._must_refresh:
                self._credentials.refresh(self._request)
                self._must_refresh = False
            self._credentials.before_request(self._request, "POST", context.service_url, headers)
            self.are_invalid = False
        return headers

    def __reduce__(self) -> Any:
        raise TypeError("call credentials are not pickled: refresh tokens would go with them")


def _token_request() -> Request:
    session = requests.Session()
    # Any `auth` keeps `requests` from replacing authorization headers by what .netrc holds; proxies stay in use.
    session.auth = lambda prepared: prepared
    return Request(session)
