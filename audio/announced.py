"""What a file's own header announces, against what is there: decoders give what there is without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from audio.reader import Reader


class Announced(NamedTuple):
    """What a header announces. Nothing is ever allocated by it."""

    cut: str | None = None
    """Where the file holds less: a clause that says so."""
    is_whole: bool = False
    """The header announces a size, and the file holds all of it."""
    frames: int = 0
    """A decoder must give at least so many frames; 0 where the header does not say."""
    layout: tuple[int, int] | None = None
    """(rate in Hz, channels), where they can be had without a decoder."""


_MAX_CHUNKS = 4096
_MAX_BOXES = 64
_BOXES = frozenset(
    (
        b"ftyp",
        b"moov",
        b"mdat",
        b"moof",
        b"free",
        b"skip",
        b"wide",
        b"uuid",
        b"sidx",
        b"mfra",
        b"meta",
        b"styp",
        b"udta",
    )
)
_UNKNOWN_FLAC_FRAMES = (0, (1 << 36) - 1)
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# What programs write that cannot go back to fill in a size: arecord and sox 2 GiB, gstreamer 7FFF0000, most FFFFFFFF.
_PLACEHOLDERS = (0x7FFF_0000, 0x8000_0000, 0xFFFF_FFFF)
_PLACEHOLDER_SLACK = 4096


def read_announced(kind: str, reader: Reader, head: bytes) -> Announced:
    """Return what a file of `kind` (see signature.identify) that begins with `head` announces."""
    announce = _KINDS.get(kind)
    return Announced() if announce is None else announce(_Bytes(reader, head))


class _Bytes:
    """Random access to a file whose beginning is at hand already."""

    def __init__(self, reader: Reader, head: bytes) -> None:
        self._reader = reader
        self._head = head
        self.size = reader.size_bytes

    def at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer at the end of the file."""
        if offset + size <= len(self._head) or len(self._head) == self.size:
            return self._head[offset : offset + size]
        return self._reader.peek_at(offset, size) if offset < self.size else b""

    def number(self, offset: int, size: int, order: str = "little") -> int:
        """Return an unsigned whole number; what is beyond the end counts as zeros."""
        return int.from_bytes(self.at(offset, size), order)  # type: ignore[arg-type]


def _compare(
    file: _Bytes, start: int, announced: int, unit: int = 1, layout: tuple[int, int] | None = None
) -> Announced:
    """Compare `announced` bytes from `start` with what is there, in whole units (frames) of so many bytes."""
    there = max(0, file.size - start)
    if announced // (unit or 1) <= there // (unit or 1):
        return Announced(is_whole=True, layout=layout)
    return Announced(f"its header announces {announced} bytes, and {there} are there", layout=layout)


def _wav(file: _Bytes) -> Announced:
    order = "big" if file.at(0, 4) == b"RIFX" else "little"
    layout, frame_bytes, wide_size = None, 1, 0
    offset = 12
    for _ in range(_MAX_CHUNKS):
        name, size = file.at(offset, 4), file.number(offset + 4, 4, order)
        if len(name) < 4 or name == b"data":
            break
        if name == b"fmt " and file.size >= offset + 24:
            layout = (file.number(offset + 12, 4, order), file.number(offset + 10, 2, order))
            frame_bytes = file.number(offset + 20, 2, order)
        elif name == b"ds64":
            wide_size = file.number(offset + 16, 8, order)
        offset += 8 + size + size % 2
    if name != b"data":
        return Announced(layout=layout)
    if size == 0xFFFF_FFFF and 0 < wide_size < 1 << 63:
        size = wide_size
    elif size == 0 or any(abs(size - value) <= _PLACEHOLDER_SLACK for value in _PLACEHOLDERS):
        return Announced(layout=layout)
    return _compare(file, offset + 8, size, frame_bytes, layout)


def _avi(file: _Bytes) -> Announced:
    size = file.number(4, 4)
    return Announced() if size in (0, 0xFFFF_FFFF) else _compare(file, 8, size, 2)


def _w64(file: _Bytes) -> Announced:
    offset = 40
    for _ in range(_MAX_CHUNKS):
        name, size = file.at(offset, 4), file.number(offset + 16, 8)
        if len(name) < 4 or size < 24:
            break
        if name == b"data":
            return _compare(file, offset + 24, size - 24) if 24 < size < 1 << 62 else Announced()
        offset += (size + 7) // 8 * 8
    return Announced()


def _aiff(file: _Bytes) -> Announced:
    offset = 12
    for _ in range(_MAX_CHUNKS):
        name, size = file.at(offset, 4), file.number(offset + 4, 4, "big")
        if len(name) < 4:
            break
        if name == b"SSND":
            unknown = size <= 8 or size >= 0xFFFF_FFFF - _PLACEHOLDER_SLACK
            return Announced() if unknown else _compare(file, offset + 16, size - 8)
        offset += 8 + size + size % 2
    return Announced()


def _au(file: _Bytes) -> Announced:
    order = "big" if file.at(0, 1) == b"." else "little"
    start, size = file.number(4, 4, order), file.number(8, 4, order)
    return Announced() if size == 0xFFFF_FFFF else _compare(file, start, size)


def _caf(file: _Bytes) -> Announced:
    offset = 8
    for _ in range(_MAX_CHUNKS):
        name, size = file.at(offset, 4), file.number(offset + 4, 8, "big")
        if len(name) < 4 or (name == b"data" and size >= 1 << 63):
            break
        if name == b"data":
            # The first four bytes are an edit count.
            return _compare(file, offset + 16, size - 4) if size > 4 else Announced()
        offset += 12 + size
    return Announced()


def _flac(file: _Bytes) -> Announced:
    if file.at(4, 1)[:1] not in (b"\x00", b"\x80"):
        return Announced()
    frames = file.number(18, 8, "big") & ((1 << 36) - 1)
    return Announced(frames=0 if frames in _UNKNOWN_FLAC_FRAMES else frames)


def _mp4(file: _Bytes) -> Announced:
    offset, seen = 0, set()
    # A fragmented file has two boxes a second; its first ones say enough, and each costs a seek.
    for _ in range(_MAX_BOXES):
        size, name = file.number(offset, 4, "big"), file.at(offset + 4, 4)
        if name not in _BOXES or size == 0:
            break
        if size == 1:
            size = file.number(offset + 8, 8, "big")
        seen.add(name)
        if size > file.size - offset:
            return _compare(file, offset, size)
        offset += size
    if offset >= file.size and b"moov" not in seen:
        return Announced("its index (moov) is missing, as when a recorder is stopped before it has finished")
    return Announced(is_whole=offset >= file.size)


def _matroska(file: _Bytes) -> Announced:
    header_bytes, header_start = _ebml_size(file, 4)
    segment = (header_bytes or 0) + header_start
    if file.at(segment, 4) != b"\x18\x53\x80\x67":
        return Announced()
    size, start = _ebml_size(file, segment + 4)
    return Announced() if size is None else _compare(file, start, size)


def _ebml_size(file: _Bytes, offset: int) -> tuple[int | None, int]:
    """Return (size, where the content begins) of an EBML element; None is a size that was unknown when it was written."""
    first = file.number(offset, 1)
    length = 9 - first.bit_length()
    if length > 8:
        return None, offset + 1
    value = file.number(offset, length, "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), offset + length


def _asf(file: _Bytes) -> Announced:
    at = file.at(0, 4096).find(_ASF_FILE_PROPERTIES)
    is_broadcast = at >= 0 and file.number(at + 88, 4) & 1
    return Announced() if at < 0 or is_broadcast else _compare(file, 0, file.number(at + 40, 8))


_KINDS: dict[str, Callable[[_Bytes], Announced]] = {
    "wav": _wav,
    "avi": _avi,
    "w64": _w64,
    "aiff": _aiff,
    "au": _au,
    "caf": _caf,
    "flac": _flac,
    "mp4": _mp4,
    "matroska": _matroska,
    "asf": _asf,
}
