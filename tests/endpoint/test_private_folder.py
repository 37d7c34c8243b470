"""Only a folder that is this user's own, and closed to others, is shared by processes."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from endpoint.errors import RunEnded
from endpoint.private_folder import PrivateFolderUnusable, default_folder, open_private_folder, remove_old_files


def test_it_is_made_private_with_what_is_above_it(tmp_path: Path) -> None:
    for _ in range(2):
        folder = open_private_folder(tmp_path / "a" / "r")
        assert stat.S_IMODE(os.fstat(folder).st_mode) == 0o700
        os.close(folder)


@pytest.mark.parametrize("rights", [0o750, 0o701, 0o707, 0o720])
def test_one_that_is_open_to_others_is_refused(tmp_path: Path, rights: int) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r").chmod(rights)
    with pytest.raises(PrivateFolderUnusable, match=r"open to others.*0700") as raised:
        open_private_folder(tmp_path / "r")
    assert str(tmp_path / "r") in raised.value.message
    assert isinstance(raised.value, RunEnded)


def test_a_link_or_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(PrivateFolderUnusable, match=name):
            open_private_folder(tmp_path / name)


def test_one_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(PrivateFolderUnusable, match="somebody else"):
        open_private_folder(tmp_path / "r")


def test_files_that_nobody_has_written_for_a_day_are_removed(tmp_path: Path) -> None:
    ages_s = {"a-old": 90_000, "a-recent": 80_000, "b-old": 90_000}
    for name, age_s in ages_s.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    remove_old_files(folder, "a-")
    os.close(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-recent", "b-old"]


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_folder() == tmp_path / "hear-pipeline"
    tmp_path.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"hear-pipeline-{os.getuid()}"
    assert default_folder() == own
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert default_folder() == own
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_folder() == own
