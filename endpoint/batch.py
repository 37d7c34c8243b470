"""A submitted batch on its way: which part of it is sent next, and the results so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from endpoint.errors import RunEnded
from endpoint.results import ClipResult, Embedded, Outcome, Refused
from endpoint.wire import Predictions, encode_predict_request, part_of_request


@dataclass(slots=True)
class Part:
    """Neighbouring clips of a batch that go into one request."""

    start: int
    stop: int
    sends: int = 0
    """How often these clips were sent, in the larger requests before a split too."""
    failures: int = 0
    """How often in a row they were sent without being answered or rejected."""
    bad_answers: int = 0
    """How many of the last failures in a row were answers that could not be used."""
    retry_code: str | None = None
    """Why it is to be sent again, if it is."""
    credentials: int = 0
    """Which renewal of the credentials it was last sent with."""
    was_unauthenticated: bool = False
    """Whether its last answer was that its credentials are not valid."""

    def __len__(self) -> int:
        return self.stop - self.start


class Batch:
    """The clips of one `submit`, in parts that are sent one after the other.

    A batch starts as one part. It is split in halves where that isolates a clip, and keeps its single place in the
    window then: never more than one of its parts is out. Samples are let go as soon as the first request is encoded:
    gRPC holds its bytes anyway while it is out, and they serve for sending again and for the parts.
    """

    def __init__(self, clips: Sequence[npt.NDArray[np.float32]], on_done: Callable[[Outcome], None]) -> None:
        self._clips: tuple[npt.NDArray[np.float32], ...] = tuple(clips)
        self._request = b""
        self._results: list[ClipResult | None] = [None] * len(clips)
        self._parts = [Part(0, len(clips))]
        self._on_done = on_done
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

    def request(self, endpoint: str) -> bytes:
        """The request for the current part."""
        if self._clips:
            self._request = encode_predict_request(endpoint, self._clips)
            self._clips = ()
        return part_of_request(self._request, len(self._results), self.part.start, self.part.stop)

    def split(self, *, failures: int) -> None:
        """Replaces the current part by its halves; `failures` is the count that they start with."""
        part = self._parts.pop()
        middle = (part.start + part.stop) // 2
        for start, stop in ((middle, part.stop), (part.start, middle)):
            self._parts.append(Part(start, stop, sends=part.sends, failures=failures))

    def embed(self, predictions: Predictions) -> None:
        """Settles the current part with its embeddings."""
        part = self._parts.pop()
        for position, embedding in zip(range(part.start, part.stop), predictions.embeddings, strict=True):
            self._results[position] = Embedded(embedding, predictions.deployed_model_id)

    def refuse(self, code: str, message: str, *, retryable: bool) -> None:
        """Settles the current part with the same refusal for each clip."""
        part = self._parts.pop()
        for position in range(part.start, part.stop):
            self._results[position] = Refused(code, message, retryable, attempts=part.sends)

    def finish(self, error: RunEnded | None = None) -> None:
        """Hands the outcome to whoever submitted the batch, and lets go of what was sent."""
        results = () if error else tuple(result for result in self._results if result is not None)
        self._clips, self._request = (), b""
        self._on_done(Outcome(results, self.requests, self.retries, error))
