"""The rule of the canary: an endpoint that refuses everything must cost one request, not a run full of failures."""

from __future__ import annotations

REJECTIONS_IN_A_ROW = 20
"""So many rejections without an answer between them end the run."""
GIVE_UPS_IN_A_ROW = 20
"""At least so many requests in a row must have failed in all of their attempts until that ends the run."""
_REJECTIONS_BEFORE_CARE = 4


class Canary:
    """Decides whether requests may go out side by side, and when rejections mean that the endpoint itself is wrong.

    Until the endpoint has answered once, requests go one at a time (the first is the canary, and keeps its place while
    it waits to be sent again), and a rejection ends the run. Afterwards requests go side by side, and a rejection is a
    matter of the clips in it, until `REJECTIONS_IN_A_ROW` came without an answer between. To keep a series of bad
    clips, each in a batch of good ones, from being taken for a bad endpoint when dozens of batches are out at once,
    requests go one at a time again after the fourth rejection in a row; those that are out by then are not counted.
    Parts of a split batch go before other batches, so that one good clip in it is soon found, and its answer ends the
    series.

    Where it is known from elsewhere that the endpoint answers (`has_answered`), there is no canary from the start.

    An endpoint that has stopped answering ends the run too: after `give_ups` requests in a row that failed in all of
    their attempts, without an answer to any between.

    Requests are any objects, told apart by identity. Not thread-safe.
    """

    def __init__(self, give_ups: int = GIVE_UPS_IN_A_ROW, *, has_answered: bool = False) -> None:
        self._max_give_ups = give_ups
        self.has_answered = has_answered
        """Whether the endpoint has ever answered a request properly."""
        self._rejections = 0
        self._give_ups = 0
        self._alone: object | None = None

    @property
    def is_careful(self) -> bool:
        """Whether requests go one at a time."""
        return not self.has_answered or self._rejections >= _REJECTIONS_BEFORE_CARE

    def may_send(self, request: object) -> bool:
        """Whether this request may go out now."""
        return not self.is_careful or self._alone is None or self._alone is request

    def sent(self, request: object) -> None:
        """Notes that a request went out."""
        if self.is_careful:
            self._alone = request

    def answered(self, request: object) -> None:
        """Notes a proper answer."""
        self.has_answered = True
        self._rejections = 0
        self._give_ups = 0
        self._settle(request)

    def rejected(self, request: object) -> bool:
        """Notes a rejection; True if it must end the run."""
        counts = not self.is_careful or self._alone is request
        self._settle(request)
        self._rejections += counts
        return not self.has_answered or self._rejections >= REJECTIONS_IN_A_ROW

    def gave_up(self, request: object) -> bool:
        """Notes that a request is not sent again although it was never answered; True if that must end the run."""
        self._settle(request)
        self._give_ups += 1
        return not self.has_answered or self._give_ups >= self._max_give_ups

    def forget(self, request: object) -> None:
        """Notes that a request is done with, however that came."""
        self._settle(request)

    def _settle(self, request: object) -> None:
        if self._alone is request:
            self._alone = None
