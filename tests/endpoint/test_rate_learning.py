from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from endpoint.learnt_rate import LearntRate
from endpoint.rate import LocalRate
from tests.endpoint.quota_simulation import (
    KINDS,
    Arrival,
    Both,
    RandomFaults,
    changing,
    simulate,
    steady,
)

START_S = 1017.0


def accepted(arrivals: list[Arrival], from_s: float = 0.0, to_s: float = math.inf) -> int:
    return sum(arrival.is_accepted and from_s <= arrival.at_s - START_S < to_s for arrival in arrivals)


def refused_share(arrivals: list[Arrival]) -> float:
    return 1 - accepted(arrivals) / len(arrivals)


@pytest.mark.parametrize("has_hints", [False, True], ids=["no hints", "hints"])
@pytest.mark.parametrize(("in_flight", "latency_s"), [(32, 0.02), (128, 0.02), (32, 0.1), (128, 0.5)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_quota_is_used_and_hardly_overrun(
    kind: str, in_flight: int, latency_s: float, has_hints: bool
) -> None:
    quota = KINDS[kind](steady(6000))
    arrivals = simulate(
        quota, [LocalRate()], duration_s=300, in_flight=in_flight, latency_s=latency_s, has_hints=has_hints
    )
    assert accepted(arrivals) >= 0.8 * 6000 * 5
    assert refused_share(arrivals) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("per_minute", "in_flight"), [(1000, 32), (30000, 64)])
def test_small_and_large_quotas_are_learnt(kind: str, per_minute: int, in_flight: int) -> None:
    quota = KINDS[kind](steady(per_minute))
    arrivals = simulate(quota, [LocalRate()], duration_s=600, in_flight=in_flight, latency_s=0.05)
    assert accepted(arrivals) >= 0.8 * per_minute * 10
    assert refused_share(arrivals) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_quota_is_kept_once_it_is_known(kind: str) -> None:
    """What goes out before the first refusal has come back is a large part of what 120 a minute allow."""
    quota = KINDS[kind](steady(120))
    arrivals = simulate(quota, [LocalRate()], duration_s=600, in_flight=32, latency_s=0.1)
    assert accepted(arrivals) >= 0.8 * 120 * 10
    assert refused_share([arrival for arrival in arrivals if arrival.at_s > START_S + 180]) < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_share_the_state_share_an_unknown_quota(kind: str) -> None:
    rate = LocalRate()
    arrivals = simulate(KINDS[kind](steady(6000)), [rate, rate], duration_s=300, in_flight=32, latency_s=0.1)
    assert accepted(arrivals) >= 0.8 * 6000 * 5
    assert refused_share(arrivals) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_quota_that_changes_is_followed(kind: str) -> None:
    quota = KINDS[kind](changing((0, 6000), (START_S + 180, 2000), (START_S + 360, 8000)))
    arrivals = simulate(quota, [LocalRate()], duration_s=600, in_flight=64, latency_s=0.1)
    assert accepted(arrivals, 240, 360) >= 0.7 * 2000 * 2
    assert accepted(arrivals, 480, 600) >= 0.7 * 8000 * 2
    assert refused_share(arrivals) < 0.05


@pytest.mark.parametrize(("fraction", "seed"), [(0.005, 1), (0.02, 1), (0.1, 1), (0.1, 2)])
@pytest.mark.parametrize("limit", [None, 6000, 600])
def test_refusals_by_chance_do_not_slow_the_client_down_for_good(
    fraction: float, seed: int, limit: float | None
) -> None:
    settings = {"duration_s": 240, "in_flight": 32, "latency_s": 0.2, "has_hints": True}
    undisturbed = simulate(RandomFaults(0, seed), [LocalRate(limit)], **settings)
    disturbed = simulate(RandomFaults(fraction, seed), [LocalRate(limit)], **settings)
    # A tenth refused, and then held back for a while, is two tenths less when the window is full.
    assert accepted(disturbed, 60) > (0.6 if fraction == 0.1 else 0.85) * accepted(undisturbed, 60)


@pytest.mark.parametrize("fraction", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(
    "client",
    [
        {"latency_s": 2.0},
        {"latency_s": 2.0, "refusal_latency_s": 0.01},
        {"latency_s": 0.3, "refusal_latency_s": 0.01, "wakes_every_s": 2.0},
        {"latency_s": 0.3, "wakes_every_s": 0.5},
        {"latency_s": 2.0, "refusal_latency_s": 0.01, "wakes_every_s": 2.0, "batches_per_s": 30.0},
        {"latency_s": 0.3, "batches_per_s": 5.0},
        {"latency_s": 0.3, "refusal_latency_s": 0.01, "batches_per_s": 1.0},
    ],
    ids=lambda client: " ".join(f"{name}={value}" for name, value in client.items()),
)
def test_a_client_that_is_slow_itself_is_not_made_slower_by_refusals_by_chance(
    client: dict[str, float], fraction: float
) -> None:
    """Its slowness is no quota: what it happened to send when a request was refused is not what it may send."""
    for seed in range(3):
        settings: dict[str, Any] = {**client, "duration_s": 300, "in_flight": 32, "has_hints": True, "seed": seed}
        undisturbed = simulate(RandomFaults(0, seed), [LocalRate()], **settings)
        disturbed = simulate(RandomFaults(fraction, seed), [LocalRate()], **settings)
        assert accepted(disturbed) > 0.55 * accepted(undisturbed)


class EarlyFaults:
    """Two requests of a probe, a pause, and then some refusals among the first requests that have nothing to do with their rate."""

    def __init__(self, refused: set[int]) -> None:
        self._refused = refused
        self.taken = 0

    def take(self, now_s: float) -> bool:
        self.taken += 1
        return self.taken not in self._refused

    def wait_s(self, now_s: float) -> float:
        return 0.2


@pytest.mark.parametrize("refused", [{4}, {3, 9}, {10, 20}, {25}, {30, 45}])
def test_an_early_refusal_by_chance_does_not_make_a_run_crawl(refused: set[int]) -> None:
    rate = LocalRate()
    for probe_s in (1013.0, 1013.1):
        rate.answered(rate.reserve(probe_s), probe_s + 0.05)
    arrivals = simulate(EarlyFaults(refused), [rate], duration_s=20, in_flight=32, latency_s=0.05, has_hints=True)
    # Unhindered it would be 640 a second.
    assert accepted(arrivals, to_s=10) > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_quota_is_found_behind_refusals_by_chance(kind: str) -> None:
    quota = Both(RandomFaults(0.1, seed=3), KINDS[kind](steady(6000)))
    arrivals = simulate(quota, [LocalRate()], duration_s=300, in_flight=64, latency_s=0.1, has_hints=True)
    assert accepted(arrivals) >= 0.8 * 6000 * 5
    assert refused_share(arrivals) < 0.15


def regular(state: LearntRate, per_s: float, from_s: float, to_s: float, refused_of: int = 0) -> None:
    """So many requests a second, answered 0.1 s later; the last of each `refused_of` is refused."""
    for k in range(round((to_s - from_s) * per_s)):
        sent_s = from_s + k / per_s
        state.note_sent()
        if refused_of and k % refused_of == refused_of - 1:
            state.note_refused(sent_s, sent_s + 0.1, None)
        else:
            state.note_accepted(sent_s, sent_s + 0.1)


def test_a_single_refusal_changes_nothing() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1015, refused_of=200)
    assert math.isinf(state.per_s)


def test_many_refusals_cut_the_rate_to_less_than_what_was_accepted() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1001.5, refused_of=5)
    assert state.is_trial
    assert state.per_s == pytest.approx(0.8 * 0.8 * 20)


def test_if_fewer_are_refused_after_that_the_rate_was_the_reason() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1001.5, refused_of=5)
    regular(state, 12, 1001.5, 1008)
    assert not state.is_trial
    assert state.level_per_s == pytest.approx(0.8 * 20)
    assert 0.95 * 16 <= state.per_s < 0.98 * 16


def test_if_as_many_are_refused_after_that_it_was_not() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1001.5, refused_of=5)
    regular(state, 12, 1001.5, 1010, refused_of=5)
    assert not state.is_trial
    assert math.isinf(state.per_s)
    assert state.chance == pytest.approx(0.2, abs=0.06)
    regular(state, 20, 1010, 1050, refused_of=5)
    assert math.isinf(state.per_s), "that share is known"
    regular(state, 20, 1050, 1060, refused_of=2)
    assert state.per_s <= 10, "more than that share"


def test_after_a_minute_the_first_cut_is_to_what_a_minute_accepted() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1070)
    regular(state, 20, 1070, 1072.3, refused_of=3)
    assert state.is_trial
    # Of the present second not all have been sent yet, and some were refused.
    assert state.per_s == pytest.approx(0.95 * 20, rel=0.03)


def test_what_was_sent_before_a_cut_does_not_cut_again() -> None:
    state = LearntRate()
    regular(state, 20, 1000, 1001.5, refused_of=5)
    cut_to = state.per_s
    for k in range(20):
        state.note_refused(1001.5 + k / 100, 1003.5, None)
    state.note_accepted(1004.0, 1006.0)
    assert state.per_s == cut_to == pytest.approx(0.8 * 0.8 * 20)


def test_seconds_are_looked_at_when_slow_answers_have_come_as_well() -> None:
    """Refusals come back at once and answers after 2 s: in the first replies most are refusals."""
    state = LearntRate()
    sent = [(1000 + k / 20, k % 10 == 9) for k in range(100)]
    events = [(sent_s, "sent", sent_s) for sent_s, _ in sent]
    events += [
        (sent_s + (0.01 if refused else 2.0), "refused" if refused else "accepted", sent_s) for sent_s, refused in sent
    ]
    for now_s, what, sent_s in sorted(events):
        if what == "sent":
            state.note_sent()
        elif what == "refused":
            state.note_refused(sent_s, now_s, None)
        else:
            state.note_accepted(sent_s, now_s)
        assert not state.wall.stands
        assert state.suspected <= 0.1
    assert state.is_trial
    assert state.per_s == pytest.approx(0.8 * 0.9 * 20)


def test_a_hint_holds_for_all_when_everything_is_refused() -> None:
    rate = LocalRate(6000)
    for sent_s in (1000.0, 1000.05, 1000.1):
        rate.refused(sent_s, sent_s + 0.1, 30.0)
    assert rate.reserve(1000.3) == pytest.approx(1000.2 + 30.0)


def test_a_hint_holds_for_ten_minutes_at_most() -> None:
    rate = LocalRate()
    for sent_s in (1000.0, 1000.05, 1000.1):
        rate.refused(sent_s, sent_s + 0.1, 1e9)
    assert rate.reserve(1000.3) == pytest.approx(1000.2 + 600.0)


def test_one_refusal_among_answers_does_not_hold_the_others() -> None:
    rate = LocalRate()
    rate.answered(1000.0, 1000.1)
    rate.refused(1000.05, 1000.15, 30.0)
    assert rate.reserve(1000.2) < 1001.0


def test_behind_a_wall_one_request_at_a_time_goes_out() -> None:
    rate = LocalRate()
    for k in range(32):
        rate.refused(1000 + k / 100, 1000.1 + k / 100, None)
    slots = [rate.reserve(1000.5) for _ in range(4)]
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(slots)]
    assert all(gap_s >= 0.25 for gap_s in gaps_s)
    for slot_s in slots:
        rate.refused(slot_s, slot_s + 0.1, None)
    assert rate.reserve(slots[-1] + 0.1) - slots[-1] == pytest.approx(4.0)
    rate.answered(slots[-1] + 0.05, slots[-1] + 0.2)
    assert [rate.reserve(slots[-1] + 5) for _ in range(3)] == [slots[-1] + 5] * 3, "the wall is gone"


def test_a_long_wall_shows_a_quota_per_minute() -> None:
    state = LearntRate()
    regular(state, 100, 1000, 1006)
    for k in range(10):
        state.note_refused(1006 + k / 10, 1006.1 + k / 10, None)
    for sent_s in (1012.0, 1020.0):
        state.note_refused(sent_s, sent_s + 0.1, None)
    state.note_accepted(1060.5, 1060.6)
    assert state.level_per_s == pytest.approx(600 / 60)
    assert state.per_s == pytest.approx(0.95 * 10)
    assert not state.wall.stands
    regular(state, 9.5, 1061, 1119)
    assert state.per_s <= 1.005 * 10, "more than the quota is tried after a minute only"


def test_refusals_before_any_answer_teach_no_rate() -> None:
    state = LearntRate()
    state.note_refused(1000.0, 1000.1, None)
    assert math.isinf(state.per_s)
