"""Whole files on any of Beam's file systems: there under their final name with all their bytes, or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rows.store import write_on_disk


class WriteError(Exception):
    """A file could not be written; the message names it and says why."""

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
    """Turns what file systems raise while `path` is written into WriteError."""
    try:
        yield
    except (OSError, BeamIOError) as error:
        raise WriteError.of(path, getattr(error, "strerror", None) or type(error).__name__) from error


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's disk."""
    return FileSystems.get_scheme(path) is None


def write_whole(path: str, data: bytes) -> None:
    """Writes `data` under `path`, all of it or nothing; WriteError where it cannot be written.

    On disk a temporary file beside it is synced and renamed. An object of Cloud Storage appears only when its
    upload is complete, so that there one write under the final name is enough, and no rename is paid for.
    """
    with explained(path):
        if is_local(path):
            write_on_disk(Path(path), data)
        else:
            with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write(data)


def read_whole(path: str) -> bytes:
    """All bytes of the file at `path`."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        data: bytes = file.read()
        return data


def remove(path: str) -> None:
    """Removes a file; one that is gone is no error."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
    elif FileSystems.exists(path):
        FileSystems.delete([path])
