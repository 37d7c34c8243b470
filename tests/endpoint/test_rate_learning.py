from __future__ import annotations

import itertools
import math

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


@pytest.mark.parametrize(("fraction", "seed"), [(0.02, 1), (0.1, 1), (0.1, 2)])
@pytest.mark.parametrize("limit", [None, 6000, 600])
def test_refusals_by_chance_do_not_slow_the_client_down_for_good(
    fraction: float, seed: int, limit: float | None
) -> None:
    settings = {"duration_s": 240, "in_flight": 32, "latency_s": 0.2, "has_hints": True}
    undisturbed = simulate(RandomFaults(0, seed), [LocalRate(limit)], **settings)
    disturbed = simulate(RandomFaults(fraction, seed), [LocalRate(limit)], **settings)
    # The rarer refusals are, and the slower requests, the longer it takes to see that they come by chance.
    assert accepted(disturbed, 60) > (0.5 if (limit, fraction) == (600, 0.02) else 0.6) * accepted(undisturbed, 60)


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


def learnt(accepted_s: list[float]) -> LearntRate:
    state = LearntRate()
    for sent_s in accepted_s:
        state.note_accepted(sent_s, sent_s + 0.1)
    return state


def test_the_first_cut_is_to_what_a_minute_accepted_or_to_07_of_the_present_rate() -> None:
    a_minute = learnt([1000 + k / 10 for k in range(600)])
    a_minute.note_refused(1060.0, 1060.1, None)
    assert a_minute.per_s == pytest.approx(0.95 * 10, rel=0.03)

    ten_seconds = learnt([1000 + k / 10 for k in range(100)])
    ten_seconds.note_refused(1010.0, 1010.1, None)
    assert ten_seconds.per_s == pytest.approx(0.7 * 10, rel=0.03)


def test_requests_sent_before_a_cut_do_not_cut_again() -> None:
    state = learnt([1000 + k / 10 for k in range(600)])
    state.note_refused(1060.0, 1060.1, None)
    cut_to = state.per_s
    state.note_refused(1060.01, 1060.12, None)
    assert state.per_s == cut_to


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


def test_refusals_before_any_answer_teach_no_rate() -> None:
    state = LearntRate()
    state.note_refused(1000.0, 1000.1, None)
    assert math.isinf(state.per_s)
