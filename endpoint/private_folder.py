"""The folder in which processes of this machine and user share small files, closed to everybody else."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path

from endpoint.errors import RunEnded

_DAY_S = 86_400.0


class PrivateFolderUnusable(RunEnded):
    """The folder cannot be made, or is not private to this user; names it and the remedy."""


def default_folder() -> Path:
    """This user's folder for what processes of this machine share.

    `$XDG_RUNTIME_DIR/hear-pipeline` where that is set and private, else `hear-pipeline-UID` in the temporary folder.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        with contextlib.suppress(OSError):
            if _is_private(os.lstat(runtime)):
                return Path(runtime) / "hear-pipeline"
    return Path(tempfile.gettempdir()) / f"hear-pipeline-{os.getuid()}"


def open_private_folder(folder: Path) -> int:
    """Opens a folder that belongs to this user and is closed to others; makes it if there is nothing.

    Raises:
        PrivateFolderUnusable: if there is something else, or it cannot be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise folder_unusable(folder, f"cannot be made or opened ({error.strerror})") from None
    if not _is_private(os.fstat(opened)):
        os.close(opened)
        raise folder_unusable(folder, "belongs to somebody else or is open to others")
    return opened


def remove_old_files(folder: int, prefix: str) -> None:
    """Removes files that nobody has written for a day: each run, and each endpoint on this machine, has one of its own.

    Whoever still has one open notices that its name is gone.

    Args:
        folder: an open folder.
        prefix: how the files' names begin; others stay.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.stat(follow_symlinks=False).st_mtime < time.time() - _DAY_S:
                os.unlink(entry.name, dir_fd=folder)


def folder_unusable(folder: Path, reason: str) -> PrivateFolderUnusable:
    """The error for a folder that is as the reason says."""
    return PrivateFolderUnusable(
        f"The folder {folder}, in which processes share the rate and the number of requests, {reason}: "
        "remove it, or make it a folder of this user's own with the rights 0700 (not a link)."
    )


def _is_private(status: os.stat_result) -> bool:
    is_closed = not stat.S_IMODE(status.st_mode) & 0o077
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and is_closed
