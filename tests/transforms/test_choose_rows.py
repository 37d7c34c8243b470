"""One row is chosen for each clip, whatever the receipts look like: hypothesis stands for bundles that were tried again."""

from collections import Counter
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from audio.manifest import ManifestRow
from audio.recording import Recording, Take
from rows.model import Census, ClipReference, FailureRow, Receipt, RecordingRow, TableRow, WantedClip
from tests.rows.samples import census, embedding_row, failure_row
from transforms.choose_rows import COUNTS, FAILURES, RECORDINGS, ChooseRows, Chosen, LostClip, Place, Use, choose
from transforms.plan_segments import RecordingPlan

RECORDING = Recording("/data/cough.wav", "123-456", 100)
WHOLE = (Take("mean"),)


def receipt(
    file: str = "run/p/0.rows",
    clips: dict[str, int] | None = None,
    failures: tuple[FailureRow, ...] = (),
    census: Census | None = None,
    segment: str = "s",
    uri: str = RECORDING.uri,
    run: str = "run",
) -> Receipt:
    references = tuple(ClipReference(clip_id, offset, 0.0) for clip_id, offset in (clips or {}).items())
    return Receipt(uri, "123-456", segment, run, file, references, failures, census)


def plan_for(
    *segments: str,
    rows: tuple[ManifestRow, ...] = (),
    takes: tuple[Take, ...] = WHOLE,
    uri: str = RECORDING.uri,
    **changes: object,
) -> RecordingPlan:
    of = RECORDING._replace(uri=uri)
    plan = RecordingPlan(of, tuple((segment, takes) for segment in segments or ("s",)), rows, (), ())
    return plan._replace(**changes)


def chosen(receipts: list[Receipt], plan: RecordingPlan | None = None, *, unfinished: bool = False) -> Chosen:
    return choose(plan or plan_for(), receipts, may_be_unfinished=unfinished)


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
    files = [f"run/p/{attempt}-{number}.rows" for attempt in "xy" for number in range(draw(st.integers(1, 3)))]
    some_files = st.sets(st.sampled_from(files), min_size=1)
    counted = census((), draw(st.integers(0, 2)), draw(st.integers(0, 2)))
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
    wanted = tuple(WantedClip(clip_id, ((0, index),)) for index, clip_id in enumerate([*embedded, *failed]))
    with_census = draw(some_files)
    receipts = [
        receipt(
            file,
            {clip_id: offset for clip_id, places in embedded.items() for place, offset in places if place == file},
            tuple(failures[file]),
            counted._replace(clips=wanted) if file in with_census else None,
        )
        for file in files
    ]
    skipped = counted.skipped_too_short, counted.skipped_too_quiet
    return Story(embedded, failed, *skipped, recording_failed, receipts)


@given(stories())
def test_every_clip_has_one_row_and_the_recording_its_counts(story: Story) -> None:
    places, row, failures, left = chosen(story.receipts)
    assert Counter((file, place.offset) for file, place in places) == Counter(map(min, story.embedded.values()))
    assert all(len(place.uses) == 1 for _, place in places)
    assert left == 0
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
    assert chosen(data.draw(st.permutations(repeated))) == chosen(story.receipts)


@given(stories(), st.data())
def test_a_clip_without_a_row_is_never_passed_over(story: Story, data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from([*story.embedded, *story.failed, "one more"]))
    more = (WantedClip("one more", ((0, 9),)),) if lost == "one more" else ()
    receipts = [
        some._replace(
            clips=tuple(reference for reference in some.clips if reference.clip_id != lost),
            failures=tuple(failure for failure in some.failures if failure.clip_id != lost),
            census=some.census and some.census._replace(clips=some.census.clips + more),
        )
        for some in story.receipts
    ]
    with pytest.raises(
        LostClip, match=r"'/data/cough.wav' has 0 segments without a census and 1 clips that are neither"
    ):
        chosen(receipts)
    left = chosen(receipts, unfinished=True)
    assert (left.left_clips, left.recording.status) == (1, "unfinished")
    assert left.recording.clips == left.recording.embedded + left.recording.failed + story.too_short + story.too_quiet


def test_rows_without_a_census_are_not_taken_for_all_there_are() -> None:
    with pytest.raises(LostClip, match="1 segments without a census"):
        chosen([receipt(clips={"a": 10})])


def test_a_segment_that_was_not_reached_leaves_its_recording_unfinished() -> None:
    whole = receipt(clips={"a": 10}, census=census(("a",)), segment="s1")
    one = chosen([whole], plan_for("s1", "s2"), unfinished=True)
    assert (one.recording.status, one.recording.embedded, one.recording.clips, one.left_clips) == (
        "unfinished",
        1,
        1,
        0,
    )


def test_rows_of_clips_that_nobody_asks_for_today_stay_out() -> None:
    two = chosen([receipt(clips={"a": 10, "of another hop": 20}, census=census(("a",)))])
    assert [place.offset for _, place in two.places] == [10]


def test_what_earlier_runs_stored_counts_as_what_this_one_does() -> None:
    early = receipt("run0/p/0.rows", {"a": 10}, census=census(("a", "b")), run="run0")
    late = receipt("run1/p/0.rows", {"b": 10}, census=census(("a", "b")), run="run1")
    both = chosen([late], plan_for(receipts=(early,)))
    assert [(file, place.offset) for file, place in both.places] == [("run0/p/0.rows", 10), ("run1/p/0.rows", 10)]
    assert both.recording.status == "embedded"


EVENT, OTHER = Take("mean", 8000, 24000), Take("mean", 40000, 99000)


def row(number: int, take: Take, label: str = "") -> ManifestRow:
    return ManifestRow(number, number + 1, RECORDING.uri, take, (("label", label),), f"{number:016x}")


def test_each_row_of_the_manifest_and_clip_is_a_row_of_the_table() -> None:
    rows = (row(1, EVENT, "cough"), row(2, EVENT, "sneeze"), row(5, OTHER, "snore"))
    counted = census(("a", "b", "c"))._replace(
        clips=(WantedClip("a", ((0, 0),)), WantedClip("b", ((0, 1), (1, 0))), WantedClip("c", ((1, 1),)))
    )
    some = chosen(
        [receipt(clips={"a": 10, "b": 20, "c": 30}, census=counted)], plan_for(rows=rows, takes=(EVENT, OTHER))
    )
    cough, sneeze, snore = (("label", "cough"),), (("label", "sneeze"),), (("label", "snore"),)
    assert [place for _, place in some.places] == [
        Place(10, (Use(0, 1, cough), Use(0, 2, sneeze))),
        Place(20, (Use(1, 1, cough), Use(1, 2, sneeze), Use(0, 5, snore))),
        Place(30, (Use(1, 5, snore),)),
    ]
    assert (some.recording.clips, some.recording.embedded) == (3, 3)


def test_metadata_are_in_no_repr() -> None:
    use = Use(0, 1, (("diagnosis", "secret"),))
    assert "secret" not in repr(
        [use, Place(7, (use,)), TableRow(embedding_row(), 1, use.metadata), row(1, EVENT, "secret")]
    )


def test_an_event_that_the_recording_cannot_give_is_a_failure_of_each_row_that_asks_for_it() -> None:
    rows = (row(1, EVENT), row(2, OTHER), row(3, OTHER))
    counted = census(("a",), failed_takes=((1, "event_beyond_end", "the event begins after the recording's end"),))
    some = chosen([receipt(clips={"a": 10}, census=counted)], plan_for(rows=rows, takes=(EVENT, OTHER)))
    assert [(f.manifest_row, f.stage, f.code, f.message) for f in some.failures] == [
        (2, "manifest", "event_beyond_end", "line 3: the event begins after the recording's end"),
        (3, "manifest", "event_beyond_end", "line 4: the event begins after the recording's end"),
    ]
    assert some.recording.status == "partial"


def test_what_cannot_be_listed_ends_as_a_recording_that_failed() -> None:
    failures = tuple(failure_row(stage="list", code="missing_file", manifest_row=number) for number in (4, 7))
    places, recording, found, _ = chosen([], RecordingPlan(Recording("/lost.wav", "", 0), (), (), (), failures))
    assert places == []
    assert (recording.recording_uri, recording.status, recording.clips) == ("/lost.wav", "failed", 0)
    assert recording.failure_codes == ["missing_file"]
    assert [failure.manifest_row for failure in found] == [4, 7]


def test_a_recordings_row_sums_up_its_segments() -> None:
    first = census(("a",), too_short=1, duration_s=300.0)
    second = census(("b",), too_quiet=2, duration_s=12.5)
    receipts = [
        receipt(clips={"a": 10}, census=first, segment="s1"),
        receipt("run/q/0.rows", clips={"b": 10}, census=second, segment="s2"),
    ]
    recording = chosen(receipts, plan_for("s1", "s2")).recording
    assert (recording.duration_s, recording.clips, recording.embedded) == (312.5, 5, 2)
    assert (recording.skipped_too_short, recording.skipped_too_quiet) == (1, 2)


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
        census=census(
            (*(f"e{number}" for number in range(embedded)), *(f"f{number}" for number in range(failed))),
            too_quiet=skipped,
        ),
    )
    assert chosen([some]).recording.status == status


def test_a_recordings_row_has_what_its_census_says() -> None:
    counted = Census("/a.wav", "1-2", 77, (), (), 1, 0, 0.25, 8000, 2, "amr", "amr_nb", "ffmpeg", 3, 0.5)
    plan = RecordingPlan(Recording("/a.wav", "1-2", 77), (("s", WHOLE),), (), (), ())
    assert chosen([receipt(census=counted, uri="/a.wav")], plan).recording == RecordingRow(
        "/a.wav", "1-2", 77, 0.25, "amr", "amr_nb", "ffmpeg", 8000, 2, 3, 0.5, 1, 0, 0, 1, 0, "skipped", []
    )


def test_failures_come_by_their_place_in_the_recording() -> None:
    failures = tuple(
        failure_row(clip_id, start_s=start_s) for clip_id, start_s in (("b", 4.0), (None, None), ("a", 2.0))
    )
    found = chosen([receipt(failures=failures, census=census(("a", "b")))]).failures
    assert [failure.start_s for failure in found] == [None, 2.0, 4.0]


def test_places_are_grouped_by_file_over_all_recordings() -> None:
    receipts = [
        receipt("run/p/0.rows", {"a": 10, "b": 30}, census=census(("a", "b", "c"))),
        receipt("run/p/1.rows", {"c": 10}),
        receipt("run/p/0.rows", {"d": 20}, census=census(("d",), uri="/other.wav"), segment="s2", uri="/other.wav"),
    ]
    earlier = receipt("old/p/0.rows", {"e": 7}, census=census(("e",), uri="/old.wav"), segment="s3", uri="/old.wav")
    plans = [
        plan_for(),
        plan_for("s2", uri="/other.wav"),
        plan_for("s3", uri="/old.wav", receipts=(earlier,)),
        RecordingPlan(Recording("/lost.wav", "", 0), (), (), (), (failure_row(),)),
    ]

    def are_places(actual: list[tuple[str, list[tuple[Place, ...]]]]) -> None:
        by_file = {file: sorted(place.offset for some in places for place in some) for file, places in actual}
        assert by_file == {"run/p/0.rows": [10, 20, 30], "run/p/1.rows": [10], "old/p/0.rows": [7]}
        assert len(actual) == 3

    def are_recordings(actual: list[RecordingRow]) -> None:
        assert sorted((row.recording_uri, row.embedded, row.status) for row in actual) == [
            ("/data/cough.wav", 3, "embedded"),
            ("/lost.wav", 0, "failed"),
            ("/old.wav", 1, "embedded"),
            ("/other.wav", 1, "embedded"),
        ]

    def are_failures(actual: list[FailureRow]) -> None:
        assert actual == [failure_row()]

    def are_counts(actual: list[dict[str, int]]) -> None:
        total: Counter[str] = Counter()
        for some in actual:
            total.update(some)
        assert total == {"reused": 1, "rows": 5}

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        keyed = pipeline | "Plans" >> beam.Create([(plan.recording.uri, plan) for plan in plans])
        receipts_by_uri = pipeline | "Receipts" >> beam.Create([(some.recording_uri, some) for some in receipts])
        rows = (keyed, receipts_by_uri) | ChooseRows("run", may_be_unfinished=False)
        assert_that(rows["places"], are_places, label="places")
        assert_that(rows[RECORDINGS], are_recordings, label="recordings")
        assert_that(rows[FAILURES], are_failures, label="failures")
        assert_that(rows[COUNTS], are_counts, label="counts")
