"""Whether a rejection may be the token's fault rather than the object's: URIs are rejected for both alike."""

from __future__ import annotations

import math
from collections.abc import Callable

from endpoint.batch import Part
from endpoint.tokens import BearerTokens


class TokenDoubt:
    """Lets rejected parts go with newer tokens, but not for ever: many bad objects are to cost few tokens.

    The first time a part is rejected, what is sent again of it goes with tokens fetched since. Once one was rejected with
    these as well, so that it was the object, tokens are doubted only where the parts of a rejected request are rejected
    too, and no request sent since the first rejection was answered. Not thread-safe.

    Args:
        tokens: what the service reads objects with; None where audio is sent, and nothing is doubted.
        clock: seconds, never running backwards.
    """

    def __init__(self, tokens: BearerTokens | None, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._are_trusted = False
        self._renewed_s = -math.inf
        self._answered_sent_s = -math.inf
        """When the newest of the answered requests was sent."""

    def answered(self, sent_s: float) -> None:
        """Notes a proper answer to a request sent at that time."""
        self._answered_sent_s = max(self._answered_sent_s, sent_s)

    def rejected(self, part: Part) -> bool:
        """Notes a rejection; True if the part is to be sent again because it will go with newer tokens."""
        return self._may_be_token(part) and self.renew(part)

    def renew(self, part: Part) -> bool:
        """Lets a part go with newer tokens from now on; False where that was done, or there are none."""
        if self._tokens is None:
            return False
        if part.has_renewed_tokens:
            # It was not the token.
            self._are_trusted = True
            return False
        part.has_renewed_tokens = True
        self._renewed_s = self._clock()
        self._tokens.renew(part.sent_s)
        return True

    def _may_be_token(self, part: Part) -> bool:
        is_first = math.isinf(part.rejected_s)
        part.rejected_s = min(part.rejected_s, self._clock())
        if not self._are_trusted or part.sent_s <= self._renewed_s:
            return True
        is_answered = self._answered_sent_s >= part.rejected_s
        return not is_answered and (not is_first or len(part) == 1)
