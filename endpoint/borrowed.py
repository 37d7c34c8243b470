"""Credentials whose token is another source's: what google-auth exchanges for tokens of less, or of somebody else."""

from __future__ import annotations

from typing import Any, NoReturn

from google.auth.credentials import Credentials, TokenState

from endpoint.token_source import TokenSource


class BorrowedCredentials(Credentials):
    """Source credentials for google-auth's impersonation and downscoping.

    Given the real ones, they would refresh them for each token that they make, whether that is due or not.

    Args:
        source: whose tokens are handed on.
        margin_s: with how much of its life left the token that is made will be replaced.
    """

    def __init__(self, source: TokenSource, margin_s: float) -> None:
        super().__init__()
        self._source = source
        self._margin_s = margin_s

    @property
    def token_state(self) -> TokenState:
        """Never fresh: whether there must be a new one is for the source to know."""
        return TokenState.INVALID

    def refresh(self, request: Any) -> None:  # noqa: ARG002 - the source has its own
        """Takes the source's token; raises like `TokenSource.token`."""
        token = self._source.lasting_token(self._margin_s)
        self.token, self.expiry = token.value, self._source.expiry(token)

    def apply(self, headers: dict[str, str], token: str | None = None) -> None:
        """Puts the token on a request's headers, and the project that the source's requests are charged to."""
        self._source.apply(headers, token or self.token)

    def __copy__(self) -> BorrowedCredentials:
        # google-auth copies what it is given; there is nothing to keep apart, and `copy` would pickle.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("borrowed credentials are not pickled: a token would go with them")
