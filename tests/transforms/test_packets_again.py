"""Packets that are worked on again: what their own folder or the checkpoint holds is not sent a second time."""

from pathlib import Path

import pytest

from audio.recording import Recording
from endpoint.errors import BudgetSpent, RunEnded
from rows.held import Held
from tests.transforms.fake_endpoint import FakeEndpoint, PromptEndpoint, embed, refuse
from tests.transforms.packet_work import Store, id_of, plan_of, working
from tests.transforms.samples import packet, packet_of, recording, task, write_wav
from transforms.choose_rows import choose
from transforms.packet_work import PacketWork


@pytest.fixture
def files(tmp_path: Path) -> list[Recording]:
    return [recording(write_wav(tmp_path / f"{n}.wav", 6.0, seed=n)) for n in range(4)]


def sent(endpoint: FakeEndpoint) -> int:
    return sum(len(request.results) for request in endpoint.requests)


def test_a_bundle_that_is_run_again_sends_only_what_was_not_stored(files: list[Recording]) -> None:
    store, first, second = Store(), FakeEndpoint(), PromptEndpoint()
    some = packet(*files)
    with working(first, store) as (work, _):
        work.work(some)
        first.requests[0].answer()
        work.abandon(wait_s=0)  # the bundle fails; what was answered is stored
    assert len(store.embedded()) == 4
    with working(second, store) as (work, _):
        receipts = work.work(some) + work.drain()
    assert sent(first) == 12
    assert sent(second) == 8
    assert sorted(row.clip_id for row in store.embedded()) == sorted(id_of(of, n) for of in files for n in range(3))
    for plan in plan_of(some):
        mine = [receipt for receipt in receipts if receipt.recording_uri == plan.recording.uri]
        assert choose(plan, mine, may_be_unfinished=False).recording.embedded == 3


def test_a_bundle_that_is_run_again_after_all_was_stored_sends_and_decodes_nothing(files: list[Recording]) -> None:
    store, endpoint = Store(), PromptEndpoint()
    some = packet(*files)
    with working(endpoint, store) as (work, _):
        receipts = work.work(some) + work.drain()
    for of in files:
        Path(of.uri).unlink()  # whoever opened it now would find nothing
    idle = FakeEndpoint()
    with working(idle, store) as (work, _):
        again = work.work(some) + work.drain()
    assert idle.requests == []
    assert sorted(again) == sorted(receipts)


def test_a_failure_for_good_is_not_sent_again_and_one_that_may_pass_is(files: list[Recording]) -> None:
    store = Store()
    some = packet(files[0])
    with working(PromptEndpoint(refuse), store) as (work, _):
        work.work(some)
        work.drain()
    idle = FakeEndpoint()
    with working(idle, store) as (work, _):
        work.work(some)
        work.drain()
    assert idle.requests == []
    endpoint = PromptEndpoint()
    with working(endpoint, store, retry_failed=True) as (work, _):
        receipts = work.work(some) + work.drain()
    assert sent(endpoint) == 3
    assert len(Held(receipts).embedded) == 3


def test_clips_that_the_checkpoint_held_at_launch_are_not_sent(files: list[Recording]) -> None:
    store, endpoint = Store(), PromptEndpoint()
    held = id_of(files[0], 1)
    with working(endpoint, store) as (work, _):
        work.work(packet_of(task(files[0], held), task(files[1])))
        work.drain()
    assert held not in {row.clip_id for row in store.embedded()}
    assert len(store.embedded()) == 5
    censuses = {census.recording_uri: census for census in store.censuses()}
    assert [clip.clip_id for clip in censuses[files[0].uri].clips] == [id_of(files[0], n) for n in range(3)]


class Spent(PromptEndpoint):
    """Takes so many batches, and no more."""

    def __init__(self, batches: int) -> None:
        super().__init__(embed)
        self._batches = batches

    def submit(self, clips, on_done) -> None:
        if len(self.requests) == self._batches:
            raise BudgetSpent("--max_requests allowed 2 requests, and they are used up")
        super().submit(clips, on_done)


def test_when_the_budget_is_used_up_the_rest_is_left_and_nothing_is_raised(files: list[Recording]) -> None:
    store, endpoint = Store(), Spent(2)
    some = packet(*files)
    with working(endpoint, store, kind=PacketWork) as (work, _):
        receipts = work.work(some)
        receipts += work.work(packet(recording(Path(files[0].uri))))
        receipts += work.drain()
    assert sent(endpoint) == 8
    assert len(store.embedded()) == 8
    rows = {}
    for plan in plan_of(some):
        mine = [receipt for receipt in receipts if receipt.recording_uri == plan.recording.uri]
        rows[plan.recording.uri] = choose(plan, mine, may_be_unfinished=True).recording
    assert [rows[of.uri].status for of in files] == ["embedded", "embedded", "unfinished", "unfinished"]
    assert sum(row.embedded for row in rows.values()) == 8
    assert all(row.clips == row.embedded + row.failed for row in rows.values())
    rest = PromptEndpoint()
    with working(rest, store) as (work, _):
        work.work(some)
        work.drain()
    assert sent(rest) == 4


def test_requests_that_the_budget_no_longer_allows_leave_their_clips_and_nothing_is_raised(
    files: list[Recording],
) -> None:
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store, kind=PacketWork) as (work, _):
        work.work(packet(*files))
        work.flush()
        first, *others = endpoint.requests
        first.answer()
        for request in others:  # they were accepted, and then could not go out
            request.end(BudgetSpent("--max_requests allowed 1 request, and it is used up"))
        work.drain()
        asked = len(endpoint.requests)
        work.work(packet(recording(Path(files[0].uri))))
        work.drain()
    assert len(endpoint.requests) == asked
    assert len(store.embedded()) == 4
    assert store.failures() == []


def test_what_ends_the_run_is_raised_though_the_budget_is_used_up(files: list[Recording]) -> None:
    endpoint = FakeEndpoint()
    with working(endpoint, Store(), kind=PacketWork) as (work, _):
        work.work(packet(*files))
        work.flush()
        first, second, *others = endpoint.requests
        first.end(BudgetSpent("--max_requests allowed 1 request, and it is used up"))
        for request in (second, *others):
            request.end(RunEnded("the credentials were refused"))
        with pytest.raises(RunEnded, match="the credentials were refused"):
            work.drain()
