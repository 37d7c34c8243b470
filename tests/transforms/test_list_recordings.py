from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from audio.listing import Unlisted
from audio.recording import Recording
from rows.model import Receipt
from tests.transforms.samples import recording, write_wav
from transforms.choose_rows import choose
from transforms.list_recordings import ListRecordings, _once, unlisted_receipt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings, a file that is none, and a link to nowhere."""
    for name in ("b.wav", "a.wav", "deep/c.flac"):
        write_wav(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a recording")
    (tmp_path / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    return tmp_path


def uris_of_failures(receipts: list[Receipt]) -> list[tuple[str, str, str]]:
    return [(failure.recording_uri, failure.stage, failure.code) for r in receipts for failure in r.failures]


def expect(
    inputs: tuple[str, ...],
    *,
    recordings: list[Recording],
    ignored: list[str],
    unlisted: list[str],
    limit: int | None = None,
) -> None:
    def are_unlisted(actual: list[Receipt]) -> None:
        assert uris_of_failures(actual) == [(uri, "list", "missing_file") for uri in unlisted]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        listed = pipeline | ListRecordings(inputs, limit)
        assert_that(listed["recordings"], equal_to(recordings), label="recordings")
        assert_that(listed["ignored"], equal_to(ignored), label="ignored")
        assert_that(listed["unlisted"], are_unlisted, label="unlisted")


def test_a_file_that_several_inputs_name_is_one_recording(folder: Path) -> None:
    expect(
        (str(folder), str(folder / "a.wav"), f"{folder}/*.wav", f"{folder}/**/*"),
        recordings=[recording(folder / name) for name in ("a.wav", "b.wav", "deep/c.flac", "notes.txt")],
        ignored=[str(folder / "notes.txt")],
        unlisted=[str(folder / "lost.wav")],
    )


def test_files_in_folders_that_are_no_recordings_are_named_once(folder: Path) -> None:
    expect(
        (str(folder), str(folder) + "/"),
        recordings=[recording(folder / name) for name in ("a.wav", "b.wav", "deep/c.flac")],
        ignored=[str(folder / "notes.txt")],
        unlisted=[str(folder / "lost.wav")],
    )


def test_a_limit_takes_the_first_by_uri_whatever_the_order_of_the_inputs(folder: Path) -> None:
    expect(
        (str(folder / "deep"), str(folder / "b.wav"), str(folder / "a.wav")),
        limit=2,
        recordings=[recording(folder / "a.wav"), recording(folder / "b.wav")],
        ignored=[],
        unlisted=[],
    )


def test_a_limit_beyond_what_there_is_takes_all(folder: Path) -> None:
    expect(
        (f"{folder}/[ab].wav",),
        limit=9,
        recordings=[recording(folder / f"{n}.wav") for n in "ab"],
        ignored=[],
        unlisted=[],
    )


def test_what_cannot_be_listed_ends_as_a_recording_that_failed() -> None:
    receipt = unlisted_receipt(Unlisted("/in/lost.wav", "missing_file", "it is gone"))
    places, row, failures = choose([receipt])
    assert places == []
    assert (row.recording_uri, row.status, row.clips, row.failure_codes) == (
        "/in/lost.wav",
        "failed",
        0,
        ["missing_file"],
    )
    (failure,) = failures
    assert (failure.clip_id, failure.stage, failure.message, failure.retryable) == (None, "list", "it is gone", False)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("9-1700000000000000000", "10-1700000000000000001"), ("99", "100"), ("10-5", "9-6")],
)
def test_of_a_file_that_changed_while_it_was_listed_the_latest_version_is_taken(older: str, newer: str) -> None:
    versions = [Recording("/a.wav", older, 1), Recording("/a.wav", newer, 1)]
    taken = _once(("/a.wav", versions))
    assert isinstance(taken, Recording)
    assert taken.version == newer
    assert _once(("/a.wav", reversed(versions))).version == newer


@pytest.mark.parametrize(
    ("inputs", "limit", "message"),
    [((), None, "inputs is empty"), (("/a",), 0, "limit is 0: expected at least 1")],
)
def test_wrong_arguments_are_refused_before_there_is_a_pipeline(
    inputs: tuple[str, ...], limit: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ListRecordings(inputs, limit)
