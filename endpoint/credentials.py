"""Google credentials: the environment's own or those of an impersonated account, checked at the start, put on calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NoReturn

import google.auth
import google.auth.exceptions
import grpc
from google.auth import impersonated_credentials

from endpoint.borrowed import BorrowedCredentials
from endpoint.errors import RunEnded, TokenUnavailable
from endpoint.token_request import SignInRequest
from endpoint.token_source import CALL_MARGIN_S, TokenSource

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_REMEDY = (
    "sign in with `gcloud auth application-default login` (with --impersonate-service-account=ACCOUNT to act as a "
    "service account), or set GOOGLE_APPLICATION_CREDENTIALS to a valid credentials file"
)
_CHECK_ATTEMPTS = 3
_CHECK_PAUSE_S = 2.0


def default_credentials(
    service_account: str | None = None, *, clock: Callable[[], float] = time.monotonic
) -> TokenSource:
    """Tokens of the environment's application default credentials, or of an account that they impersonate.

    No token is fetched yet.

    Args:
        service_account: email address of the account to impersonate.
        clock: see `TokenSource`.

    Raises:
        RunEnded: if there are no credentials, with the way to get some.
    """
    credentials = None
    # google-auth's own words are left out: they can hold parts of a credentials file.
    with contextlib.suppress(google.auth.exceptions.GoogleAuthError, OSError, ValueError):
        credentials, _ = google.auth.default(scopes=[SCOPE], request=SignInRequest())
    if credentials is None:
        raise RunEnded(f"No usable Google credentials were found; {_REMEDY}.")
    source = TokenSource(credentials, _explain_refusal, clock=clock)
    return source if service_account is None else impersonated(source, service_account, clock=clock)


def impersonated(
    source: TokenSource, service_account: str, *, clock: Callable[[], float] = time.monotonic
) -> TokenSource:
    """Tokens of a service account, had with those of `source`, which needs the role Service Account Token Creator."""
    credentials = impersonated_credentials.Credentials(
        source_credentials=BorrowedCredentials(source, CALL_MARGIN_S),
        target_principal=service_account,
        target_scopes=[SCOPE],
    )

    def explain(status: int | None) -> str:
        reason = "" if status is None else f" (HTTP {status})"
        return (
            f"The service account {service_account} may not be impersonated with these credentials, or does not "
            f"exist{reason}; check its name, and grant your own account roles/iam.serviceAccountTokenCreator on it."
        )

    return TokenSource(credentials, explain, parent=source, clock=clock)


def check_credentials(*service_accounts: str | None, pause: Callable[[float], None] = time.sleep) -> None:
    """Gets a token for each account (None: the environment's own credentials), to know before a run that they work.

    Raises:
        RunEnded: if one cannot be had, with the remedy.
    """
    own = default_credentials()
    for account in dict.fromkeys(service_accounts or (None,)):
        source = own if account is None else impersonated(own, account)
        for attempt in range(1, _CHECK_ATTEMPTS + 1):
            try:
                source.token()
                break
            except TokenUnavailable as error:
                failure = error.message
            if attempt == _CHECK_ATTEMPTS:
                raise RunEnded(f"{failure} Check the network and its proxy settings, or try again later.")
            pause(_CHECK_PAUSE_S)


class CallCredentials(grpc.AuthMetadataPlugin):
    """Puts the authorization header on each call; gRPC asks it on threads of its own, and over TLS only.

    google-auth's own plugin is not used because it lets exceptions through, which gRPC logs with their text.
    """

    def __init__(self, source: TokenSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self.failure: RunEnded | None = None
        """Why the last attempt to get a token failed, if it was in a way that waiting does not mend."""

    @property
    def are_invalid(self) -> bool:
        """Whether the last attempt to get a token failed in a way that waiting does not mend."""
        return self.failure is not None

    def renew(self) -> None:
        """Lets the next call fetch a new token, however long the present one is said to live."""
        self._source.renew(self._clock())

    def authorization_headers(self) -> dict[str, str]:
        """Headers for a request, names in lower case: `authorization`, and `x-goog-user-project` where one is charged.

        Raises:
            TokenUnavailable, RunEnded: see `TokenSource.token`.
        """
        headers: dict[str, str] = {}
        try:
            token = self._source.token()
        except RunEnded as error:
            self.failure = error
            raise
        self.failure = None
        self._source.apply(headers, token)
        return {name.lower(): value for name, value in headers.items()}

    def __call__(
        self,
        context: grpc.AuthMetadataContext,  # noqa: ARG002 - the same headers for all calls
        callback: grpc.AuthMetadataPluginCallback,
    ) -> None:
        """Hands gRPC the headers for a call, or an error in our own words."""
        try:
            headers = self.authorization_headers()
        except Exception:  # noqa: BLE001 - whatever it is, gRPC must not see and log its text
            callback((), grpc.RpcError("no access token"))
        else:
            callback(tuple(headers.items()), None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("call credentials are not pickled: refresh tokens would go with them")


def _explain_refusal(status: int | None) -> str:
    reason = "" if status is None else f" (HTTP {status})"
    return f"Google did not accept the credentials{reason}; they may have expired or been revoked: {_REMEDY}."
