"""The dispatcher at a given rate, at one that it must learn, and in an outage: counted from what was sent when."""

from __future__ import annotations

import dataclasses
import random
from itertools import pairwise

import grpc
import pytest

from endpoint.pacing import Pacing
from endpoint.rate import LocalRate
from endpoint.retry_budget import RetryBudget
from endpoint.stats import Counters
from endpoint.transport import Reply
from tests.endpoint.simulation import SETTINGS, Sent, Simulation, answer
from tests.endpoint.test_dispatcher import failing, numbers_of

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def fullest_minute(simulation: Simulation) -> int:
    times = [sent.at_s for sent in simulation.sent]
    return max(sum(start <= time < start + 60 for time in times) for start in times[::7])


class Chance:
    """Fails a share of the requests."""

    def __init__(self, share: float, reply: Reply, seed: int = 5) -> None:
        self._share, self._reply, self._rng = share, reply, random.Random(seed)

    def __call__(self, sent: Sent) -> Reply:
        return self._reply if self._rng.random() < self._share else answer(sent.numbers)


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("limit", [600, 3000])
def test_a_given_limit_is_used_and_never_broken_retries_included(limit: int, share: float) -> None:
    rule = Chance(share, failing(UNAVAILABLE))
    simulation = Simulation(rule, rate=LocalRate(limit))
    outcomes = simulation.run(*([number] for number in range(2 * limit)))
    assert [numbers_of(outcome) for outcome in outcomes] == [[number] for number in range(2 * limit)]
    assert fullest_minute(simulation) <= limit
    minutes = (simulation.sent[-1].at_s - simulation.sent[0].at_s) / 60
    # The end has to wait for the last retries, alone.
    assert len(simulation.sent) / minutes >= (0.97 if share == 0 else 0.9) * limit
    assert simulation.stats.throttled_s > 0


def test_requests_are_spread_from_the_first_on() -> None:
    simulation = Simulation(lambda sent: answer(sent.numbers), rate=LocalRate(60))
    simulation.run(*([number] for number in range(20)))
    gaps_s = [later.at_s - earlier.at_s for earlier, later in pairwise(simulation.sent)]
    assert min(gaps_s) > 0.74
    assert sum(gaps_s) / len(gaps_s) == pytest.approx(60 / (0.985 * 60), abs=0.02)


def test_an_outage_is_asked_little_and_costs_no_clip() -> None:
    """Half a minute without an answer, with 32 batches to be sent."""

    def rule(sent: Sent) -> Reply:
        return failing(UNAVAILABLE) if 1010.0 <= sent.at_s < 1040.0 else answer(sent.numbers)

    simulation = Simulation(rule)
    outcomes = simulation.run(*([number] for number in range(3000)))
    assert [numbers_of(outcome) for outcome in outcomes] == [[number] for number in range(3000)]
    # 64 failures use up the budget, those of requests that were out by then come on top, and then go two a second.
    assert sum(1010.0 <= sent.at_s < 1040.0 for sent in simulation.sent) <= 64 + 32 + 2 * 30


def test_an_endpoint_that_never_comes_back_ends_the_run() -> None:
    simulation = Simulation(lambda sent: failing(UNAVAILABLE) if sent.at_s > 1005.0 else answer(sent.numbers))
    outcomes = simulation.run(*([number] for number in range(3000)))
    assert simulation.ended
    assert outcomes[-1].error is not None
    assert sum(sent.at_s > 1005.0 for sent in simulation.sent) < 700


def test_a_slot_is_given_back_when_the_service_asks_to_wait() -> None:
    rate = LocalRate(60)
    pacing = Pacing(rate, RetryBudget(4), Counters())
    assert pacing.may_send(100.0)
    pacing.sent()
    assert not pacing.may_send(100.1)
    due_s = pacing.due_s
    pacing.answered(100.0, 100.2, Reply(EXHAUSTED))
    # The slot that was held is the next that anybody gets.
    assert not pacing.may_send(100.3)
    assert pacing.due_s == pytest.approx(due_s, abs=1e-9)


def test_a_slot_that_was_not_used_in_time_is_none() -> None:
    pacing = Pacing(LocalRate(60), RetryBudget(4), Counters())
    assert pacing.may_send(100.0)
    assert pacing.may_send(160.0)
    assert pacing.due_s == 160.0


def test_two_clients_share_one_limit() -> None:
    rate = LocalRate(600)
    first = Simulation(lambda sent: answer(sent.numbers), rate=rate)
    second = Simulation(lambda sent: answer(sent.numbers), rate=rate, settings=dataclasses.replace(SETTINGS))
    first.run(*([number] for number in range(300)))
    second.now = first.now
    second.run(*([number] for number in range(300)))
    times = sorted(sent.at_s for sent in [*first.sent, *second.sent])
    assert max(sum(start <= time < start + 60 for time in times) for start in times) <= 600
    assert (times[-1] - times[0]) == pytest.approx(599 / (0.985 * 10), rel=0.02)
