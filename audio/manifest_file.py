"""A manifest's lines: from a local file or an object on Cloud Storage, gunzipped and decoded while they are read."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Final, TextIO, cast

from audio.errors import FetchError
from audio.fetch import open_recording
from audio.listing import Unlisted
from audio.lookup import resolve

NOT_TEXT: Final = "\udc00"
"""Stands for a zero byte in the lines; bytes that are not UTF-8 become `\\udc80` to `\\udcff`. No text can hold these."""

MAX_LINE: Final = 8 << 20
"""Characters of the longest line that is read: a file without line ends must not be held in memory."""

_GZIP: Final = b"\x1f\x8b"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_MOST_LAYERS: Final = 2
"""Of gzip: that of a .gz file, and that of an upload with Content-Encoding gzip."""


class ManifestError(Exception):
    """The manifest as a whole cannot be used; the message says which, what is wrong, and what to do."""


class LineTooLong(Exception):
    """A line has more than MAX_LINE characters; the next call goes on with the one after it."""


class Lines(Iterator[str]):
    """The lines of a manifest, with their line ends (`\\n`, `\\r\\n` or `\\r`), as bytes that are not text left them.

    Raises ManifestError where the file cannot be read on, LineTooLong for a line that is skipped.
    """

    def __init__(self, path: str, text: TextIO) -> None:
        self._path = path
        self._text = text
        self.number = 0
        """How many lines there were so far."""
        self.ended = False

    def __next__(self) -> str:
        line = self._read()
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE:
            while not line.endswith(("\n", "\r")) and line:
                line = self._read()
            raise LineTooLong
        return line.replace("\0", NOT_TEXT) if "\0" in line else line

    def _read(self) -> str:
        try:
            return self._text.readline(MAX_LINE + 1)
        except FetchError as error:
            raise self._broken(error.message) from None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self._broken("its gzip data are damaged or cut off; write or copy the file again") from None
        except OSError as error:
            raise self._broken(f"{error.strerror or type(error).__name__}; try again") from None

    def _broken(self, why: str) -> ManifestError:
        where = f"beyond line {self.number}" if self.number else "at all"
        return ManifestError(f"the manifest {self._path!r} cannot be read {where}: {why}")


@contextmanager
def open_lines(path: str) -> Iterator[Lines]:
    """Opens a manifest, a local path or `gs://bucket/name`, at its first line; a byte order mark is left out.

    Gzip is known by its first bytes: an object may also be stored with Content-Encoding gzip, or have been unpacked
    on its way under its old name. Raises ManifestError.
    """
    (found,) = resolve([path])
    if isinstance(found, Unlisted):
        raise ManifestError(f"the manifest {path!r} cannot be read: {found.message}")
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_recording(found))
            beginning = _beginning(file)
            for _ in range(_MOST_LAYERS):
                if beginning == _GZIP:
                    file = opened.enter_context(cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")))
                    beginning = _beginning(file)
        except FetchError as error:
            raise ManifestError(f"the manifest {path!r} cannot be read: {error.message}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise ManifestError(
                f"the manifest {path!r} cannot be read: its gzip data are damaged or cut off; write or copy it again"
            ) from None
        if beginning in _UTF_16:
            raise ManifestError(f"the manifest {path!r} is UTF-16 text: expected UTF-8; save it as UTF-8")
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield Lines(path, opened.enter_context(text))


def _beginning(file: BinaryIO) -> bytes:
    two = file.read(2)
    file.seek(0)
    return two
