import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from transforms.files import WriteError, is_local, read_whole, write_whole


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The system stops this process from writing further, in the midst of a file: as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_read_whatever_the_name_says(tmp_path: Path) -> None:
    for name in ("plain", "looks-compressed.gz", "with space", "ключ", "a#b?c%20d"):
        path = str(tmp_path / name)
        write_whole(path, b"\x00\xff bytes")
        assert read_whole(path) == Path(path).read_bytes() == b"\x00\xff bytes"


def test_folders_are_made(tmp_path: Path) -> None:
    write_whole(str(tmp_path / "run" / "packet" / "0.rows"), b"rows")
    assert (tmp_path / "run" / "packet" / "0.rows").read_bytes() == b"rows"


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(b"a longer text")
    write_whole(str(path), b"short")
    assert path.read_bytes() == b"short"


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "0.rows"
    if before is not None:
        path.write_bytes(before)
    with files_of_at_most(10_000), pytest.raises(WriteError, match="File too large"):
        write_whole(str(path), bytes(100_000))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == (
        {} if before is None else {path.name: before}
    )


def test_a_name_that_cannot_be_taken_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        write_whole(str(tmp_path / "summary.json"), b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("path", "local"), [("/data/x", True), ("out/x", True), ("a:b", True), ("gs://bucket/x", False)]
)
def test_what_is_local(path: str, local: bool) -> None:
    assert is_local(path) is local
