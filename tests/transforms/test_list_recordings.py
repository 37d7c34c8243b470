from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from audio.listing import Unlisted
from audio.recording import Recording
from tests.transforms.samples import recording, write_wav
from transforms.list_recordings import ListRecordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings, a file that is none, and a link to nowhere."""
    for name in ("b.wav", "a.wav", "deep/c.flac"):
        write_wav(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a recording")
    (tmp_path / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    return tmp_path


def expect(inputs: tuple[str, ...], *, recordings: list[Recording], ignored: list[str], unlisted: list[str]) -> None:
    def are_listed(actual: list[tuple[str, Recording | Unlisted]]) -> None:
        assert all(uri == item.uri for uri, item in actual)
        found = {item for _, item in actual}
        assert {item for item in found if isinstance(item, Recording)} == set(recordings)
        gone = [item for item in found if isinstance(item, Unlisted)]
        assert sorted((item.uri, item.code) for item in gone) == [(uri, "missing_file") for uri in unlisted]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        listed = pipeline | ListRecordings(inputs)
        assert_that(listed["listed"], are_listed, label="listed")
        assert_that(listed["ignored"], equal_to(ignored), label="ignored")


def test_all_that_inputs_name_is_listed_by_its_uri(folder: Path) -> None:
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


def test_no_inputs_are_refused_before_there_is_a_pipeline() -> None:
    with pytest.raises(ValueError, match="inputs is empty"):
        ListRecordings(())
