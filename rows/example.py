"""Embedding rows as serialised `tf.train.Example` messages, without TensorFlow.

A feature is one of three lists (tensorflow/core/example/feature.proto):

    Example  { Features features = 1; }          Feature   { oneof kind: BytesList 1 | FloatList 2 | Int64List 3 }
    Features { map<string, Feature> feature = 1; } BytesList { repeated bytes value = 1; }
    FloatList { repeated float value = 1 [packed]; }  Int64List { repeated int64 value = 1 [packed]; }
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rows.model import SCALAR_FIELDS, EmbeddingRow, TableRow

_BYTES, _FLOATS, _INTEGERS = b"\x0a", b"\x12", b"\x1a"
"""Tags of the three kinds of list in a Feature."""

FEATURE_TYPES: Final[dict[str, str]] = {
    name: {str: "bytes", float: "float", int: "int64"}[EmbeddingRow.__annotations__[name]] for name in SCALAR_FIELDS
} | {"embedding": "float"}
"""Type of each feature; `embedding` has 512 values, every other feature one."""


def _varint(value: int) -> bytes:
    """A base-128 integer; a negative one as its two's complement in 64 bits, as protobuf has it."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + (bytes((len(data),)) if len(data) < 0x80 else _varint(len(data))) + data


@cache
def _key(name: str) -> bytes:
    """The key of a map entry: field 1, the feature's name."""
    return _sized(b"\x0a", name.encode())


def _entry(name: str, feature: bytes) -> bytes:
    """An entry of the map of features: field 1 of Features, holding key (1) and value (2)."""
    return _sized(b"\x0a", _key(name) + _sized(b"\x12", feature))


def _float_list(values: npt.NDArray[np.float32]) -> bytes:
    return _sized(_FLOATS, _sized(b"\x0a", values.astype("<f4", copy=False).tobytes()))


def _bytes_list(text: str) -> bytes:
    return _sized(_BYTES, _sized(b"\x0a", text.encode()))


def _integer_list(value: int) -> bytes:
    return _sized(_INTEGERS, _sized(b"\x0a", _varint(value)))


def _feature(name: str, value: str | float | int) -> bytes:
    match FEATURE_TYPES[name]:
        case "bytes":
            return _bytes_list(str(value))
        case "float":
            return _float_list(np.float32(value).reshape(1))
        case _:
            return _integer_list(int(value))


def encode_example(row: TableRow) -> bytes:
    """A serialised `tf.train.Example` of the row; FEATURE_TYPES says what is in it.

    With a manifest also `manifest_row` (int64), and a feature `metadata/NAME` (bytes) for each of the row's columns.
    """
    clip = row.clip
    entries = [_entry(name, _feature(name, getattr(clip, name))) for name in SCALAR_FIELDS]
    entries.append(_entry("embedding", _float_list(clip.embedding)))
    if row.manifest_row is not None:
        entries.append(_entry("manifest_row", _integer_list(row.manifest_row)))
        entries += [_entry(f"metadata/{name}", _bytes_list(value)) for name, value in row.metadata]
    return _sized(b"\x0a", b"".join(entries))
