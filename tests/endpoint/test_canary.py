"""The canary, and when rejections mean the endpoint rather than clips."""

from __future__ import annotations

from endpoint.canary import REJECTIONS_IN_A_ROW, Canary


def proven() -> Canary:
    canary = Canary()
    canary.sent("first")
    canary.answered("first")
    return canary


def test_until_the_first_answer_requests_go_one_at_a_time() -> None:
    canary = Canary()
    assert canary.may_send("a")
    canary.sent("a")
    assert not canary.may_send("b")
    assert canary.may_send("a")  # again, after a failure
    canary.answered("a")
    canary.sent("b")
    assert canary.may_send("c")


def test_the_first_rejection_ends_the_run_if_nothing_was_ever_answered() -> None:
    canary = Canary()
    canary.sent("a")
    assert canary.rejected("a")


def test_an_endpoint_that_is_known_to_answer_needs_no_canary() -> None:
    canary = Canary(has_answered=True)
    canary.sent("a")
    assert canary.may_send("b")
    assert not canary.rejected("a")
    assert not canary.gave_up("b")


def test_giving_up_ends_the_run_only_if_nothing_was_ever_answered() -> None:
    assert Canary().gave_up("a")
    assert not proven().gave_up("a")


def test_rejections_in_a_row_end_the_run() -> None:
    canary = proven()
    for count in range(1, REJECTIONS_IN_A_ROW):
        assert canary.may_send(count)
        canary.sent(count)
        assert not canary.rejected(count)
    canary.sent("last")
    assert canary.rejected("last")


def test_an_answer_between_begins_the_count_anew() -> None:
    canary = proven()
    for _ in range(3):
        for count in range(REJECTIONS_IN_A_ROW - 1):
            canary.sent(count)
            assert not canary.rejected(count)
        canary.sent("good")
        canary.answered("good")


def test_rejections_of_what_was_out_before_the_series_was_noticed_are_not_counted() -> None:
    canary = proven()
    for number in range(64):
        canary.sent(number)
    assert not any(canary.rejected(number) for number in range(64))
    assert canary.is_careful


def test_after_four_rejections_in_a_row_requests_go_one_at_a_time_until_an_answer() -> None:
    canary = proven()
    for number in range(4):
        assert canary.may_send(number)
        canary.sent(number)
    for number in range(4):
        canary.rejected(number)
    canary.sent("alone")
    assert not canary.may_send("other")
    canary.gave_up("alone")
    assert canary.may_send("other")
    canary.sent("other")
    canary.answered("other")
    canary.sent("next")
    assert canary.may_send("side by side")


def test_an_endpoint_that_stops_answering_ends_the_run_after_so_many_in_a_row() -> None:
    canary = Canary(give_ups=3)
    canary.sent("first")
    canary.answered("first")
    assert [canary.gave_up(number) for number in range(2)] == [False, False]
    canary.answered("one in between")
    assert [canary.gave_up(number) for number in range(3)] == [False, False, True]
