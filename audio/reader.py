"""The only view of a recording's bytes that a decoder gets: no name, no writing, no exception lost in C."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from audio.errors import AudioError, StorageError


class Reader:
    """A seekable file for decoders written in C.

    It has no `name` (libsndfile would take `.raw` by its extension, and errors would show it). What reading raises is
    kept: libsndfile's callbacks would print it and go on as if the file had ended, so decoders call `check`.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        """Open a view of `file` that begins at byte `start`. Raises StorageError."""
        self._file = file
        self._start = start
        self._failure: AudioError | None = None
        self.size_bytes = self.seek(0, io.SEEK_END)
        self.seek(0)
        self.check()

    def starting_at(self, offset: int) -> Reader:
        """Return a view of the same file that begins `offset` bytes later; one view is used at a time."""
        return Reader(self._file, self._start + offset)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none after a failure."""
        try:
            return self._file.read(size)
        except Exception as error:  # noqa: BLE001 - kept for check()
            self._keep(error)
            return b""

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` and return how many bytes that were; 0 after a failure."""
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        except Exception as error:  # noqa: BLE001 - kept for check()
            self._keep(error)
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as files do, but no further back than to the start, where hostile headers would go."""
        try:
            if whence == io.SEEK_CUR:
                offset += self.tell()
            elif whence == io.SEEK_END:
                return max(0, self._file.seek(offset, io.SEEK_END) - self._start)
            return self._file.seek(self._start + max(0, offset)) - self._start
        except Exception as error:  # noqa: BLE001 - kept for check()
            self._keep(error)
            return 0

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell() - self._start

    def peek_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; the position is not kept."""
        self.seek(offset)
        data = self.read(size)
        self.check()
        return data

    def check(self) -> None:
        """Raise what went wrong in reading since, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _keep(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = (
                error
                if isinstance(error, AudioError)
                else StorageError(f"reading the file failed ({type(error).__name__}); try again")
            )
