"""One row is chosen for each clip, whatever the receipts look like: hypothesis stands for bundles that were tried again."""

from collections import Counter
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from rows.model import Census, ClipReference, FailureRow, Receipt, RecordingRow
from tests.rows.samples import census, failure_row
from transforms.choose_rows import FAILURES, RECORDINGS, ChooseRows, LostClip, choose


def receipt(
    file: str = "p/0.rows",
    clips: dict[str, int] | None = None,
    failures: tuple[FailureRow, ...] = (),
    census: Census | None = None,
    segment: str = "s",
) -> Receipt:
    references = tuple(ClipReference(clip_id, offset) for clip_id, offset in (clips or {}).items())
    return Receipt(segment, file, references, failures, census)


class Story(NamedTuple):
    """What happened to a segment, and the receipts that tell it."""

    embedded: dict[str, list[tuple[str, int]]]
    """All places of each embedded clip."""
    failed: set[str]
    too_short: int
    too_quiet: int
    recording_failed: bool
    receipts: list[Receipt]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Clips with rows in one or more of some files; a clip may have failed in one attempt and be embedded in another."""
    files = [f"p/{attempt}-{number}.rows" for attempt in "xy" for number in range(draw(st.integers(1, 3)))]
    some_files = st.sets(st.sampled_from(files), min_size=1)
    counted = census(0, draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    embedded: dict[str, list[tuple[str, int]]] = {}
    failures: dict[str, list[FailureRow]] = {file: [] for file in files}
    failed: set[str] = set()
    for number in range(draw(st.integers(0, 6))):
        clip_id = f"clip {number}"
        outcome = draw(st.sampled_from(["embedded", "failed", "both"]))
        if outcome != "failed":
            embedded[clip_id] = [(file, 10 * number) for file in draw(some_files)]
        else:
            failed.add(clip_id)
        if outcome != "embedded":
            for file in draw(some_files):
                attempts, code = draw(st.integers(1, 3)), draw(st.sampled_from(["timeout", "quota"]))
                failures[file].append(failure_row(clip_id, start_s=2.0 * number, attempts=attempts, code=code))
    recording_failed = draw(st.booleans())
    if recording_failed:
        failures[draw(st.sampled_from(files))].append(failure_row(None))
    clips = len(embedded) + len(failed) + counted.skipped_too_short + counted.skipped_too_quiet
    with_census = draw(some_files)
    receipts = [
        receipt(
            file,
            {clip_id: offset for clip_id, places in embedded.items() for place, offset in places if place == file},
            tuple(failures[file]),
            counted._replace(clips=clips) if file in with_census else None,
        )
        for file in files
    ]
    skipped = counted.skipped_too_short, counted.skipped_too_quiet
    return Story(embedded, failed, *skipped, recording_failed, receipts)


@given(stories())
def test_every_clip_has_one_row_and_the_recording_its_counts(story: Story) -> None:
    places, row, failures = choose(story.receipts)
    assert {reference.clip_id: (file, reference.offset) for file, reference in places} == {
        clip_id: min(places) for clip_id, places in story.embedded.items()
    }
    assert len(places) == len(story.embedded)
    assert Counter(failure.clip_id for failure in failures) == Counter(
        [*story.failed, *[None for _ in range(story.recording_failed)]]
    )
    assert (row.embedded, row.failed) == (len(story.embedded), len(story.failed))
    assert (row.skipped_too_short, row.skipped_too_quiet) == (story.too_short, story.too_quiet)
    assert row.clips == row.embedded + row.failed + row.skipped_too_short + row.skipped_too_quiet
    assert row.failure_codes == sorted({failure.code for failure in failures})


@given(stories(), st.data())
def test_neither_order_nor_repetition_of_receipts_changes_the_rows(story: Story, data: st.DataObject) -> None:
    repeated = story.receipts + data.draw(st.lists(st.sampled_from(story.receipts)))
    assert choose(data.draw(st.permutations(repeated))) == choose(story.receipts)


@given(stories(), st.data())
def test_a_clip_without_a_row_is_never_passed_over(story: Story, data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from([*story.embedded, *story.failed, "one more"]))
    receipts = [
        some._replace(
            clips=tuple(reference for reference in some.clips if reference.clip_id != lost),
            failures=tuple(failure for failure in some.failures if failure.clip_id != lost),
            census=some.census and some.census._replace(clips=some.census.clips + (lost == "one more")),
        )
        for some in story.receipts
    ]
    with pytest.raises(LostClip, match=r"'/data/cough.wav' has \d+ clips, but"):
        choose(receipts)


def test_rows_without_a_census_are_not_taken_for_all_there_are() -> None:
    with pytest.raises(LostClip, match="segment s has rows but no census"):
        choose([receipt(clips={"a": 10})])


@pytest.mark.parametrize(
    ("embedded", "failed", "skipped", "recording_failed", "status"),
    [
        (2, 0, 0, False, "embedded"),
        (2, 0, 3, False, "embedded"),
        (2, 1, 0, False, "partial"),
        (2, 0, 0, True, "partial"),
        (0, 2, 0, False, "failed"),
        (0, 0, 0, True, "failed"),
        (0, 0, 3, True, "failed"),
        (0, 0, 3, False, "skipped"),
        (0, 0, 0, False, "skipped"),
    ],
)
def test_a_recordings_status(embedded: int, failed: int, skipped: int, recording_failed: bool, status: str) -> None:
    failures = [failure_row(f"f{number}", start_s=float(number)) for number in range(failed)]
    some = receipt(
        clips={f"e{number}": number for number in range(embedded)},
        failures=(*failures, *[failure_row(None) for _ in range(recording_failed)]),
        census=census(embedded + failed + skipped, too_quiet=skipped),
    )
    assert choose([some])[1].status == status


def test_a_recordings_row_has_what_its_census_says() -> None:
    counted = Census("/a.wav", "1-2", 77, 1, 1, 0, 0.25, 8000, 2, "amr", "amr_nb", "ffmpeg", 3, 0.5)
    _, row, _ = choose([receipt(census=counted)])
    assert row == RecordingRow(
        "/a.wav", "1-2", 77, 0.25, "amr", "amr_nb", "ffmpeg", 8000, 2, 3, 0.5, 1, 0, 0, 1, 0, "skipped", []
    )


def test_failures_come_by_their_place_in_the_recording() -> None:
    failures = tuple(
        failure_row(clip_id, start_s=start_s) for clip_id, start_s in (("b", 4.0), (None, None), ("a", 2.0))
    )
    chosen = choose([receipt(failures=failures, census=census(2))])[2]
    assert [failure.start_s for failure in chosen] == [None, 2.0, 4.0]


def test_places_are_grouped_by_file_over_all_segments() -> None:
    receipts = [
        receipt("p/0.rows", {"a": 10, "b": 30}, census=census(3), segment="s1"),
        receipt("p/1.rows", {"c": 10}, segment="s1"),
        receipt("p/0.rows", {"d": 20}, census=census(1, uri="/other.wav"), segment="s2"),
        receipt("", failures=(failure_row(),), census=census(0, uri="/lost.wav"), segment="s3"),
    ]

    def are_places(actual: list[tuple[str, list[tuple[int, ...]]]]) -> None:
        by_file = {file: sorted(offset for some in offsets for offset in some) for file, offsets in actual}
        assert by_file == {"p/0.rows": [10, 20, 30], "p/1.rows": [10]}
        assert len(actual) == 2

    def are_recordings(actual: list[RecordingRow]) -> None:
        assert sorted((row.recording_uri, row.embedded, row.status) for row in actual) == [
            ("/data/cough.wav", 3, "embedded"),
            ("/lost.wav", 0, "failed"),
            ("/other.wav", 1, "embedded"),
        ]

    def are_failures(actual: list[FailureRow]) -> None:
        assert actual == [failure_row()]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        chosen = pipeline | beam.Create(receipts) | ChooseRows()
        assert_that(chosen["places"], are_places, label="places")
        assert_that(chosen[RECORDINGS], are_recordings, label="recordings")
        assert_that(chosen[FAILURES], are_failures, label="failures")
