"""The pages of an Ogg file: what is in it, and whether the last page is whole."""

from __future__ import annotations

from typing import NamedTuple

from audio.reader import Reader

_HEADER_BYTES = 27
_MAX_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255


class OggPages(NamedTuple):
    """What the first and the last page of an Ogg file say."""

    is_opus: bool
    several_streams: bool
    """One after another (chained) or interleaved: libsndfile reads the first only."""
    cut: str | None
    """A clause for people, where the last page is not whole."""


def read_pages(reader: Reader, head: bytes) -> OggPages:
    """Return what the pages of an Ogg file that begins with `head` say (RFC 3533)."""
    first_serial = head[14:18]
    tail_start = max(0, reader.size_bytes - _MAX_PAGE_BYTES)
    tail = reader.peek_at(tail_start, _MAX_PAGE_BYTES)
    at = tail.rfind(b"OggS\x00")
    several = at >= 0 and tail[at + 14 : at + 18] != first_serial and at + _HEADER_BYTES <= len(tail)
    return OggPages(b"OpusHead" in head[:64], several, _cut(tail[at:]) if at >= 0 else None)


def _cut(last_page: bytes) -> str | None:
    segments = last_page[26] if len(last_page) >= _HEADER_BYTES else 0
    table = last_page[_HEADER_BYTES : _HEADER_BYTES + segments]
    whole = _HEADER_BYTES + segments + sum(table)
    if len(last_page) >= max(whole, _HEADER_BYTES) and len(table) == segments:
        return None
    return "its last page is not whole"
