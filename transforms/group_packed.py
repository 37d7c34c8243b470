"""Groups references by a text, such as a recording's URI, in far less memory than a GroupByKey of each by itself.

A local runner holds what it groups in memory, several times over, and spends more on each element than a reference is long.
So they go through the shuffle many in one element, packed and compressed, grouped by a hash of their key; those of one
hash are told apart behind it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms.packed import Packing

BUCKETS: Final = 1024
"""Hashes: of a billion references, a million or some hundreds of megabytes are told apart at a time."""
HELD_BYTES: Final = 8 << 20
"""How much a bundle gathers before it passes it on."""

_LENGTHS: Final = struct.Struct("<II")


def bucket_of(key: str) -> int:
    """The hash under which `key` is grouped: the same everywhere."""
    return zlib.crc32(key.encode()) % BUCKETS


class _Gather(beam.DoFn):
    def __init__(self, packing: Packing[Any], held_bytes: int) -> None:
        self._packing = packing
        self._most_bytes = held_bytes

    def start_bundle(self) -> None:
        self._parts: dict[int, list[bytes]] = {}
        self._held_bytes = 0

    def process(self, element: tuple[str, Any]) -> Iterator[tuple[int, bytes]]:
        key, value = element
        name, packed = key.encode(), self._packing.pack(value, key)
        self._parts.setdefault(bucket_of(key), []).extend((_LENGTHS.pack(len(name), len(packed)), name, packed))
        self._held_bytes += len(name) + len(packed)
        if self._held_bytes >= self._most_bytes:
            yield from self._take()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for gathered in self._take():
            yield WindowedValue(gathered, window.max_timestamp(), [window])

    def _take(self) -> Iterator[tuple[int, bytes]]:
        parts, self._parts, self._held_bytes = self._parts, {}, 0
        while parts:
            bucket, some = parts.popitem()
            yield bucket, zlib.compress(b"".join(some), 1)


class _TellApart(beam.DoFn):
    def __init__(self, packing: Packing[Any]) -> None:
        self._packing = packing

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[str, list[Any]]]:
        groups: dict[bytes, list[bytes]] = {}
        for gathered in element[1]:
            for name, packed in _split(zlib.decompress(gathered)):
                groups.setdefault(name, []).append(packed)
        for name, some in groups.items():
            key = name.decode()
            yield key, [self._packing.unpack(packed, key) for packed in some]


def _split(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        name_bytes, packed_bytes = _LENGTHS.unpack_from(data, at)
        start = at + _LENGTHS.size
        at = start + name_bytes + packed_bytes
        yield data[start : start + name_bytes], data[start + name_bytes : at]


class GroupPacked(beam.PTransform):
    """Several PCollections of (text, value) into one of (text, list of all values under it).

    Args:
      packing: of the values.
      held_bytes: how much a bundle gathers before it passes it on.
    """

    def __init__(self, packing: Packing[Any], held_bytes: int = HELD_BYTES) -> None:
        super().__init__()
        self._packing = packing
        self._held_bytes = held_bytes

    def expand(self, keyed: tuple[beam.PCollection, ...]) -> beam.PCollection:
        gathered = tuple(
            items | f"Gather {number}" >> beam.ParDo(_Gather(self._packing, self._held_bytes))
            for number, items in enumerate(keyed)
        )
        return (
            gathered
            | "All" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()
            | "Tell apart" >> beam.ParDo(_TellApart(self._packing))
        )
