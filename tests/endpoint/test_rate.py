from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.rate import LocalRate, RateState
from tests.endpoint.quota_simulation import Arrival, RandomFaults, most_in_window, simulate


class Anything:
    """An endpoint that never refuses."""

    def take(self, now_s: float) -> bool:
        return True

    def wait_s(self, now_s: float) -> float:
        return 0.0


def grants(rate: LocalRate, calls_s: list[float]) -> list[float]:
    return [rate.reserve(now_s) for now_s in calls_s]


def test_slots_come_at_the_pace_of_985_thousandths_of_the_limit() -> None:
    slots = grants(LocalRate(600), [1000.0] * 100)
    assert slots == pytest.approx([1000.0 + k * 60 / (0.985 * 600) for k in range(100)])


def test_without_a_limit_nothing_waits() -> None:
    assert grants(LocalRate(None), [5.0, 5.0, 5.5]) == [5.0, 5.0, 5.5]


def test_neither_start_nor_idleness_earns_a_burst() -> None:
    rate = LocalRate(6000)
    interval_s = 60 / (0.985 * 6000)
    for start_s in (1000.0, 1003.0, 2000.0):
        assert grants(rate, [start_s] * 5) == pytest.approx([start_s + k * interval_s for k in range(5)])


@pytest.mark.parametrize("late_s", [0.0, 0.01, 0.2])
def test_a_thread_that_wakes_late_now_and_then_loses_nothing(late_s: float) -> None:
    rate = LocalRate(600)
    now_s, used = 1000.0, 0
    while now_s < 1300.0:
        now_s = rate.reserve(now_s) + (late_s if used % 10 == 0 else 0.0)
        used += 1
    assert used >= 0.97 * 600 * 5


def test_a_slot_that_is_given_back_is_the_next_one() -> None:
    rate = LocalRate(60)
    first = rate.reserve(10.0)
    second = rate.reserve(10.0)
    rate.release(second)
    assert rate.reserve(10.5) == pytest.approx(second) != first


def test_giving_back_a_slot_before_the_last_changes_nothing() -> None:
    rate = LocalRate(60)
    slots = grants(rate, [10.0, 10.0, 10.0])
    rate.release(slots[1])
    assert rate.reserve(10.0) == pytest.approx(2 * slots[2] - slots[1])


calls = st.lists(
    st.tuples(
        st.sampled_from(["at once", "late", "idle"]),
        st.floats(0, 1),
        st.sampled_from(["send", "send", "send", "send", "release", "answer", "refuse", "refuse with hint"]),
    ),
    max_size=300,
)


@settings(max_examples=300, deadline=None)
@given(limit=st.integers(1, 300), processes=st.integers(1, 4), script=calls, start_s=st.floats(0, 1e6))
def test_no_window_of_60_s_has_more_grants_than_the_limit(
    limit: int, processes: int, script: list[tuple[str, float, str]], start_s: float
) -> None:
    """Whatever the pattern of calls. Processes take a slot each and use it when its time has come, at once or late."""
    state = RateState()
    held: list[float | None] = [None] * processes
    used: list[float] = []
    now_s = start_s
    for process, (pause, fraction, action) in zip(itertools.cycle(range(processes)), script, strict=False):
        slot_s = held[process]
        if slot_s is None:
            held[process] = state.reserve(now_s, limit)
        elif action == "release":
            state.release(slot_s, limit)
            held[process] = None
        elif action == "answer":
            state.answered(now_s - fraction, now_s)
        elif action.startswith("refuse"):
            state.refused(now_s - fraction, now_s, 10 * fraction if action.endswith("hint") else None)
        else:
            now_s = max(now_s, slot_s)  # other processes may have moved the clock on
            used.append(slot_s)
            held[process] = None
        now_s += {"at once": 0.0, "late": 0.2 * fraction, "idle": 20 * fraction}[pause]
    assert most_in_window(used) <= limit


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("limit", [600, 6000])
def test_a_limit_is_filled_and_kept_as_the_endpoint_sees_it(limit: int, processes: int) -> None:
    rate = LocalRate(limit)
    arrivals = simulate(Anything(), [rate] * processes, duration_s=300, in_flight=64, latency_s=0.3)
    assert 0.97 * limit * 5 <= len(arrivals)
    assert most_in_window([arrival.at_s for arrival in arrivals]) <= limit
    assert most_in_window([arrival.at_s for arrival in arrivals], 1.0) <= 1.35 * limit / 60


def test_two_runs_in_a_row_do_not_double_the_limit() -> None:
    rate = LocalRate(600)
    times_s: list[float] = []
    for start_s in (1000.0, 1030.0, 1060.5):
        run = simulate(Anything(), [rate], duration_s=30, in_flight=32, latency_s=0.3, start_s=start_s)
        times_s += [arrival.at_s for arrival in run]
    assert most_in_window(times_s) <= 600


def test_a_limit_holds_for_what_is_sent_again_as_well() -> None:
    rate = LocalRate(600)
    arrivals = simulate(
        RandomFaults(0.1, seed=3), [rate, rate], duration_s=300, in_flight=32, latency_s=0.1, has_hints=True
    )
    assert most_in_window([arrival.at_s for arrival in arrivals]) <= 600
    assert accepted_per_minute(arrivals, 300) > 0.7 * 600


def accepted_per_minute(arrivals: list[Arrival], duration_s: float) -> float:
    return sum(arrival.is_accepted for arrival in arrivals) / duration_s * 60


def test_a_state_of_another_clock_is_forgotten() -> None:
    state = RateState()
    state.refused(5000.0, 5000.0, None)
    state.reserve(5000.0, 1)
    assert state.reserve(100.0, 1) == 100.0


def test_what_was_learnt_is_forgotten_after_some_minutes() -> None:
    rate = LocalRate()
    for k in range(100):
        note = rate.answered if k % 5 else lambda sent_s, now_s: rate.refused(sent_s, now_s, None)
        note(1000 + k / 100, 1000.1 + k / 100)
    rate.answered(1001.0, 1001.2)
    slots = grants(rate, [1001.2, 1001.2])
    assert slots[1] > slots[0]
    assert grants(rate, [1500.0, 1500.0]) == [1500.0, 1500.0]
    assert math.isinf(rate._state.learnt.per_s)
