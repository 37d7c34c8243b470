from __future__ import annotations

import pytest

from endpoint.wall import Wall


def refuse(wall: Wall, *sent_s: float, hint_s: float | None = None) -> list[bool]:
    """Sends requests that are refused 0.1 s later; whether each shows that a wall stands now."""
    shown = []
    for time_s in sent_s:
        wall.sent += 1
        shown.append(wall.note_refused(time_s, time_s + 0.1, hint_s))
    return shown


def test_three_refusals_in_a_row_are_a_wall() -> None:
    wall = Wall()
    assert refuse(wall, 1000.0, 1000.1, 1000.2, 1000.3) == [False, False, True, False]
    assert wall.stands


def test_refusals_at_one_moment_are_none_yet() -> None:
    wall = Wall()
    assert refuse(wall, 1000.0, 1000.01, 1000.02) == [False, False, True]
    assert not wall.stands
    assert refuse(wall, 1000.06) == [True]
    assert wall.stands


def test_an_answer_to_what_was_sent_since_ends_the_row() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1)
    wall.note_accepted(1000.05)
    assert refuse(wall, 1000.2, 1000.3) == [False, False]
    wall.note_accepted(1000.1)  # sent before this row
    assert refuse(wall, 1000.4) == [True]


def test_refusals_among_many_requests_without_an_answer_yet_are_none() -> None:
    wall = Wall()
    for second in range(10):
        wall.sent += 9
        assert refuse(wall, 1000.0 + second) == [False]
    assert not wall.stands


def test_while_it_stands_it_is_tried_less_and_less_often() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1, 1000.2)
    pauses_s = [wall.pause_s]
    for k in range(6):
        refuse(wall, 1001.0 + 5 * k)
        pauses_s.append(wall.pause_s)
    assert pauses_s == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_refusals_of_what_was_sent_before_a_pause_do_not_make_it_longer() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1, 1000.2)
    for _ in range(30):
        wall.note_refused(1000.25, 1000.4, None)
    assert wall.pause_s == 0.25


def test_it_falls_with_the_first_answer_to_what_was_sent_after_the_last_refusal() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1, 1000.2)
    wall.note_accepted(1000.15)
    assert wall.stands
    wall.note_accepted(1000.5)
    assert not wall.stands


@pytest.mark.parametrize(
    ("tries_s", "hint_s", "accepted_s", "was_long"),
    [
        ((1002.0, 1004.0), None, 1009.0, True),
        ((1002.0, 1004.0), None, 1006.0, False),
        # A client that was slow or had nothing to send did not try it.
        ((), None, 1030.0, False),
        ((), 30.0, 1030.5, True),
    ],
)
def test_a_wall_is_long_if_it_was_tried_for_some_seconds(
    tries_s: tuple[float, ...], hint_s: float | None, accepted_s: float, was_long: bool
) -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1, 1000.2, hint_s=hint_s)
    refuse(wall, *tries_s)
    assert wall.note_accepted(accepted_s) is was_long


def test_a_wall_that_held_all_there_was_to_send_was_long() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.01, 1000.02, hint_s=30.0)
    assert not wall.stands
    assert wall.note_accepted(1030.5)


def test_a_few_refusals_with_long_hints_are_no_wall_if_others_are_answered() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.01, 1000.02, hint_s=30.0)
    assert not wall.note_accepted(1000.03)
    assert not wall.note_accepted(1030.5)


def test_a_hint_holds_for_ten_minutes_at_most_and_never_becomes_shorter() -> None:
    wall = Wall()
    refuse(wall, 1000.0, 1000.1, 1000.2, hint_s=30.0)
    assert wall.hold_s == pytest.approx(1000.3 + 30)
    refuse(wall, 1001.0, hint_s=2.0)
    assert wall.hold_s == pytest.approx(1000.3 + 30)
    refuse(wall, 1002.0, hint_s=1e9)
    assert wall.hold_s == pytest.approx(1002.1 + 600)
