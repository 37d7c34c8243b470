"""Protobuf's wire format, as far as it is needed to write and find length-delimited fields and lists of numbers."""

from __future__ import annotations

from functools import lru_cache

NUMBER_TAGS = b"\x0a\x09\x11"
"""What is before each double of a `ListValue`: `values`, nine bytes long, `Value.number_value`."""
NUMBER_BYTES = len(NUMBER_TAGS) + 8

_LENGTH_DELIMITED = 2


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def tag(number: int) -> bytes:
    """What a length-delimited field begins with."""
    return varint(number << 3 | _LENGTH_DELIMITED)


def field_head(number: int, payload_bytes: int) -> bytes:
    """What is before the payload of a length-delimited field."""
    return tag(number) + varint(payload_bytes)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return field_head(number, len(payload)) + payload


def field_bytes(number: int, payload_bytes: int) -> int:
    """The length of a length-delimited field."""
    return len(field_head(number, payload_bytes)) + payload_bytes


def number_list(length: int) -> bytes:
    """A `Value` with a `ListValue` of that many zeros."""
    return field(6, (NUMBER_TAGS + bytes(8)) * length)
