"""A checkpoint's files, on disk and on a real storage server."""

import os
from pathlib import Path

import pytest

from rows.store import MissingFile, Store, StoreError, open_store
from tests.audio.gcs import StorageServer


@pytest.fixture(params=["disk", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "checkpoint"))
    request.getfixturevalue("server")
    return open_store(f"gs://bucket/{tmp_path.name}")


def test_files_come_back_as_they_were_written(store: Store) -> None:
    store.write("run/packet/a.rows", b"one")
    store.write("run/b.json", b"")
    assert store.read("run/packet/a.rows") == b"one"
    assert store.read("run/b.json") == b""


def test_a_file_that_is_not_there_is_missing(store: Store) -> None:
    with pytest.raises(MissingFile, match="run/none"):
        store.read("run/none")


def test_names_are_those_below_a_folder(store: Store) -> None:
    for name in ("run1/p/a.rows", "run1/p/b.rows", "run1/run.json", "run10/p/c.rows", "lease.json"):
        store.write(name, b"x")
    assert sorted(store.names("run1/")) == ["run1/p/a.rows", "run1/p/b.rows", "run1/run.json"]
    assert sorted(store.names("run1/p/")) == ["run1/p/a.rows", "run1/p/b.rows"]
    assert len(list(store.names())) == 5
    assert list(store.names("none/")) == []
    assert store.folders() == ["run1", "run10"]


def test_nothing_is_there_before_anything_is_written(store: Store) -> None:
    assert store.folders() == []
    assert list(store.names()) == []


def test_removed_files_are_gone_and_others_stay(store: Store) -> None:
    for name in ("run/p/a.rows", "run/p/b.rows", "run/run.json"):
        store.write(name, b"x")
    store.remove(["run/p/a.rows", "run/p/b.rows", "run/p/never.rows"])
    assert list(store.names()) == ["run/run.json"]
    store.remove(["run/run.json"])
    assert store.folders() == []


def test_a_file_that_was_cut_off_while_it_was_written_is_not_listed_and_goes_with_its_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("run/p/a.rows", b"x")
    (tmp_path / "run/p/.0123.tmp").write_bytes(b"half")
    assert list(store.names("run/")) == ["run/p/a.rows"]
    store.remove(["run/p/a.rows"])
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store = open_store(str(tmp_path))
    with pytest.raises(StoreError, match=r"run/a\.rows' of the checkpoint \(No space left on device\)"):
        store.write("run/a.rows", b"x")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_bucket_that_is_not_there_is_named(server: StorageServer) -> None:
    with pytest.raises(StoreError, match=r"'gs://nowhere/c/run/a' of the checkpoint"):
        open_store("gs://nowhere/c").write("run/a", b"x")


def test_an_object_is_written_once_whatever_is_tried_again(
    server: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("gs://bucket/once")
    store.write("a", b"first")
    store.write("a", b"the first attempt's answer was lost")
    assert store.read("a") == b"first"
