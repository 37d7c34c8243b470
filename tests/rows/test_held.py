"""Of what several runs stored of a recording, what counts."""

from rows.held import Held
from tests.rows.samples import census, embedding_row, failure_row, receipts


def refused(clip_id: str, *, retryable: bool = False, code: str = "rejected"):
    return failure_row(clip_id, stage="endpoint", code=code, retryable=retryable, start_s=2.0)


def is_done(held: Held, segment_id: str = "s", *, retry_failed: bool = False) -> bool:
    return held.is_done(segment_id, held.settled(retry_failed=retry_failed), retry_failed=retry_failed)


def test_a_segment_is_done_when_each_of_its_clips_has_an_embedding_or_failed_for_good() -> None:
    held = Held(receipts("s", embedding_row("a"), refused("b"), census(("a", "b"))))
    assert is_done(held)
    assert not is_done(held, retry_failed=True)
    assert held.settled(retry_failed=False) == {"a": 6.0, "b": 2.0}
    assert held.settled(retry_failed=True) == {"a": 6.0}


def test_a_segment_is_not_done_while_a_clip_is_missing_or_may_still_pass() -> None:
    assert not is_done(Held(receipts("s", embedding_row("a"), census(("a", "b")))))
    assert not is_done(Held(receipts("s", embedding_row("a"), refused("b", retryable=True), census(("a", "b")))))
    assert is_done(Held(receipts("s", census(()))))


def test_a_segment_without_a_census_is_not_done_whatever_rows_there_are() -> None:
    held = Held(receipts("s", embedding_row("a")))
    assert not is_done(held)
    assert held.census("s") is None
    assert list(held.embedded) == ["a"]


def test_a_recording_that_could_not_be_read_is_done_unless_that_may_pass() -> None:
    broken = receipts("s", failure_row(code="not_audio"), census(()))
    busy = receipts("s", failure_row(code="storage_error", retryable=True), census(()))
    assert is_done(Held(broken))
    assert not is_done(Held(broken), retry_failed=True)
    assert not is_done(Held(busy))


def test_a_recording_that_could_not_be_fetched_is_looked_at_again_when_it_is_asked_for_again() -> None:
    gone = receipts("s", failure_row(stage="fetch", code="missing_file"), census(()))
    assert not is_done(Held(gone))


def test_a_later_runs_census_and_failures_take_the_place_of_an_earlier_ones() -> None:
    first = receipts("s", failure_row(code="storage_error", retryable=True), census(()), run_id="run1", file="run1/f")
    second = receipts("s", embedding_row("a"), census(("a",)), run_id="run2", file="run2/f")
    for order in (first + second, second + first):
        held = Held(order)
        assert held.census("s") == census(("a",))
        assert held.segment_failures("s") == []
        assert is_done(held)


def test_an_embedding_counts_more_than_a_failure_whichever_came_first() -> None:
    embedded = receipts("s", embedding_row("a"), run_id="run1", file="run1/f")
    failed = receipts("s", refused("a"), run_id="run2", file="run2/f")
    for order in (embedded + failed, failed + embedded):
        held = Held([*order, *receipts("s", census(("a",)), run_id="run2", file="run2/g")])
        assert held.embedded["a"][0] == "run1/f"
        assert is_done(held, retry_failed=True)


def test_of_a_clip_that_was_embedded_twice_the_first_row_counts() -> None:
    later = receipts("s", embedding_row("a"), run_id="run2", file="run2/f")
    first = receipts("s", embedding_row("a"), run_id="run1", file="run1/z")
    held = Held(later + first)
    assert held.embedded["a"][0] == "run1/z"


def test_of_two_refusals_the_later_counts() -> None:
    early = receipts("s", refused("a", code="timeout", retryable=True), run_id="run1", file="run1/f")
    late = receipts("s", refused("a", code="rejected"), census(("a",)), run_id="run2", file="run2/f")
    held = Held(late + early)
    failure = held.clip_failure("a")
    assert failure is not None
    assert failure.code == "rejected"
    assert is_done(held)


def test_segments_of_a_recording_are_told_apart() -> None:
    held = Held([*receipts("s1", embedding_row("a"), census(("a",))), *receipts("s2", census(("b",)))])
    assert is_done(held, "s1")
    assert not is_done(held, "s2")
