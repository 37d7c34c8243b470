"""Clips on their way: packed into requests by number and size, staged and removed again, none lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from endpoint.errors import RunEnded
from endpoint.items import ClipObject, Item, WavClip
from endpoint.results import Embedded, Outcome
from endpoint.settings import EndpointSettings
from transforms.outbox import Outbox
from transforms.staging import StagingError, StagingRefused

NAME = "projects/p/locations/l/endpoints/1"
RESEARCH = EndpointSettings(NAME, "127.0.0.1:9")
GARDEN = EndpointSettings(NAME, "127.0.0.1:9", instance_format="model_garden")
URIS = EndpointSettings(NAME, "127.0.0.1:9", send="uris")


def samples(number: int) -> np.ndarray:
    return np.full(32000, number / 32768, np.float32)


class FakeStaged:
    def __init__(self, name: str, data: bytes, error: StagingError | None) -> None:
        self.bucket, self.name, self.data, self.error = "staging", name, data, error

    def result(self) -> StagingError | None:
        return self.error


class FakeStager:
    """A bucket in memory. `errors` says which of its uploads fail, by their number."""

    def __init__(self, errors: dict[int, StagingError] | None = None) -> None:
        self.all: list[FakeStaged] = []
        self.removed: list[FakeStaged] = []
        self._errors = errors or {}

    def put(self, wav: bytes) -> FakeStaged:
        number = len(self.all)
        self.all.append(FakeStaged(f"{number}.wav", wav, self._errors.get(number)))
        return self.all[-1]

    def remove(self, staged: FakeStaged) -> None:
        self.removed.append(staged)


class FakeClient:
    """Keeps what is submitted until it is answered: the embedding of an item is its number in `submitted`."""

    def __init__(self, max_instances: int = 4, max_bytes: int = 10**9, item_bytes: int = 1) -> None:
        self.max_instances = max_instances
        self.max_bytes = max_bytes
        self.item_bytes = item_bytes
        self.submitted: list[tuple[Sequence[Item], Callable[[Outcome], None]]] = []
        self.ended = False

    def instance_bytes(self, item: Item) -> int:
        return self.item_bytes

    def submit(self, items: Sequence[Item], on_done: Callable[[Outcome], None]) -> None:
        if self.ended:
            raise RunEnded("over")
        self.submitted.append((items, on_done))

    def answer(self, error: RunEnded | None = None) -> None:
        pending, self.submitted = self.submitted, []
        for items, on_done in pending:
            results = tuple(None if error else Embedded(np.zeros(512, np.float32), "7") for _ in items)
            thread = threading.Thread(target=on_done, args=(Outcome(results, 1, 0, error),))
            thread.start()
            thread.join()


class Desk:
    """What an outbox reports to."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, Any]] = []
        self.unstaged: list[tuple[int, str]] = []
        self.ended: list[int] = []
        self.counts: dict[str, int] = {}

    def on_done(self, tickets: Sequence[int], outcome: Outcome) -> None:
        if outcome.error is not None:
            self.ended += tickets
            return
        self.done += zip(tickets, outcome.results, strict=True)

    def on_unstaged(self, ticket: int, error: StagingError) -> None:
        self.unstaged.append((ticket, error.code))

    def count(self, name: str, by: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    @property
    def tickets(self) -> list[int]:
        return [ticket for ticket, _ in self.done]


def outbox(
    settings: EndpointSettings, client: FakeClient, stager: FakeStager | None = None
) -> tuple[Outbox[int], Desk]:
    desk = Desk()
    return Outbox(settings, client, stager, desk.on_done, desk.on_unstaged, desk.count), desk  # type: ignore[arg-type]


def test_audio_for_research_endpoints_goes_as_it_is() -> None:
    client = FakeClient()
    box, desk = outbox(RESEARCH, client)
    clips = [samples(number) for number in range(6)]
    for number, clip in enumerate(clips):
        box.add(number, clip)
    box.flush()
    assert [[item is clips[k] for k, item in enumerate(items)] for items, _ in client.submitted[:1]] == [[True] * 4]
    assert [len(items) for items, _ in client.submitted] == [4, 2]
    client.answer()
    assert desk.tickets == list(range(6))


def test_audio_for_model_garden_goes_as_wav_and_clipped_samples_are_counted() -> None:
    client = FakeClient(max_instances=10**9, max_bytes=5, item_bytes=2)
    box, desk = outbox(GARDEN, client)
    loud = samples(1)
    loud[:3] = 1.5
    for number in range(5):
        box.add(number, loud)
    box.flush()
    assert [len(items) for items, _ in client.submitted] == [2, 2, 1]
    item = client.submitted[0][0][0]
    assert isinstance(item, WavClip)
    assert np.frombuffer(item.data[44:], "<i2")[:4].tolist() == [32767, 32767, 32767, 1]
    assert desk.counts == {"clipped_samples": 15}


def test_staged_clips_go_by_uri_and_are_removed_when_they_are_answered() -> None:
    client, stager = FakeClient(max_instances=640), FakeStager()
    box, desk = outbox(URIS, client, stager)
    for number in range(3):
        box.add(number, samples(number))
    box.add_object(3, ClipObject("clinic", "cough.wav"))
    box.flush()
    ((items, _),) = client.submitted
    assert items == [
        *(ClipObject("staging", f"{number}.wav") for number in range(3)),
        ClipObject("clinic", "cough.wav"),
    ]
    assert [np.frombuffer(staged.data[44:], "<i2")[0] for staged in stager.all] == [0, 1, 2]
    assert stager.removed == []
    client.answer()
    assert desk.tickets == [0, 1, 2, 3]
    assert stager.removed == stager.all
    assert desk.counts == {"staged": 3}


def test_a_clip_that_cannot_be_staged_fails_by_itself_and_what_may_be_there_is_removed() -> None:
    client, stager = FakeClient(max_instances=640), FakeStager({1: StagingError("lost")})
    box, desk = outbox(URIS, client, stager)
    for number in range(3):
        box.add(number, samples(number))
    box.flush()
    client.answer()
    assert desk.unstaged == [(1, "staging_error")]
    assert desk.tickets == [0, 2]
    assert {staged.name for staged in stager.removed} == {"0.wav", "1.wav", "2.wav"}


def test_a_bucket_that_refuses_ends_the_run_and_leaves_nothing() -> None:
    client, stager = FakeClient(max_instances=640), FakeStager({1: StagingRefused("no right")})
    box, _ = outbox(URIS, client, stager)
    for number in range(3):
        box.add(number, samples(number))
    with pytest.raises(StagingRefused):
        box.flush()
    assert client.submitted == []
    assert set(stager.removed) == set(stager.all)


def test_what_was_not_sent_is_removed_when_the_run_ends() -> None:
    client, stager = FakeClient(max_instances=2), FakeStager()
    box, desk = outbox(URIS, client, stager)
    for number in range(3):
        box.add(number, samples(number))
    client.ended = True
    with pytest.raises(RunEnded):
        box.add(3, samples(3))
    assert {staged.name for staged in stager.removed} == {"2.wav", "3.wav"}
    client.answer(RunEnded("over"))
    assert desk.ended == [0, 1]
    assert set(stager.removed) == set(stager.all)


def test_abandoned_clips_are_removed() -> None:
    client, stager = FakeClient(max_instances=640), FakeStager()
    box, _ = outbox(URIS, client, stager)
    box.add(0, samples(0))
    box.abandon(wait_s=0.0)
    assert stager.removed == stager.all
    box.flush()
    assert client.submitted == []


@examples(max_examples=50, deadline=None)
@given(
    count=st.integers(0, 40),
    max_instances=st.integers(1, 9),
    max_bytes=st.integers(1, 30),
    item_bytes=st.integers(1, 12),
    failing=st.sets(st.integers(0, 39)),
)
def test_each_clip_has_one_outcome_within_the_limits(
    count: int, max_instances: int, max_bytes: int, item_bytes: int, failing: set[int]
) -> None:
    client = FakeClient(max_instances, max_bytes, item_bytes)
    stager = FakeStager({number: StagingError("lost") for number in failing})
    box, desk = outbox(URIS, client, stager)
    for number in range(count):
        box.add(number, samples(number))
    box.flush()
    for items, _ in client.submitted:
        assert 1 <= len(items) <= max_instances
        assert len(items) == 1 or len(items) * item_bytes <= max_bytes
    client.answer()
    assert sorted([*desk.tickets, *(ticket for ticket, _ in desk.unstaged)]) == list(range(count))
    assert sorted(staged.name for staged in stager.removed) == sorted(staged.name for staged in stager.all)
