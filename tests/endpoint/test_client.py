"""The client among threads: its window, its callbacks, its end. Replies come from a transport that the tests hold."""

from __future__ import annotations

import dataclasses
import pickle
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from endpoint.client import Client
from endpoint.errors import BudgetSpent, ClientClosed, RequestCountLost, RunEnded
from endpoint.rate import LocalRate
from endpoint.request_budget import SharedBudget
from endpoint.results import Embedded, Outcome, Refused
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.simulation import answer, clip, clip_numbers

PATIENCE_S = 20.0


class HeldTransport:
    """Keeps requests until the test answers them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: list[tuple[tuple[int, ...], Callable[[Reply], None]]] = []
        self.renewals = 0
        self.is_closed = False
        self.timeouts_s: set[float] = set()

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        with self._changed:
            self.timeouts_s.add(timeout_s)
            self._held.append((clip_numbers(request), done))
            self._changed.notify_all()

    def renew_credentials(self) -> None:
        self.renewals += 1

    def close(self) -> None:
        self.is_closed = True

    def wait_for(self, count: int) -> list[tuple[int, ...]]:
        """The clips of the requests that are held, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._held) >= count, PATIENCE_S)
            return [numbers for numbers, _ in self._held]

    def reply(self, reply: Reply | None = None) -> None:
        """Answers the oldest request, properly unless told otherwise."""
        self.wait_for(1)
        with self._changed:
            numbers, done = self._held.pop(0)
        done(answer(numbers) if reply is None else reply)


class AnsweringTransport(HeldTransport):
    """Answers from threads of its own, in random order, with some failures."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)
        self.sent = 0
        self.most_out = 0
        self._out = 0

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        with self._changed:
            self.sent += 1
            self._out += 1
            self.most_out = max(self.most_out, self._out)
            code = self._rng.choice([grpc.StatusCode.OK] * 4 + [grpc.StatusCode.UNAVAILABLE])
            delay_s = self._rng.uniform(0, 0.004)
        reply = answer(clip_numbers(request)) if code is grpc.StatusCode.OK else Reply(code)
        threading.Timer(delay_s, self._reply, (done, reply)).start()

    def _reply(self, done: Callable[[Reply], None], reply: Reply) -> None:
        with self._changed:
            self._out -= 1
        done(reply)


class Outcomes:
    """Collects what `on_done` is given."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.by_batch: dict[int, list[Outcome]] = {}

    def taker(self, batch: int) -> Callable[[Outcome], None]:
        def take(outcome: Outcome) -> None:
            with self._changed:
                self.by_batch.setdefault(batch, []).append(outcome)
                self._changed.notify_all()

        return take

    def wait_for(self, count: int) -> dict[int, list[Outcome]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.by_batch) >= count, PATIENCE_S)
            return self.by_batch


def settings(max_in_flight: int = 3, max_attempts: int = 8) -> EndpointSettings:
    return EndpointSettings(
        name=official.NAME, host="127.0.0.1:9", max_in_flight=max_in_flight, max_attempts=max_attempts, timeout_s=7.0
    )


@contextmanager
def client_of(transport: HeldTransport, max_in_flight: int = 3) -> Iterator[Client]:
    client = Client(
        settings(max_in_flight), transport=transport, rate=LocalRate(), backoff=Backoff(base_s=0.001, cap_s=0.002)
    )
    try:
        yield client
    finally:
        client.close()


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_submit_returns_at_once_while_the_window_has_room_and_blocks_when_it_is_full() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    with client_of(transport) as client:
        for number in range(3):
            client.submit([clip(number)], outcomes.taker(number))
        fourth = in_thread(lambda: client.submit([clip(3)], outcomes.taker(3)))
        assert transport.wait_for(1) == [(0,)]
        fourth.join(0.05)
        assert fourth.is_alive()
        transport.reply()
        fourth.join(PATIENCE_S)
        assert not fourth.is_alive()
        assert transport.wait_for(3) == [(1,), (2,), (3,)]
        for _ in range(3):
            transport.reply()
        outcomes.wait_for(4)
        assert client.stats().requests_in_flight_peak == 3
    assert transport.timeouts_s == {7.0}


def test_waits_for_a_place_in_flight_are_added_up_and_latencies_told_once() -> None:
    transport, outcomes, now = HeldTransport(), Outcomes(), [0.0]
    client = Client(settings(1), transport=transport, rate=LocalRate(), clock=lambda: now[0])
    with client:
        client.submit([clip(0)], outcomes.taker(0))
        transport.wait_for(1)
        assert client.stats().waited_s == 0
        second = in_thread(lambda: client.submit([clip(1)], outcomes.taker(1)))
        second.join(0.1)
        assert second.is_alive()
        now[0] = 2.5
        transport.reply()
        second.join(PATIENCE_S)
        assert client.stats().waited_s == 2.5
        assert client.take_latencies_ms() == [2500]
        transport.wait_for(1)
        now[0] = 2.75
        transport.reply(Reply(grpc.StatusCode.INVALID_ARGUMENT))
        outcomes.wait_for(2)
        assert client.take_latencies_ms() == [250]
        assert client.take_latencies_ms() == []


def test_samples_are_let_go_when_their_request_is_out_and_still_sent_again_and_split() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    with client_of(transport) as client:
        client.submit([clip(0)], outcomes.taker(0))
        transport.reply()
        outcomes.wait_for(1)
        samples = [clip(number).copy() for number in range(1, 5)]
        kept = [weakref.ref(array) for array in samples]
        client.submit(samples, outcomes.taker(1))
        del samples
        transport.wait_for(1)
        assert [reference() for reference in kept] == [None] * 4
        transport.reply(Reply(grpc.StatusCode.UNAVAILABLE))
        transport.reply(Reply(grpc.StatusCode.INVALID_ARGUMENT))
        assert transport.wait_for(1) == [(1, 2)]
        transport.reply()
        assert transport.wait_for(1) == [(3, 4)]
        transport.reply()
        (outcome,) = outcomes.wait_for(2)[1]
    assert [result.embedding[0] for result in outcome.results if isinstance(result, Embedded)] == [1, 2, 3, 4]


def test_many_threads_share_a_client_and_each_batch_has_its_outcome_once() -> None:
    transport, outcomes = AnsweringTransport(seed=5), Outcomes()

    def submit_many(first: int) -> None:
        for number in range(first, first + 50):
            client.submit([clip(number), clip(number + 1000)], outcomes.taker(number))

    with client_of(transport, max_in_flight=8) as client:
        threads = [in_thread(lambda first=first: submit_many(first)) for first in range(0, 200, 50)]
        for thread in threads:
            thread.join(PATIENCE_S)
        by_batch = outcomes.wait_for(200)
        assert transport.most_out <= 8
    assert sorted(by_batch) == list(range(200))
    for number, found in by_batch.items():
        assert len(found) == 1
        results = found[0].results
        values = [result.embedding[0] for result in results if isinstance(result, Embedded)]
        assert values == [number, number + 1000]


def test_when_the_run_ends_all_batches_learn_it_and_blocked_and_later_submits_raise() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    raised: list[RunEnded] = []

    def submit_one_more() -> None:
        with pytest.raises(RunEnded) as caught:
            client.submit([clip(3)], outcomes.taker(3))
        raised.append(caught.value)

    with client_of(transport) as client:
        for number in range(3):
            client.submit([clip(number)], outcomes.taker(number))
        blocked = in_thread(submit_one_more)
        transport.reply(Reply(grpc.StatusCode.PERMISSION_DENIED))
        blocked.join(PATIENCE_S)
        by_batch = outcomes.wait_for(3)
        with pytest.raises(RunEnded, match="does not let these credentials predict"):
            client.submit([clip(4)], outcomes.taker(4))
    assert len(raised) == 1
    assert sorted(by_batch) == [0, 1, 2]
    assert all(len(found) == 1 and isinstance(found[0].error, RunEnded) for found in by_batch.values())


def test_closing_gives_up_what_is_in_flight() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    with client_of(transport) as client:
        client.submit([clip(0)], outcomes.taker(0))
        transport.reply()
        outcomes.wait_for(1)
        client.submit([clip(1)], outcomes.taker(1))
        transport.wait_for(1)
    assert transport.is_closed
    assert outcomes.by_batch[0][0].error is None
    assert isinstance(outcomes.by_batch[1][0].error, ClientClosed)
    transport.reply()  # comes too late
    assert len(outcomes.by_batch[1]) == 1
    with pytest.raises(ClientClosed):
        client.submit([clip(2)], outcomes.taker(2))
    client.close()


def test_closing_releases_a_blocked_submit() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    raised = threading.Event()

    def submit_one_more() -> None:
        with pytest.raises(ClientClosed):
            client.submit([clip(1)], outcomes.taker(1))
        raised.set()

    with client_of(transport, max_in_flight=1) as client:
        client.submit([clip(0)], outcomes.taker(0))
        blocked = in_thread(submit_one_more)
        blocked.join(0.02)
    assert raised.wait(PATIENCE_S)


def test_what_on_done_raises_ends_the_run_and_is_raised_by_the_next_submit() -> None:
    transport, outcomes = HeldTransport(), Outcomes()

    def broken(outcome: Outcome) -> None:
        raise KeyError("row")

    with client_of(transport) as client:
        client.submit([clip(0)], broken)
        client.submit([clip(1)], outcomes.taker(1))
        transport.reply()
        outcome = outcomes.wait_for(1)[1][0]
        assert outcome.error is not None
        assert "KeyError" in outcome.error.message
        with pytest.raises(KeyError, match="row"):
            client.submit([clip(2)], outcomes.taker(2))
        with pytest.raises(RunEnded, match="ended by an error of this program"):
            client.submit([clip(2)], outcomes.taker(2))


def test_what_on_done_raises_is_raised_by_close_if_there_is_no_submit() -> None:
    transport = HeldTransport()
    client = Client(settings(), transport=transport, rate=LocalRate())
    done = threading.Event()

    def broken(outcome: Outcome) -> None:
        done.set()
        raise KeyError("row")

    client.submit([clip(0)], broken)
    transport.reply()
    assert done.wait(PATIENCE_S)
    with pytest.raises(KeyError, match="row"):
        client.close()
    assert transport.is_closed


def test_a_transport_that_raises_ends_the_run() -> None:
    class BrokenTransport(HeldTransport):
        def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
            raise OSError("no more files")

    outcomes = Outcomes()
    client = Client(settings(), transport=BrokenTransport(), rate=LocalRate())
    client.submit([clip(0)], outcomes.taker(0))
    assert outcomes.wait_for(1)[0][0].error is not None
    with pytest.raises(OSError, match="no more files"):
        client.close()


def test_on_done_can_neither_submit_nor_close() -> None:
    transport = HeldTransport()
    refused: list[str] = []
    done = threading.Event()

    def try_everything(outcome: Outcome) -> None:
        for action in (lambda: client.submit([clip(1)], print), client.close):
            with pytest.raises(RuntimeError) as caught:
                action()
            refused.append(str(caught.value))
        done.set()

    with client_of(transport) as client:
        client.submit([clip(0)], try_everything)
        transport.reply()
        assert done.wait(PATIENCE_S)
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least one clip"),
        ([np.zeros(100, np.float32)], "expected float32"),
    ],
)
def test_what_cannot_be_sent_is_refused_to_its_submitter(samples: list[np.ndarray], message: str) -> None:
    with client_of(HeldTransport()) as client, pytest.raises(ValueError, match=message):
        client.submit(samples, print)


def test_refusals_reach_their_submitter() -> None:
    transport, outcomes = HeldTransport(), Outcomes()
    with client_of(transport) as client:
        client.submit([clip(0)], outcomes.taker(0))
        transport.reply()
        client.submit([clip(1)], outcomes.taker(1))
        for _ in range(8):
            transport.reply(Reply(grpc.StatusCode.UNAVAILABLE))
        (outcome,) = outcomes.wait_for(2)[1]
        (refused,) = outcome.results
        assert isinstance(refused, Refused)
        assert (refused.code, refused.attempts, outcome.retries) == ("unavailable", 8, 7)
        assert client.stats().retries == 7


def test_two_clients_share_a_budget() -> None:
    """Each knows the run by its settings alone, as in two processes; one in four requests is a retry."""
    budgeted = dataclasses.replace(settings(8), max_requests=150, run_id="of two clients")
    SharedBudget.of(budgeted).begin()
    quick = Backoff(base_s=0.001, cap_s=0.002)
    ends: list[str] = []
    transports, outcomes = [AnsweringTransport(seed=6), AnsweringTransport(seed=7)], Outcomes()
    clients = [Client(budgeted, transport=transport, rate=LocalRate(), backoff=quick) for transport in transports]

    def submit_many(client: Client, first: int) -> None:
        try:
            for number in range(first, first + 150):
                client.submit([clip(number)], outcomes.taker(number))
        except BudgetSpent as spent:
            ends.append(spent.message)

    submitters = [(client, 1000 * who + 500 * half) for who, client in enumerate(clients) for half in range(2)]
    threads = [in_thread(lambda given=given: submit_many(*given)) for given in submitters]
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    for client in clients:
        client.close()
    assert len(ends) == 4
    assert all("--max_requests 150 " in message for message in ends)
    assert sum(transport.sent for transport in transports) == 150
    assert sum(client.stats().requests for client in clients) == 150
    assert min(transport.sent for transport in transports) > 0
    found = [outcome for (outcome,) in outcomes.by_batch.values()]
    assert sum(outcome.requests for outcome in found) == 150
    assert 0 < sum(outcome.error is None for outcome in found) < 150
    assert all(
        isinstance(outcome.error, BudgetSpent) and outcome.results == (None,) for outcome in found if outcome.error
    )


def test_answers_to_the_last_requests_are_waited_for_and_nothing_follows_them() -> None:
    budgeted = dataclasses.replace(settings(), max_requests=2, run_id="of the last requests", is_proven=True)
    SharedBudget.of(budgeted).begin()
    transport, outcomes = HeldTransport(), Outcomes()
    with Client(budgeted, transport=transport, rate=LocalRate()) as client:
        for number in range(3):
            client.submit([clip(number)], outcomes.taker(number))
        assert isinstance(outcomes.wait_for(1)[2][0].error, BudgetSpent)
        with pytest.raises(BudgetSpent):
            client.submit([clip(3)], outcomes.taker(3))
        assert transport.wait_for(2) == [(0,), (1,)]
        transport.reply()
        transport.reply(Reply(grpc.StatusCode.UNAVAILABLE))
        (answered,), (failed,) = (outcomes.wait_for(3)[number] for number in range(2))
    assert (answered.error, answered.requests) == (None, 1)
    assert isinstance(answered.results[0], Embedded)
    assert isinstance(failed.error, BudgetSpent)
    assert failed.results == (None,)
    assert transport.wait_for(0) == []


def test_without_a_count_that_has_begun_nothing_is_sent() -> None:
    budgeted = dataclasses.replace(settings(), max_requests=2, run_id="never begun")
    transport, outcomes = HeldTransport(), Outcomes()
    with Client(budgeted, transport=transport, rate=LocalRate()) as client:
        client.submit([clip(0)], outcomes.taker(0))
        (outcome,) = outcomes.wait_for(1)[0]
        with pytest.raises(RequestCountLost):
            client.submit([clip(1)], outcomes.taker(1))
    assert isinstance(outcome.error, RequestCountLost)
    assert transport.wait_for(0) == []


def test_a_client_stays_in_its_process() -> None:
    with client_of(HeldTransport()) as client, pytest.raises(TypeError, match="make one in each"):
        pickle.dumps(client)
