"""Ogg streams with a serial number of choice: libsndfile's is random, which makes the same sound another file each time."""

from __future__ import annotations

_SERIAL = slice(14, 18)
_CHECKSUM = slice(22, 26)
_HEADER_BYTES = 27


def with_serial_number(ogg: bytes, number: int) -> bytes:
    """Gives each page of a file with one stream the serial number, and the checksum that goes with it.

    The layout of a page is RFC 3533's: a header of 27 bytes, the last of which counts the lacing values that follow,
    whose sum is the length of the body.
    """
    pages = []
    start = 0
    while start < len(ogg):
        lacing = ogg[start + _HEADER_BYTES : start + _HEADER_BYTES + ogg[start + _HEADER_BYTES - 1]]
        end = start + _HEADER_BYTES + len(lacing) + sum(lacing)
        page = bytearray(ogg[start:end])
        page[_SERIAL] = number.to_bytes(4, "little")
        page[_CHECKSUM] = bytes(4)
        page[_CHECKSUM] = _checksum(page).to_bytes(4, "little")
        pages.append(page)
        start = end
    return b"".join(pages)


def _checksum(page: bytearray) -> int:
    """CRC-32 as Ogg has it: polynomial 04c11db7, highest bit first, nothing inverted."""
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ _TABLE[checksum >> 24 ^ byte]
    return checksum


def _table_entry(index: int) -> int:
    entry = index << 24
    for _ in range(8):
        entry = (entry << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if entry & 0x80000000 else 0)
    return entry


_TABLE = [_table_entry(index) for index in range(256)]
