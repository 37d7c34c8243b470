"""A run that may send only so many requests: exactly so many go out, and all that is answered is kept."""

from __future__ import annotations

import dataclasses
import random

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.errors import BudgetSpent, RequestCountLost, RunEnded, TokenUnavailable
from endpoint.rate import LocalRate
from endpoint.request_budget import LocalBudget
from endpoint.results import Embedded, Outcome, Refused
from endpoint.transport import Reply
from tests.endpoint.simulation import INVALID, SETTINGS, Sent, SimulatedTokens, Simulation, UriSimulation, answer
from tests.endpoint.test_dispatcher import FirstThen, batches_of_four, failing, numbers_of, reply_well, settled

STATUS = grpc.StatusCode


class CountingRate(LocalRate):
    """Slots that were taken and not given back."""

    taken = 0

    def reserve(self, now_s: float) -> float:
        self.taken += 1
        return super().reserve(now_s)

    def release(self, slot_s: float) -> None:
        self.taken -= 1
        super().release(slot_s)


class BudgetOfOthersToo(LocalBudget):
    """The last request is taken by another process after this one has seen that it is there."""

    def take(self) -> bool:
        if self.left() == 1:
            super().take()
        return super().take()


class LostBudget(LocalBudget):
    """Its file is gone when `left` are left."""

    def __init__(self, limit: int, lost_at: int, *, asked_how: str) -> None:
        super().__init__(limit)
        self.lost_at, self.asked_how = lost_at, asked_how

    def take(self) -> bool:
        self._fail("take")
        return super().take()

    def left(self) -> int:
        self._fail("left")
        return super().left()

    def _fail(self, asked_how: str) -> None:
        if asked_how == self.asked_how and super().left() == self.lost_at:
            raise RequestCountLost("gone")


def one_each(count: int) -> list[list[int]]:
    return [[number] for number in range(count)]


def assert_spent(simulation: Simulation, limit: int) -> None:
    """The run ended for that reason, and exactly so many requests were sent."""
    assert len(simulation.sent) == limit
    (error,) = simulation.ended
    assert isinstance(error, BudgetSpent)
    assert f"--max_requests {limit} " in error.message


def embedded(outcomes: list[Outcome]) -> int:
    return sum(isinstance(result, Embedded) for outcome in outcomes for result in outcome.results)


@pytest.mark.parametrize("limit", [1, 2, 19, 20, 21])
@pytest.mark.parametrize("max_in_flight", [1, 3, 32])
def test_exactly_so_many_batches_are_answered(limit: int, max_in_flight: int) -> None:
    rate = CountingRate()
    simulation = Simulation(
        reply_well,
        dataclasses.replace(SETTINGS, max_in_flight=max_in_flight),
        rate=rate,
        request_budget=LocalBudget(limit),
    )
    outcomes = simulation.run(*batches_of_four(20))
    for number, outcome in enumerate(outcomes):
        if number < limit:
            assert numbers_of(outcome) == list(batches_of_four(20)[number])
            assert outcome.error is None
        else:
            assert settled(outcome) == 0
            assert isinstance(outcome.error, BudgetSpent)
    if limit < 20:
        assert_spent(simulation, limit)
    else:
        assert not simulation.ended, "a run that needed no more has not ended for it"
        assert len(simulation.sent) == 20
    assert rate.taken == len(simulation.sent)


def test_what_is_in_flight_is_waited_for() -> None:
    simulation = Simulation(reply_well, service_s=lambda sent: 1.0 + sent.numbers[0], request_budget=LocalBudget(6))
    outcomes = simulation.run(*one_each(20))
    assert [outcome.error is None for outcome in outcomes] == [True] * 6 + [False] * 14
    # The last to be answered was sent when the first had been, and took six seconds.
    assert simulation.now == pytest.approx(1000 + 1 + 6)


def test_retries_count() -> None:
    failures = [failing(STATUS.UNAVAILABLE)] * 5
    simulation = Simulation(FirstThen(answer([0]), *failures), request_budget=LocalBudget(10))
    outcomes = simulation.run(*one_each(30))
    assert_spent(simulation, 10)
    assert embedded(outcomes) == 5
    assert sum(outcome.requests for outcome in outcomes) == 10
    assert simulation.stats.requests == 10


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_retries_of_the_first_request_count(limit: int) -> None:
    simulation = Simulation(lambda _: failing(STATUS.UNAVAILABLE), request_budget=LocalBudget(limit))
    outcomes = simulation.run(*one_each(30))
    assert_spent(simulation, limit)
    assert all(settled(outcome) == 0 for outcome in outcomes)


def test_nobody_waits_to_be_sent_again_when_no_more_may_be_sent() -> None:
    hour = failing(STATUS.UNAVAILABLE, 3600.0)
    simulation = Simulation(FirstThen(answer([0]), hour, hour), request_budget=LocalBudget(3))
    outcomes = simulation.run(*one_each(3))
    assert_spent(simulation, 3)
    assert simulation.now == pytest.approx(1000.4)
    assert [outcome.error is None for outcome in outcomes] == [True, False, False]


def test_nobody_waits_for_a_slot_when_no_more_may_be_sent() -> None:
    rate = CountingRate(1)
    simulation = Simulation(reply_well, rate=rate, request_budget=LocalBudget(2))
    simulation.run(*one_each(3))
    assert_spent(simulation, 2)
    assert simulation.now < 1000 + 62
    assert rate.taken == 2


def test_parts_of_a_rejected_request_count_and_their_answers_are_kept() -> None:
    """Four clips with the last one bad: all, the first two, the last two, the third, the fourth."""
    expected = {
        2: [None, None, None, None],
        3: [1, 2, None, None],
        4: [1, 2, None, None],
        5: [1, 2, 3, None],
        6: [1, 2, 3, "rejected"],
    }
    for limit, results in expected.items():
        simulation = Simulation(
            lambda sent: failing(INVALID) if 4 in sent.numbers else answer(sent.numbers),
            request_budget=LocalBudget(limit),
        )
        _, outcome = simulation.run([0], [1, 2, 3, 4])
        assert len(simulation.sent) == limit
        found = [
            int(result.embedding[0]) if isinstance(result, Embedded) else result and result.code
            for result in outcome.results
        ]
        assert found == results
        assert isinstance(outcome.error, BudgetSpent) == (None in results)


def test_a_clip_that_is_refused_by_the_last_answer_is_refused() -> None:
    """It need not be sent again by the next run, though other batches have ended the run meanwhile."""
    simulation = Simulation(
        lambda sent: failing(INVALID) if 2 in sent.numbers else answer(sent.numbers), request_budget=LocalBudget(3)
    )
    outcomes = simulation.run([0], [1], [2], [3])
    assert_spent(simulation, 3)
    (refused,) = outcomes[2].results
    assert isinstance(refused, Refused)
    assert [outcome.error is None for outcome in outcomes] == [True, True, True, False]


def test_requests_that_are_sent_again_with_new_credentials_count() -> None:
    simulation = Simulation(
        lambda sent: answer(sent.numbers) if sent.renewals or sent.numbers == (0,) else failing(STATUS.UNAUTHENTICATED),
        request_budget=LocalBudget(6),
    )
    outcomes = simulation.run(*one_each(4))
    assert_spent(simulation, 6)
    assert simulation.renewals == 1
    # One answered, three refused, and two of those sent again.
    assert embedded(outcomes) == 3


def test_a_request_without_a_token_is_not_counted() -> None:
    tokens = SimulatedTokens()
    tokens.failure = TokenUnavailable("not now")
    budget = LocalBudget(5)
    simulation = UriSimulation(
        reply_well,
        dataclasses.replace(SETTINGS, send="uris", max_attempts=3),
        tokens=tokens,
        request_budget=budget,
    )
    outcomes = simulation.run([0], [1])
    assert all(outcome.error is not None for outcome in outcomes)
    assert (len(simulation.sent), budget.left()) == (0, 5)


def test_a_slot_is_given_back_when_another_process_took_the_last_request() -> None:
    rate = CountingRate()
    simulation = Simulation(reply_well, rate=rate, request_budget=BudgetOfOthersToo(8))
    outcomes = simulation.run(*one_each(20))
    assert len(simulation.sent) == rate.taken == 7 == embedded(outcomes)
    assert [type(error) for error in simulation.ended] == [BudgetSpent]


def test_a_slot_that_waits_is_given_back_at_the_end() -> None:
    rate = CountingRate(60)
    simulation = Simulation(FirstThen(answer([0]), failing(STATUS.NOT_FOUND)), rate=rate)
    simulation.run(*one_each(20))
    assert len(simulation.sent) == rate.taken == 2


@pytest.mark.parametrize("asked_how", ["take", "left"])
def test_a_count_that_is_lost_ends_the_run_and_keeps_what_was_answered(asked_how: str) -> None:
    rate = CountingRate()
    simulation = Simulation(reply_well, rate=rate, request_budget=LostBudget(50, 43, asked_how=asked_how))
    outcomes = simulation.run(*one_each(20))
    assert len(simulation.sent) == rate.taken == 7 == embedded(outcomes)
    assert [type(error) for error in simulation.ended] == [RequestCountLost]
    assert [outcome.error is None for outcome in outcomes] == [True] * 7 + [False] * 13


def test_batches_that_come_later_end_at_once() -> None:
    simulation = Simulation(reply_well, request_budget=LocalBudget(2))
    simulation.run([0], [1])
    assert not simulation.ended
    (outcome,) = simulation.run([2])
    assert_spent(simulation, 2)
    (another,) = simulation.run([3])
    assert isinstance(outcome.error, BudgetSpent)
    assert another.error is outcome.error


def test_one_budget_for_two() -> None:
    budget = LocalBudget(9)
    first, second = (Simulation(reply_well, request_budget=budget) for _ in range(2))
    assert embedded(first.run(*one_each(6))) == 6
    assert embedded(second.run(*one_each(6))) == 3
    assert [len(first.sent), len(second.sent)] == [6, 3]
    assert isinstance(first.run([7])[0].error, BudgetSpent)


def test_another_end_stays_what_it_is() -> None:
    simulation = Simulation(
        FirstThen(answer([0]), failing(STATUS.PERMISSION_DENIED)),
        dataclasses.replace(SETTINGS, max_in_flight=1),
        request_budget=LocalBudget(3),
    )
    outcomes = simulation.run(*one_each(5))
    assert [type(error) for error in simulation.ended] == [RunEnded]
    assert [outcome.error is None for outcome in outcomes] == [True] + [False] * 4


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    limit=st.integers(1, 60),
    max_in_flight=st.integers(1, 40),
    batches=st.integers(1, 30),
    faults=st.lists(st.sampled_from(["429", "503", "504", "short", "400", "401"]), max_size=6),
)
def test_whatever_happens_no_more_go_out_and_the_budget_is_used(
    seed: int, limit: int, max_in_flight: int, batches: int, faults: list[str]
) -> None:
    rng = random.Random(seed)

    def rule(sent: Sent) -> Reply:
        fault = rng.choice(faults) if faults and rng.random() < 0.4 else ""
        return {
            "": answer(sent.numbers),
            "429": failing(STATUS.RESOURCE_EXHAUSTED, rng.choice([None, 3.0])),
            "503": failing(STATUS.UNAVAILABLE),
            "504": failing(STATUS.DEADLINE_EXCEEDED),
            "short": answer(sent.numbers[1:]),
            "400": failing(INVALID),
            "401": failing(STATUS.UNAUTHENTICATED),
        }[fault]

    budget, rate = LocalBudget(limit), CountingRate()
    simulation = Simulation(
        rule,
        dataclasses.replace(SETTINGS, max_in_flight=max_in_flight, max_attempts=4),
        service_s=lambda _: rng.expovariate(5),
        rate=rate,
        request_budget=budget,
        seed=seed,
    )
    outcomes = simulation.run(*batches_of_four(batches))
    sent = len(simulation.sent)
    assert sent == limit - budget.left() == simulation.stats.requests == sum(outcome.requests for outcome in outcomes)
    assert rate.taken == sent
    if any(isinstance(error, BudgetSpent) for error in simulation.ended):
        assert budget.left() == 0
    for numbers, outcome in zip(batches_of_four(batches), outcomes, strict=True):
        for number, result in zip(numbers, outcome.results, strict=True):
            assert result is not None or outcome.error is not None
            if isinstance(result, Embedded):
                assert result.embedding[0] == number
