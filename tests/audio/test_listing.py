import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.listing import Ignored, ListingError, PatternError, Unlisted, glob_to_regex, list_input
from audio.recording import Recording

ODD_NAMES = (
    "with space.wav",
    "hash#1.wav",
    "what?.wav",
    "a&b.wav",
    "100%20.wav",
    "-dash.wav",
    "new\nline.wav",
    "кашель.wav",
    "🤧.wav",
    "[bracket].wav",
    "star*.wav",
    "quote'\".wav",
    "back\\slash.wav",
)


def uris(text: object) -> list[str]:
    return [listed.uri for listed in list_input(str(text)) if isinstance(listed, Recording)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.WAV", "notes.txt", "noextension", "sub/c.mp3", "sub/deep/d.flac", "sub/deep/.hidden.ogg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return tmp_path


def test_a_file_is_itself_whatever_its_extension(folder: Path) -> None:
    (listed,) = list_input(str(folder / "notes.txt"))
    status = (folder / "notes.txt").stat()
    assert listed == Recording(str(folder / "notes.txt"), f"{status.st_size}-{status.st_mtime_ns}", 9)


def test_a_folder_is_its_audio_files_and_names_the_others(folder: Path) -> None:
    expected = ["a.wav", "b.WAV", "sub/c.mp3", "sub/deep/.hidden.ogg", "sub/deep/d.flac"]
    assert uris(folder) == [str(folder / name) for name in expected]
    assert [i.uri for i in list_input(str(folder)) if isinstance(i, Ignored)] == [
        str(folder / "noextension"),
        str(folder / "notes.txt"),
    ]


def test_a_relative_path_gives_absolute_uris(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert uris("sub") == uris(folder / "sub")
    assert uris("./sub/../a.wav") == uris("*.wav") == [str(folder / "a.wav")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["a.wav"]),
        ("?.WAV", ["b.WAV"]),
        ("[ab].*", ["a.wav", "b.WAV"]),
        ("[!a].*", ["b.WAV"]),
        ("**.flac", ["sub/deep/d.flac"]),
        ("**/*.mp3", ["sub/c.mp3"]),
        ("**/*.wav", ["a.wav"]),
        ("sub/**", ["sub/c.mp3", "sub/deep/.hidden.ogg", "sub/deep/d.flac"]),
        ("*/*.mp3", ["sub/c.mp3"]),
        ("s?b/c.mp3", ["sub/c.mp3"]),
        ("*", ["a.wav", "b.WAV", "noextension", "notes.txt"]),
        ("missing*", []),
        ("missing.wav", []),
    ],
)
def test_globs(folder: Path, pattern: str, expected: list[str]) -> None:
    assert uris(folder / pattern) == [str(folder / name) for name in expected]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_taken_literally_where_it_exists(tmp_path: Path, name: str) -> None:
    for other in ODD_NAMES:
        (tmp_path / other).write_bytes(b"")
    assert uris(tmp_path / name) == [str(tmp_path / name)]
    assert str(tmp_path / name) in uris(tmp_path)


def test_a_name_that_is_no_utf_8_is_a_failure_that_can_be_written(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"")
    (listed,) = list_input(str(tmp_path))
    assert isinstance(listed, Unlisted)
    assert (listed.uri, listed.code) == (f"{tmp_path}/caf\\xe9.wav", "file_name")
    listed.uri.encode()


def test_links_to_folders_are_followed_once_and_broken_links_are_reported(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    listed = list(list_input(str(folder)))
    names = [item.uri for item in listed if isinstance(item, Recording)]
    assert len(names) == len(set(names)) == 5
    assert [(item.uri, item.code) for item in listed if isinstance(item, Unlisted)] == [
        (str(folder / "gone.wav"), "missing_file")
    ]


@pytest.mark.parametrize("text", ["s3://bucket/x.wav", "http://example.org/x.wav"])
def test_other_places_are_refused_by_name(text: str) -> None:
    with pytest.raises(ListingError, match=re.escape(repr(text))):
        list(list_input(text))


def test_a_folder_that_cannot_be_listed_is_an_error_that_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # root, as whom tests may run, may list everything
    with pytest.raises(ListingError, match="Permission denied"):
        list(list_input(str(folder)))


def test_a_link_in_a_circle_is_reported_and_ends_nothing(folder: Path) -> None:
    (folder / "circle.wav").symlink_to("circle.wav")
    for text in (folder, folder / "*.wav", folder / "**"):
        listed = list(list_input(str(text)))
        assert [item.uri for item in listed if isinstance(item, Unlisted)] == [str(folder / "circle.wav")]
        assert str(folder / "a.wav") in [item.uri for item in listed if isinstance(item, Recording)]


@pytest.fixture
def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `sub` may not be listed, even by root, as whom tests may run."""
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path) == folder / "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return folder


def test_a_glob_does_not_look_where_it_cannot_match(locked: Path) -> None:
    assert uris(locked / "*.wav") == [str(locked / "a.wav")]


@pytest.mark.parametrize("pattern", ["", "**", "**/*.wav"])
def test_a_folder_within_that_cannot_be_listed_is_a_failure_of_its_own(locked: Path, pattern: str) -> None:
    listed = list(list_input(str(locked / pattern)))
    assert [(item.uri, item.code) for item in listed if isinstance(item, Unlisted)] == [
        (str(locked / "sub"), "unreadable_folder")
    ]
    assert str(locked / "a.wav") in [item.uri for item in listed if isinstance(item, Recording)]


def test_two_dots_lead_where_the_system_leads(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "sub" / "deep")
    (folder / "sub" / "a.wav").write_bytes(b"the other a")
    assert uris(f"{folder}/link/../a.wav") == [str(folder / "sub" / "a.wav")]
    assert uris(f"{folder}/sub/../a.wav") == uris(f"{folder}//./a.wav") == [str(folder / "a.wav")]


def test_a_folder_with_special_characters_can_be_part_of_a_glob(tmp_path: Path) -> None:
    (tmp_path / "[1] cou*gh").mkdir()
    (tmp_path / "[1] cou*gh" / "x.wav").write_bytes(b"")
    assert uris(tmp_path / "[1] cou*gh" / "*.wav") == [str(tmp_path / "[1] cou*gh" / "x.wav")]
    assert uris(tmp_path / "[1] cou*gh" / "**.wav") == [str(tmp_path / "[1] cou*gh" / "x.wav")]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="*?[/"), min_size=1))
def test_a_pattern_without_special_characters_matches_itself_only(name: str) -> None:
    regex = glob_to_regex(name)
    assert regex.fullmatch(name)
    assert not regex.fullmatch(name + "x")


@given(st.lists(st.sampled_from(["a", "b", "c.wav"]), min_size=1, max_size=4))
def test_two_stars_match_across_any_number_of_folders(parts: list[str]) -> None:
    path = "/".join(["data", *parts, "x.wav"])
    assert glob_to_regex("data/**/x.wav").fullmatch(path)
    assert glob_to_regex("data/**.wav").fullmatch(path)
    assert bool(glob_to_regex("data/*/x.wav").fullmatch(path)) == (len(parts) == 1)


def test_an_impossible_set_is_no_fault_of_the_folder_in_which_it_would_be_looked_for(folder: Path) -> None:
    with pytest.raises(PatternError, match=r"\[z-a\]"):
        list(list_input(str(folder / "s*" / "[z-a].wav")))


def test_an_impossible_set_is_an_error_that_names_the_pattern(tmp_path: Path) -> None:
    with pytest.raises(PatternError, match=r"\[z-a\]"):
        list(list_input(str(tmp_path / "[z-a].wav")))
