from __future__ import annotations

import heapq
import random

import pytest

from endpoint.retry_budget import RetryBudget


class NoBudget(RetryBudget):
    """Sends whatever comes."""

    def earliest(self, now_s: float) -> float:
        return now_s


def requests(
    budget: RetryBudget, failing: list[tuple[float, float, float]], *, in_flight: int = 32, duration_s: float = 120
) -> list[float]:
    """When each request of a busy client goes out; latency 0.1 s; failed ones come back after up to 1 s.

    Args:
        budget: what holds them back.
        failing: from when, until when, and which share of the requests fails.
        in_flight: batches.
        duration_s: from 0.
    """
    rng = random.Random(1)
    sent: list[float] = []
    ready = [(0.0, batch) for batch in range(in_flight)]
    replies: list[tuple[float, bool, int]] = []
    now_s = 0.0
    slot_s: float | None = None
    while now_s < duration_s:
        if ready and ready[0][0] <= now_s:
            if slot_s is None:
                slot_s = budget.earliest(now_s)
            if slot_s <= now_s:
                slot_s = None
                sent.append(now_s)
                share = max((share for start, end, share in failing if start <= now_s < end), default=0.0)
                heapq.heappush(replies, (now_s + 0.1, rng.random() < share, heapq.heappop(ready)[1]))
                continue
        due = [replies[0][0]] if replies else []
        if ready:
            due.append(max(ready[0][0], slot_s or 0.0))
        now_s = max(now_s, min(due))
        if replies and replies[0][0] <= now_s:
            _, has_failed, batch = heapq.heappop(replies)
            (budget.failed if has_failed else budget.answered)(now_s)
            heapq.heappush(ready, (now_s + (rng.uniform(0, 1) if has_failed else 0.0), batch))
    return sent


def count(sent: list[float], start_s: float, end_s: float) -> int:
    return sum(start_s <= at_s < end_s for at_s in sent)


def test_an_outage_costs_a_trickle() -> None:
    outage = [(30.0, 90.0, 1.0)]
    without = count(requests(NoBudget(32), outage), 30, 90)
    within = count(requests(RetryBudget(32), outage), 30, 90)
    assert without > 3000
    assert within < 64 + 32 + 2 * 60


def test_after_an_outage_the_client_is_soon_as_fast_as_before() -> None:
    sent = requests(RetryBudget(32), [(30.0, 90.0, 1.0)])
    before = count(sent, 10, 30) / 20
    assert count(sent, 95, 115) / 20 > 0.9 * before


def test_a_third_may_fail_for_good() -> None:
    failing = [(0.0, 120.0, 0.33)]
    assert requests(RetryBudget(32), failing) == requests(NoBudget(32), failing)


def test_nine_in_ten_failing_cost_little_more_than_an_outage() -> None:
    failing = [(0.0, 600.0, 0.9)]
    sent = requests(RetryBudget(32), failing, duration_s=600)
    assert count(sent, 60, 600) / 540 < 3
    assert count(requests(NoBudget(32), failing, duration_s=120), 60, 120) / 60 > 50


@pytest.mark.parametrize(("in_flight", "per_s"), [(1, 1.0), (16, 1.0), (64, 4.0)])
def test_the_trickle_grows_with_the_window(in_flight: int, per_s: float) -> None:
    budget = RetryBudget(in_flight)
    for _ in range(64):
        assert budget.earliest(100.0) == 100.0
        budget.failed(100.0)
    assert [budget.earliest(100.0) for _ in range(3)] == pytest.approx([100 + k / per_s for k in (1, 2, 3)])


def test_time_that_passed_is_no_credit() -> None:
    budget = RetryBudget(16)
    for _ in range(64):
        budget.failed(100.0)
    assert [budget.earliest(200.0) for _ in range(3)] == pytest.approx([200.0, 201.0, 202.0])
