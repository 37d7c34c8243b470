"""Endpoints that are none: they answer when the test says so, from another thread as the real client does."""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from endpoint.errors import RunEnded
from endpoint.results import ClipResult, Embedded, Outcome, Refused

MODEL = "deployed-7"


def embedding_of(samples: np.ndarray) -> np.ndarray:
    """What these endpoints answer: a clip's first 512 samples."""
    return samples[:512].copy()


def embed(samples: np.ndarray) -> ClipResult:
    """The answer to a clip that is not refused."""
    return Embedded(embedding_of(samples), MODEL)


def refuse(samples: np.ndarray) -> ClipResult:
    """The answer to a clip that is refused."""
    return Refused("rejected", "the endpoint rejected this clip as invalid", retryable=False, attempts=3)


@dataclass
class Request:
    """A batch that waits for its answer. The samples themselves are not kept."""

    results: tuple[ClipResult, ...]
    on_done: Callable[[Outcome], None]
    samples: list["weakref.ref[np.ndarray]"]

    def answer(self, *, requests: int = 1, retries: int = 0, results: tuple[ClipResult, ...] | None = None) -> None:
        """Gives the outcome, from another thread."""
        self._call(Outcome(self.results if results is None else results, requests, retries))

    def end(self, error: RunEnded) -> None:
        """Gives the outcome of a run that has ended, from another thread."""
        self._call(Outcome((None,) * len(self.results), 1, 0, error))

    def _call(self, outcome: Outcome) -> None:
        thread = threading.Thread(target=self.on_done, args=(outcome,))
        thread.start()
        thread.join()


class FakeEndpoint:
    """Takes batches and keeps them as `requests` until the test answers them.

    Args:
      max_instances: clips in a request at most.
      judge: the result for a clip's samples.
      ends_after: `submit` raises RunEnded after so many batches.
    """

    max_bytes = 1_500_000

    def __init__(
        self,
        judge: Callable[[np.ndarray], ClipResult] = embed,
        ends_after: int | None = None,
        max_instances: int = 4,
    ) -> None:
        self.requests: list[Request] = []
        self.max_instances = max_instances
        self._judge = judge
        self._ends_after = ends_after

    def instance_bytes(self, clip: np.ndarray) -> int:
        return 11 * len(clip)

    def submit(self, clips: Sequence[np.ndarray], on_done: Callable[[Outcome], None]) -> None:
        if len(self.requests) == self._ends_after:
            raise RunEnded("the endpoint is not there: check --endpoint")
        assert clips
        for clip in clips:
            assert (clip.shape, clip.dtype) == ((32000,), np.float32)
        self.requests.append(Request(tuple(map(self._judge, clips)), on_done, list(map(weakref.ref, clips))))


class PromptEndpoint(FakeEndpoint):
    """Answers each batch before `submit` returns."""

    def submit(self, clips: Sequence[np.ndarray], on_done: Callable[[Outcome], None]) -> None:
        super().submit(clips, on_done)
        self.requests[-1].answer()
