from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.tally import Share, Tally

requests = st.lists(st.tuples(st.floats(1000, 1200), st.booleans()), max_size=80)


@given(requests, st.integers(995, 1205), st.integers(0, 80))
def test_requests_of_some_seconds_are_those_sent_in_them(
    sent: list[tuple[float, bool]], first: int, seconds: int
) -> None:
    tally = Tally()
    newest = 0
    expected: list[tuple[float, bool]] = []
    for sent_s, is_accepted in sent:
        tally.count(sent_s, is_accepted=is_accepted)
        newest = max(newest, math.floor(sent_s))
        expected.append((sent_s, is_accepted))
        # What is a minute older than the newest is forgotten.
        expected = [(s, a) for s, a in expected if math.floor(s) > newest - 60]
    counted = [is_accepted for sent_s, is_accepted in expected if first <= sent_s < first + seconds]
    assert tally.share(range(first, first + seconds)) == Share(counted.count(True), counted.count(False))


def test_what_was_accepted_in_a_minute_is_forgotten_as_time_passes() -> None:
    tally = Tally()
    for second in range(100):
        for _ in range(1 + second % 2):
            tally.count(1000.5 + second, is_accepted=True)
    tally.count(1099.0, is_accepted=False)
    assert tally.accepted_per_minute(1099.9) == 90
    assert tally.accepted_per_minute(1129.0) == 45
    assert tally.accepted_per_minute(2000.0) == 0


def test_the_accepted_per_second_are_those_of_the_last_seconds_with_requests() -> None:
    tally = Tally()
    for second, accepted in {1000: 7, 1004: 5, 1009: 1}.items():
        for _ in range(accepted):
            tally.count(second + 0.5, is_accepted=True)
    tally.count(1006.5, is_accepted=False)
    assert tally.accepted_per_s(range(1000, 1010), 4) == pytest.approx((7 + 5 + 0 + 1) / 4)
    assert tally.accepted_per_s(range(1000, 1010), 2) == pytest.approx((0 + 1) / 2)
    assert tally.accepted_per_s(range(1000, 1009), 2) == pytest.approx((5 + 0) / 2)
    assert tally.accepted_per_s(range(1010, 1020), 2) == 0
    assert tally.most_accepted_per_s(range(1001, 1010)) == 5


def test_of_a_few_requests_some_refusals_show_little() -> None:
    assert Share(9, 1).refused_share < 0.08
    assert Share(900, 100).refused_share == pytest.approx(0.1, rel=0.01)
    assert Share(0, 0).refused_share == 0
