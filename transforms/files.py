"""Whole files on disk or on Cloud Storage: there under their final name with all their bytes, or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from audio.storage_errors import client_errors, reason
from rows import objects
from rows.store import write_on_disk


class FileError(Exception):
    """A file could not be written, read, listed or removed; the message names it and says why."""


class WriteError(FileError):
    """A file could not be written."""

    # One argument, the whole message: Beam appends the step's name to the first one.
    strerror = ""

    @classmethod
    def of(cls, path: str, strerror: str) -> WriteError:
        """The error of `path`, with the system's word for what is wrong."""
        error = cls(f"cannot write {path!r} ({strerror}): is there space, and may it be written?")
        error.strerror = strerror
        return error


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns what disks and Cloud Storage raise while `path` is written into WriteError."""
    try:
        yield
    except OSError as error:
        raise WriteError.of(path, error.strerror or type(error).__name__) from error
    except Exception as error:
        if isinstance(error, client_errors()):
            raise WriteError.of(path, reason(error)) from None
        raise


@contextmanager
def explained_as(doing: str, path: str) -> Iterator[None]:
    """Turns what disks and Cloud Storage raise into FileError: `doing` (a verb) could not be done to `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (OSError, *client_errors())):
            raise FileError(f"cannot {doing} {path!r} ({reason(error)}): may it be done?") from None
        raise


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's disk."""
    return not path.startswith(objects.GS)


def absolute(path: str) -> str:
    """The path whatever the working folder."""
    return os.path.abspath(path) if is_local(path) else path  # noqa: PTH100


def folder_of(path: str) -> str:
    """The path of the folder in which `path` is, with a slash at the end; empty for the working folder."""
    head, slash, _ = path.rpartition("/")
    return head + slash


def write_whole(path: str, data: bytes) -> None:
    """Writes `data` under `path`, all of it or nothing, in place of what is there; WriteError where it cannot be written.

    On disk a temporary file beside it is synced and renamed. An object of Cloud Storage appears only when its
    upload is complete, so that there one write under the final name is enough, and no rename is paid for.
    """
    with explained(path):
        if is_local(path):
            write_on_disk(Path(path), data)
        else:
            objects.write_over(path, data)


def read_whole(path: str) -> bytes:
    """All bytes of the file at `path`. Raises FileError."""
    with explained_as("read", path):
        return Path(path).read_bytes() if is_local(path) else objects.read(objects.blob_at(path))


def create(path: str) -> BinaryIO:
    """A new file, to be written and closed; the folders on disk are made. An object is there once it is closed."""
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path).open("wb")
    return cast(BinaryIO, objects.ObjectWriter(path))


def rename(path: str, name: str) -> None:
    """Gives a file that `create` has made its name, in place of what has that name. May be done again after it was cut off."""
    if not is_local(path):
        objects.move(path, name)
    elif Path(path).exists() or not Path(name).exists():
        Path(path).replace(name)


def remove_folder(folder: str) -> None:
    """Removes a folder with what is in it, if it is there; on disk as far as that can be done. Raises FileError."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    bucket, name = objects.split(f"{folder}/")
    with explained_as("remove", folder):
        objects.delete_all(f"{objects.GS}{bucket}/{found}" for found in objects.names(bucket, name))


def remove(path: str) -> None:
    """Removes a file; one that is gone is no error. Raises FileError."""
    with explained_as("remove", path):
        if is_local(path):
            Path(path).unlink(missing_ok=True)
        else:
            objects.delete(objects.blob_at(path))


def names_in(folder: str, beginning: str) -> list[str]:
    """The paths of the files right in a folder (with its slash, or empty) whose names begin so; and of folders, with a slash.

    Raises FileError.
    """
    with explained_as("list", folder):
        if is_local(folder):
            path = Path(folder)
            entries = sorted(path.iterdir()) if path.is_dir() else []
            named = (f"{folder}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries)
            return [name for name in named if name.startswith(folder + beginning)]
        bucket, name = objects.split(folder + beginning)
        return [f"{objects.GS}{bucket}/{found}" for found in objects.entries(bucket, name)]
