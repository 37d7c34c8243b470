"""What is left to do about each recording: what is asked of it, less what the checkpoint holds."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from audio.clips import ClipSettings
from audio.listing import Unlisted
from audio.manifest import ManifestRow
from audio.recording import Recording, Segment, Take
from rows.identity import segment_id
from rows.model import FailureRow, Receipt
from tests.rows.samples import census, embedding_row, failure_row, receipts
from tests.transforms.samples import keep, kept, recording, write_wav
from transforms.plan_segments import PlanSegments, PlanSettings, RecordingPlan, Task, plan

COUGH = Recording("/data/cough.wav", "123-456", 100)
WHOLE = Segment(COUGH, (Take("mean"),))
ALL = Take("mean")
SETTINGS = PlanSettings(ClipSettings())
ID = segment_id(WHOLE, SETTINGS.clips.choice)


def row(number: int, take: Take = ALL, label: str = "", digest: str | None = None) -> ManifestRow:
    return ManifestRow(number, number + 1, COUGH.uri, take, (("label", label),), digest or f"{number:016x}")


def test_a_new_recording_is_one_segment_to_decode() -> None:
    planned, tasks = plan([COUGH], None, SETTINGS)
    assert tasks == [Task(ID, WHOLE, ())]
    assert planned == RecordingPlan(COUGH, ((ID, WHOLE.takes),), (), (), ())


def test_a_recording_of_which_all_clips_are_held_is_not_decoded_and_its_receipts_are_kept() -> None:
    held = receipts(ID, embedding_row("a"), census(("a",)))
    planned, tasks = plan([*held, COUGH], None, SETTINGS)
    assert tasks == []
    assert planned.receipts == tuple(held)


def test_what_another_model_or_way_of_making_samples_has_left_never_counts() -> None:
    held = receipts(ID, failure_row("b", stage="endpoint", code="rejected"), census(("b",)))
    planned, tasks = plan([*held, COUGH], None, PlanSettings(ClipSettings(), fingerprint="0123456789abcdef"))
    assert [task.segment_id for task in tasks] == [segment_id(WHOLE, f"{SETTINGS.choice} 0123456789abcdef")]
    assert [receipt.census for receipt in planned.receipts] == [None]


def test_of_a_recording_that_was_cut_off_the_held_clips_are_not_sent_again() -> None:
    held = receipts(ID, embedding_row("b"), embedding_row("a"))
    _, tasks = plan([COUGH, *held], None, SETTINGS)
    assert tasks == [Task(ID, WHOLE, ("a", "b"))]


def test_what_failed_for_good_is_sent_again_only_if_that_is_asked_for() -> None:
    refused = failure_row("b", stage="endpoint", code="rejected")
    held = receipts(ID, embedding_row("a"), refused, census(("a", "b")))
    assert plan([COUGH, *held], None, SETTINGS)[1] == []
    _, tasks = plan([COUGH, *held], None, PlanSettings(ClipSettings(), retry_failed=True))
    assert tasks == [Task(ID, WHOLE, ("a",))]


def test_a_failure_that_may_pass_is_tried_again_without_what_is_settled() -> None:
    busy = failure_row("b", stage="endpoint", code="unavailable", retryable=True)
    gone = failure_row("c", stage="endpoint", code="rejected")
    held = receipts(ID, embedding_row("a"), busy, gone, census(("a", "b", "c")))
    assert plan([COUGH, *held], None, SETTINGS)[1] == [Task(ID, WHOLE, ("a", "c"))]


def test_rows_of_another_version_of_the_file_do_not_count() -> None:
    changed = COUGH._replace(version="124-789")
    planned, tasks = plan([changed, *receipts(ID, embedding_row("a"), census(("a",)))], None, SETTINGS)
    assert len(tasks) == 1
    assert tasks[0].settled == ()
    assert planned.receipts == ()


def test_with_another_hop_the_recording_is_decoded_and_clips_at_the_same_places_are_not_sent() -> None:
    held = receipts(ID, embedding_row("a"), census(("a",)))
    planned, (task,) = plan([COUGH, *held], None, PlanSettings(ClipSettings(hop_s=1.0)))
    assert task.segment_id != ID
    assert task.settled == ("a",)
    (kept,) = planned.receipts
    assert kept.census is None, "it says nothing about the clips of this hop"
    assert kept.clips == held[0].clips


def test_of_a_file_that_changed_while_it_was_listed_the_latest_version_is_taken() -> None:
    for older, newer in (("9-1700000000000000000", "10-1700000000000000001"), ("99", "100"), ("10-5", "9-6")):
        versions = [COUGH._replace(version=version) for version in (older, newer)]
        assert plan(versions, None, SETTINGS)[0].recording.version == newer
        assert plan(versions[::-1], None, SETTINGS)[0].recording.version == newer


def test_what_cannot_be_listed_is_a_failure_and_nothing_to_do() -> None:
    planned, tasks = plan([Unlisted("/in/lost.wav", "missing_file", "it is gone")], None, SETTINGS)
    assert tasks == []
    assert planned.recording == Recording("/in/lost.wav", "", 0)
    assert planned.failures == (
        FailureRow("/in/lost.wav", "", None, None, None, "list", "missing_file", "it is gone", False, 0),
    )


EVENT = Take("mean", 16000, 32000)


def test_rows_of_a_manifest_are_takes_each_once() -> None:
    rows = [row(3, EVENT, "sneeze"), row(1), row(2, EVENT, "cough")]
    planned, (task,) = plan(rows, COUGH, SETTINGS)
    assert task.segment.takes == (Take("mean"), EVENT)
    assert [found.row for found in planned.rows] == [1, 2, 3]


def test_only_rows_that_are_equal_in_every_column_merge() -> None:
    rows = [row(5, digest="same"), row(2, digest="same"), row(3, label="another")]
    planned, _ = plan(rows, COUGH, SETTINGS)
    assert [found.row for found in planned.rows] == [2, 3]


def test_a_file_that_is_missing_is_a_failure_of_each_row_with_its_line() -> None:
    planned, tasks = plan(
        [row(1), row(2, EVENT)], Unlisted(COUGH.uri, "missing_file", "there is no such file"), SETTINGS
    )
    assert tasks == []
    assert [(failure.manifest_row, failure.message) for failure in planned.failures] == [
        (1, "line 2: there is no such file"),
        (2, "line 3: there is no such file"),
    ]


def test_a_recording_whose_only_row_cannot_be_used_has_that_failure() -> None:
    wrong = failure_row(stage="manifest", code="malformed_value", manifest_row=1)
    planned, tasks = plan([wrong], None, SETTINGS)
    assert (tasks, planned.failures, planned.recording.uri) == ([], (wrong,), wrong.recording_uri)
    planned, (task,) = plan([wrong, row(2)], COUGH, SETTINGS)
    assert (planned.failures, task.segment) == ((wrong,), WHOLE)


def test_labels_that_change_leave_nothing_to_do() -> None:
    held = receipts(ID, embedding_row("a"), census(("a",)))
    planned, tasks = plan([row(1, label="relabelled"), *held], COUGH, SETTINGS)
    assert tasks == []
    assert planned.rows[0].metadata == (("label", "relabelled"),)


def run(
    asked: list[tuple[str, object]], settings: PlanSettings, folder: Path
) -> tuple[list[Task], list[tuple[str, RecordingPlan]]]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        one = pipeline | "One" >> beam.Create(asked[::2])
        other = pipeline | "Other" >> beam.Create(asked[1::2])
        planned = (one, other) | PlanSegments(settings)
        for name in ("tasks", "plans"):
            keep(planned[name], folder / name)
    return sorted(kept(folder / "tasks"), key=lambda task: task.segment.recording), sorted(kept(folder / "plans"))


def test_recordings_are_planned_by_uri_and_those_not_asked_for_are_left_out(tmp_path: Path) -> None:
    listed = [recording(write_wav(tmp_path / f"{name}.wav")) for name in "ab"]
    named = recording(write_wav(tmp_path / "named.wav"))
    stale: Receipt = receipts("x", embedding_row("a", uri="/not/asked/for.wav"))[0]
    asked: list[tuple[str, object]] = [(of.uri, of) for of in (*listed, *listed)]
    asked += [(stale.recording_uri, stale), (named.uri, row(1)._replace(uri=named.uri))]
    missing = str(tmp_path / "missing.wav")
    asked.append((missing, row(2)._replace(uri=missing)))
    tasks, plans = run(asked, SETTINGS, tmp_path)
    assert [task.segment.recording for task in tasks if task.segment.recording in listed] == listed
    assert {task.segment.recording for task in tasks} == {*listed, named}
    assert [uri for uri, _ in plans] == sorted([listed[0].uri, listed[1].uri, named.uri, missing])
    (gone,) = [planned for uri, planned in plans if uri == missing]
    assert [(failure.code, failure.manifest_row) for failure in gone.failures] == [("missing_file", 2)]


@pytest.mark.parametrize(("limit", "expected"), [(2, "ab"), (9, "abc")])
def test_a_limit_takes_the_first_by_uri(tmp_path: Path, limit: int, expected: str) -> None:
    listed = {name: recording(write_wav(tmp_path / f"{name}.wav")) for name in "cab"}
    tasks, plans = run([(of.uri, of) for of in listed.values()], PlanSettings(ClipSettings(), limit=limit), tmp_path)
    assert [task.segment.recording for task in tasks] == [listed[name] for name in expected]
    assert [uri for uri, _ in plans] == [listed[name].uri for name in expected]


def test_a_wrong_limit_is_refused_before_there_is_a_pipeline() -> None:
    with pytest.raises(ValueError, match="limit is 0: expected at least 1"):
        PlanSegments(PlanSettings(ClipSettings(), limit=0))
