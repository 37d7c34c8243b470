"""The files of the checkpoint: rows as they arrived, each with a checksum, in files written once and whole.

    file    = magic, record*
    record  = payload length (uint32), CRC-32 of the payload (uint32), payload
    payload = length of the JSON (uint32), JSON, float32 values

All numbers are little-endian. The JSON is `[kind, segment_id, [fields of the row]]`; only an embedding has
values behind it. Nothing is pickled: a checkpoint can be read by any program, and reading one runs no code.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from rows.model import EMBEDDING_FLOATS, Census, ClipReference, EmbeddingRow, FailureRow, Receipt

MAGIC: Final = b"HEARROWS1\n"
_HEAD: Final = struct.Struct("<II")
_JSON_LENGTH: Final = struct.Struct("<I")
_TO_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode

Row = EmbeddingRow | FailureRow | Census


class DamagedRecord(Exception):
    """A record whose bytes are not those that were written."""


def _encode(segment_id: str, row: Row) -> bytes:
    fields: tuple[object, ...]
    match row:
        case EmbeddingRow():
            kind, fields, values = "embedding", row[:-1], row.embedding.astype("<f4", copy=False).tobytes()
        case FailureRow():
            kind, fields, values = "failure", row, b""
        case Census():
            kind, fields, values = "census", row, b""
    text = _TO_JSON([kind, segment_id, fields]).encode()
    return b"".join((_JSON_LENGTH.pack(len(text)), text, values))


def _decode(payload: bytes) -> tuple[str, Row]:
    (length,) = _JSON_LENGTH.unpack_from(payload)
    end = _JSON_LENGTH.size + length
    kind, segment_id, fields = json.loads(payload[_JSON_LENGTH.size : end])
    match kind:
        case "embedding":
            return segment_id, EmbeddingRow._make([*fields, np.frombuffer(payload, "<f4", EMBEDDING_FLOATS, end)])
        case "failure":
            return segment_id, FailureRow(*fields)
        case "census":
            return segment_id, Census(*fields)
    raise DamagedRecord(f"a record of the unknown kind {kind!r}")


class FileBuilder:
    """Collects rows for one checkpoint file, and the receipts for them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = [MAGIC]
        self._size_bytes = len(MAGIC)
        self._clips: dict[str, list[ClipReference]] = {}
        self._failures: dict[str, list[FailureRow]] = {}
        self._census: dict[str, Census] = {}
        self.rows = 0

    def add(self, segment_id: str, row: Row) -> None:
        """Appends a row of the segment `segment_id`."""
        match row:
            case EmbeddingRow():
                self._clips.setdefault(segment_id, []).append(ClipReference(row.clip_id, self._size_bytes))
            case FailureRow():
                self._failures.setdefault(segment_id, []).append(row)
            case Census():
                self._census[segment_id] = row
        payload = _encode(segment_id, row)
        self._parts += (_HEAD.pack(len(payload), zlib.crc32(payload)), payload)
        self._size_bytes += _HEAD.size + len(payload)
        self.rows += 1

    def data(self) -> bytes:
        """The whole file."""
        return b"".join(self._parts)

    def receipts(self, file: str) -> list[Receipt]:
        """One receipt for each segment that has rows here, once they are stored under the name `file`."""
        segments = dict.fromkeys([*self._clips, *self._failures, *self._census])
        return [
            Receipt(
                segment_id,
                file,
                tuple(self._clips.get(segment_id, ())),
                tuple(self._failures.get(segment_id, ())),
                self._census.get(segment_id),
            )
            for segment_id in segments
        ]


def read_embedding(data: bytes, offset: int) -> EmbeddingRow:
    """The embedding at `offset` of a checkpoint file's bytes; DamagedRecord if it is not as it was written."""
    _, row, _ = _read(data, offset)
    if not isinstance(row, EmbeddingRow):
        raise DamagedRecord("not an embedding")
    return row


def read_all(data: bytes) -> Iterator[tuple[str, Row]]:
    """All rows of a checkpoint file with their segments' ids; DamagedRecord at the first that is damaged."""
    if not data.startswith(MAGIC):
        raise DamagedRecord("not a checkpoint file")
    offset = len(MAGIC)
    while offset < len(data):
        segment_id, row, offset = _read(data, offset)
        yield segment_id, row


def _read(data: bytes, offset: int) -> tuple[str, Row, int]:
    try:
        length, checksum = _HEAD.unpack_from(data, offset)
    except struct.error:
        raise DamagedRecord("the file ends within a record") from None
    start = offset + _HEAD.size
    payload = data[start : start + length]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise DamagedRecord("the checksum does not match")
    return *_decode(payload), start + length
