"""Clips on their way to the endpoint: put into the form in which they are sent, packed into requests, staged if need be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from endpoint.errors import RunEnded
from endpoint.items import ClipObject, Item
from endpoint.results import Outcome
from endpoint.settings import EndpointSettings
from endpoint.wav import encode_wav
from transforms.staging import Staged, Stager, StagingError, StagingRefused

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


OnDone = Callable[[Sequence[T], Outcome], None]
OnUnstaged = Callable[[T, StagingError], None]
Count = Callable[[str, int], None]


class ClipOutbox(Protocol[T_contra]):
    """What takes clips, with a ticket each, and gives every ticket back: an Outbox, which sends them, or what writes them down."""

    def add(self, ticket: T_contra, samples: npt.NDArray[np.float32]) -> None:
        """Takes a clip, float32 of shape (32000,)."""

    def add_object(self, ticket: T_contra, item: ClipObject) -> None:
        """Takes a clip that is on Cloud Storage already, in an object of its own."""

    def flush(self) -> None:
        """Passes on what there is."""

    def wait(self, at_most_s: float | None = None) -> None:
        """Waits until what was passed on is done with."""

    def abandon(self, *, wait_s: float) -> None:
        """Lets go of what was not passed on."""


OpenOutbox = Callable[[OnDone[T], OnUnstaged[T], Count], ClipOutbox[T]]
"""Makes an outbox from what it is to call: with tickets that are done with and their outcome, with the ticket of a clip that could
not be staged, and with names and numbers of what is to be counted."""


class Predictor(Protocol):
    """What is asked for embeddings: endpoint.client.Client, or a fake of it."""

    @property
    def max_instances(self) -> int:
        """Clips in a request at most."""

    @property
    def max_bytes(self) -> int:
        """What the clips of a request may come to."""

    def instance_bytes(self, item: Item) -> int:
        """What a clip takes up in a request."""

    def submit(self, items: Sequence[Item], on_done: Callable[[Outcome], None]) -> None:
        """Sends clips; blocks while too many requests are out; `on_done` is called once, on another thread."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    """A clip that waits for its request to be full."""

    ticket: T
    item: Item = field(repr=False)
    staged: Staged | None


class Outbox(Generic[T]):
    """Takes clips one by one, with a ticket each, and gives every ticket back with its result.

    Args:
      settings: in which form clips are sent.
      client: what is asked for embeddings.
      stager: puts clips on Cloud Storage, where URIs are sent; None where audio is.
      on_done: called once for each submitted batch, on the client's thread, with its clips' tickets and its outcome. It
        should be quick.
      on_unstaged: called for each clip that could not be staged, on the caller's thread.
      count: told of clipped samples and staged clips.

    `add`, `add_object`, `flush`, `abandon` and `wait` are called on one thread. Those that send raise what `submit` raises, and
    StagingRefused: what is refused for one clip is refused for all.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        client: Predictor,
        stager: Stager | None,
        on_done: OnDone[T],
        on_unstaged: OnUnstaged[T],
        count: Count,
    ) -> None:
        self._settings = settings
        self._client = client
        self._stager = stager
        self._on_done = on_done
        self._on_unstaged = on_unstaged
        self._count = count
        self._entries: list[_Entry[T]] = []
        self._bytes = 0
        self._changed = threading.Condition()
        self._submitted = 0

    def add(self, ticket: T, samples: npt.NDArray[np.float32]) -> None:
        """Takes a clip, float32 of shape (32000,); sends the request that it fills up. Blocks as `submit` does."""
        staged: Staged | None = None
        item: Item = samples
        if self._settings.send == "uris" or self._settings.instance_format == "model_garden":
            item = wav = encode_wav(samples)
            if wav.clipped_samples:
                self._count("clipped_samples", wav.clipped_samples)
            if self._settings.send == "uris":
                assert self._stager is not None
                staged = self._stager.put(wav.data)
                item = ClipObject(staged.bucket, staged.name)
                self._count("staged", 1)
        self._pack(_Entry(ticket, item, staged))

    def add_object(self, ticket: T, item: ClipObject) -> None:
        """Takes a clip that is on Cloud Storage already, in an object of its own."""
        self._pack(_Entry(ticket, item, None))

    def flush(self) -> None:
        """Sends what there is."""
        entries, self._entries, self._bytes = self._entries, [], 0
        ready: list[_Entry[T]] = []
        for entry in entries:
            error = entry.staged.result() if entry.staged is not None else None
            if error is None:
                ready.append(entry)
                continue
            self._remove([entry.staged])  # an upload whose answer was lost may be there
            if isinstance(error, StagingRefused):
                self._remove(other.staged for other in entries)
                raise error
            self._on_unstaged(entry.ticket, error)
        if not ready:
            return
        items = [entry.item for entry in ready]
        # Samples are let go: while a request is out, the client has them.
        staged = [entry.staged for entry in ready if entry.staged is not None]
        done = partial(self._done, [entry.ticket for entry in ready], staged)
        self._count_submitted(1)
        try:
            self._client.submit(items, done)
        except BaseException:
            self._count_submitted(-1)
            self._remove(staged)
            raise

    def abandon(self, *, wait_s: float) -> None:
        """Lets go of what was not sent, as the bundle has failed; waits so long for the answers to what was."""
        entries, self._entries, self._bytes = self._entries, [], 0
        self._remove(entry.staged for entry in entries)
        self.wait(wait_s)

    def wait(self, at_most_s: float | None = None) -> None:
        """Waits until all that was submitted is done, and what was staged for it is on its way out."""
        with self._changed:
            self._changed.wait_for(lambda: self._submitted == 0, at_most_s)

    def _pack(self, entry: _Entry[T]) -> None:
        try:
            size_bytes = self._client.instance_bytes(entry.item)
        except RunEnded:
            self._remove([entry.staged])
            raise
        if self._entries and self._bytes + size_bytes > self._client.max_bytes:
            self.flush()
        self._entries.append(entry)
        self._bytes += size_bytes
        if len(self._entries) >= self._client.max_instances:
            self.flush()

    def _done(self, tickets: Sequence[T], staged: Sequence[Staged], outcome: Outcome) -> None:
        try:
            self._on_done(tickets, outcome)
        finally:
            self._remove(staged)
            self._count_submitted(-1)

    def _count_submitted(self, by: int) -> None:
        with self._changed:
            self._submitted += by
            self._changed.notify_all()

    def _remove(self, staged: Iterable[Staged | None]) -> None:
        for one in staged:
            if one is not None and self._stager is not None:
                self._stager.remove(one)
