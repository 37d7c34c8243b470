"""Whole files on any of Beam's file systems: there under their final name with all their bytes, or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's disk."""
    return FileSystems.get_scheme(path) is None


def write_whole(path: str, data: bytes) -> None:
    """Writes `data` under `path`, all of it or nothing; OSError or BeamIOError where it cannot be written.

    On disk a temporary file beside it is synced and renamed. An object of Cloud Storage appears only when its
    upload is complete, so that there one write under the final name is enough, and no rename is paid for.
    """
    if not is_local(path):
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_whole(path: str) -> bytes:
    """All bytes of the file at `path`."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        data: bytes = file.read()
        return data
