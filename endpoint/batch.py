"""A submitted batch on its way: which part of it is sent next, and the results so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from endpoint.codec import Codec, Payload, TokenOf
from endpoint.errors import RunEnded
from endpoint.items import Item
from endpoint.predictions import Predictions
from endpoint.results import ClipResult, Embedded, Outcome, Refused


@dataclass(slots=True)
class Part:
    """Clips of a batch that go into one request, by their positions in it."""

    positions: Sequence[int]
    sends: int = 0
    """How often these clips were sent, in the larger requests before a split too."""
    failures: int = 0
    """How often in a row they were sent without being answered or rejected."""
    bad_answers: int = 0
    """How many of the last failures in a row were answers that could not be used."""
    not_retrieved: int = 0
    """How often the service could not read the objects of all of these clips."""
    sent_s: float = 0.0
    """When they were last sent, by the client's clock."""
    retry_code: str | None = None
    """Why it is to be sent again, if it is."""
    credentials: int = 0
    """Which renewal of the credentials it was last sent with."""
    was_unauthenticated: bool = False
    """Whether its last answer was that its credentials are not valid."""
    has_renewed_tokens: bool = False
    """Whether it, or what it is a part of, was rejected once, so that it goes with tokens fetched since."""
    rejected_s: float = math.inf
    """When it, or what it is a part of, was first rejected, by the client's clock."""
    others_were_answered: bool = False
    """Whether the rest of its request was answered, so that whatever it has wrong is its own."""

    def __len__(self) -> int:
        return len(self.positions)


class Batch:
    """The clips of one `submit`, in parts that are sent one after the other.

    A batch starts as one part. It is split in halves where that isolates a clip, and keeps its single place in the
    window then: never more than one of its parts is out. What was submitted is let go as soon as it is encoded: gRPC
    holds the bytes anyway while they are out, and they serve for sending again and for the parts.
    """

    def __init__(self, items: Sequence[Item], on_done: Callable[[Outcome], None], size_bytes: int = 0) -> None:
        self._items: tuple[Item, ...] = tuple(items)
        self._payload: Payload | None = None
        self._results: list[ClipResult | None] = [None] * len(items)
        self._parts = [Part(range(len(items)))]
        self._on_done = on_done
        self.size_bytes = size_bytes
        """Of a request with all of its clips, for the bound on memory."""
        self.requests = 0
        self.retries = 0

    @property
    def part(self) -> Part:
        """What is to be sent next, or is out."""
        return self._parts[-1]

    @property
    def is_finished(self) -> bool:
        """Whether every clip has its result."""
        return not self._parts

    def request(self, codec: Codec, token_of: TokenOf) -> bytes:
        """The request for the current part."""
        if self._payload is None:
            self._payload = codec.prepare(self._items)
            self._items = ()
        return self._payload.request(self.part.positions, token_of)

    def split(self, *, failures: int) -> None:
        """Replaces the current part by its halves; `failures` is the count that they start with."""
        part = self._parts.pop()
        middle = len(part) // 2
        for positions in (part.positions[middle:], part.positions[:middle]):
            self._parts.append(
                Part(
                    positions,
                    sends=part.sends,
                    failures=failures,
                    has_renewed_tokens=part.has_renewed_tokens,
                    rejected_s=part.rejected_s,
                    retry_code=part.retry_code,
                )
            )

    def embed(self, predictions: Predictions) -> None:
        """Settles those clips of the current part that have an embedding; the others stay its part."""
        part = self._parts.pop()
        left = []
        for place, position in enumerate(part.positions):
            if place in predictions.errors:
                left.append(position)
            else:
                self._results[position] = Embedded(predictions.embeddings[place], predictions.deployed_model_id)
        if left:
            part.positions = left
            self._parts.append(part)

    def refuse(self, code: str, message: str, retryable: bool, positions: Iterable[int] | None = None) -> None:
        """Settles these clips of the current part, or all of them, with the same refusal for each."""
        part = self._parts.pop()
        refused = set(part.positions if positions is None else positions)
        for position in refused:
            self._results[position] = Refused(code, message, retryable, attempts=part.sends)
        left = [position for position in part.positions if position not in refused]
        if left:
            part.positions = left
            self._parts.append(part)

    def finish(self, error: RunEnded | None = None) -> None:
        """Hands the outcome to whoever submitted the batch, and lets go of what was sent."""
        results = tuple(self._results)
        self._items, self._payload = (), None
        self._on_done(Outcome(results, self.requests, self.retries, error))
