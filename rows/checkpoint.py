"""The files of the checkpoint: rows as they arrived, each with a checksum, in files written once and whole.

    file    = magic, record*
    record  = payload length (uint32), CRC-32 of the payload (uint32), payload
    payload = length of the JSON (uint32), JSON, float32 values

All numbers are little-endian. The JSON is `["run", run id]`, of the run that wrote the records behind it, or
`[kind, segment id, [fields of the row]]`; only an embedding has values behind it. Nothing is pickled: a checkpoint
can be read by any program, and reading one runs no code.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from rows.model import EMBEDDING_FLOATS, Census, ClipReference, EmbeddingRow, FailureRow, Receipt, WantedClip

MAGIC: Final = b"HEARROWS2\n"
_HEAD: Final = struct.Struct("<II")
_JSON_LENGTH: Final = struct.Struct("<I")
_TO_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode
_MAX_PAYLOAD_BYTES: Final = 64 << 20
_RECORDING_URI, _RECORDING_VERSION = (EmbeddingRow._fields.index(f"recording_{name}") for name in ("uri", "version"))
_START_S: Final = EmbeddingRow._fields.index("start_s")

Row = EmbeddingRow | FailureRow | Census


class DamagedRecord(Exception):
    """A record whose bytes are not those that were written."""


class Record(NamedTuple):
    """A record that is as it was written."""

    offset: int
    """Where it begins in its file."""
    stop: int
    kind: str
    """`run`, `embedding`, `failure` or `census`."""
    segment_id: str
    """Of a run's record: the run's id."""
    fields: list[object]


def encode_run(run_id: str) -> bytes:
    """A record that says which run wrote those behind it."""
    return _record(["run", run_id], b"")


def encode_row(segment_id: str, row: Row) -> bytes:
    """A row's record."""
    match row:
        case EmbeddingRow():
            values = row.embedding.astype("<f4", copy=False).tobytes()
            return _record(["embedding", segment_id, row[:-1]], values)
        case FailureRow():
            return _record(["failure", segment_id, row], b"")
        case Census():
            return _record(["census", segment_id, row], b"")


def _record(head: list[object], values: bytes) -> bytes:
    text = _TO_JSON(head).encode()
    payload = b"".join((_JSON_LENGTH.pack(len(text)), text, values))
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class FileBuilder:
    """Collects the rows of one run for one checkpoint file, and the receipts for them."""

    def __init__(self, run_id: str) -> None:
        self._receipts = _Receipts(run_id)
        self._parts = [MAGIC, encode_run(run_id)]
        self._size_bytes = sum(map(len, self._parts))
        self.rows = 0

    def add(self, segment_id: str, row: Row) -> None:
        """Appends a row of the segment `segment_id`."""
        self._receipts.add(segment_id, row, self._size_bytes)
        self._parts.append(encode_row(segment_id, row))
        self._size_bytes += len(self._parts[-1])
        self.rows += 1

    def data(self) -> bytes:
        """The whole file."""
        return b"".join(self._parts)

    def receipts(self, file: str) -> list[Receipt]:
        """One receipt for each segment that has rows here, once they are stored under the name `file`."""
        return self._receipts.under(file)


class _Gathered:
    """What a file holds of one segment of one run."""

    __slots__ = ("census", "clips", "failures", "uri", "version")

    def __init__(self, uri: str, version: str) -> None:
        self.uri = uri
        self.version = version
        self.clips: list[ClipReference] = []
        self.failures: list[FailureRow] = []
        self.census: Census | None = None


class _Receipts:
    """Receipts in the making."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._segments: dict[tuple[str, str], _Gathered] = {}

    def add(self, segment_id: str, row: Row, offset: int) -> None:
        gathered = self._of(segment_id, row.recording_uri, row.recording_version)
        match row:
            case EmbeddingRow():
                gathered.clips.append(ClipReference(row.clip_id, offset, row.start_s))
            case FailureRow():
                gathered.failures.append(row)
            case Census():
                gathered.census = row

    def add_record(self, record: Record) -> None:
        match record.kind:
            case "run":
                self.run_id = record.segment_id
            case "embedding":
                fields = record.fields
                gathered = self._of(record.segment_id, str(fields[_RECORDING_URI]), str(fields[_RECORDING_VERSION]))
                gathered.clips.append(ClipReference(str(fields[0]), record.offset, fields[_START_S]))  # type: ignore[arg-type]
            case "failure":
                self.add(record.segment_id, FailureRow(*record.fields), record.offset)  # type: ignore[arg-type]
            case "census":
                self.add(record.segment_id, _census(record.fields), record.offset)

    def under(self, file: str) -> list[Receipt]:
        return [
            Receipt(
                gathered.uri,
                gathered.version,
                segment_id,
                run_id,
                file,
                tuple(gathered.clips),
                tuple(gathered.failures),
                gathered.census,
            )
            for (run_id, segment_id), gathered in self._segments.items()
        ]

    def _of(self, segment_id: str, uri: str, version: str) -> _Gathered:
        gathered = self._segments.get((self.run_id, segment_id))
        if gathered is None:
            gathered = self._segments[self.run_id, segment_id] = _Gathered(uri, version)
        return gathered


def read_receipts(data: bytes, file: str, run_id: str) -> tuple[list[Receipt], int]:
    """The receipts for what is undamaged in a checkpoint file, and how many of its bytes are damaged.

    Args:
      data: the file's bytes.
      file: its path below the checkpoint's folder.
      run_id: whose rows they are if the file does not say, as its beginning is damaged.
    """
    receipts = _Receipts(run_id)
    undamaged_bytes = len(MAGIC) if data.startswith(MAGIC) else 0
    for record in scan(data):
        undamaged_bytes += record.stop - record.offset
        receipts.add_record(record)
    return receipts.under(file), max(1, len(data)) - undamaged_bytes


def scan(data: bytes) -> Iterator[Record]:
    """The undamaged records of a file, in order; what lies between them is passed over."""
    offset = len(MAGIC) if data.startswith(MAGIC) else 0
    while offset + _HEAD.size <= len(data):
        record = _record_at(data, offset)
        if record is None:
            offset = _next_whole(data, offset + 1)
        else:
            yield record
            offset = record.stop


def _next_whole(data: bytes, offset: int) -> int:
    """Where the next undamaged record begins: a damaged one's length cannot be believed."""
    while offset + _HEAD.size <= len(data):
        if _payload(data, offset) is not None:
            return offset
        offset += 1
    return len(data)


def _payload(data: bytes, offset: int) -> memoryview | None:
    length, checksum = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if not _JSON_LENGTH.size < length <= min(_MAX_PAYLOAD_BYTES, len(data) - start):
        return None
    payload = memoryview(data)[start : start + length]
    return payload if zlib.crc32(payload) == checksum else None


def _record_at(data: bytes, offset: int) -> Record | None:
    payload = _payload(data, offset)
    if payload is None:
        return None
    (length,) = _JSON_LENGTH.unpack_from(payload)
    try:
        kind, segment_id, *rest = json.loads(bytes(payload[_JSON_LENGTH.size : _JSON_LENGTH.size + length]))
    except ValueError:
        return None
    return Record(offset, offset + _HEAD.size + len(payload), kind, segment_id, rest[0] if rest else [])


def _census(fields: list[object]) -> Census:
    census = Census(*fields)  # type: ignore[arg-type]
    clips = tuple(WantedClip(clip_id, tuple(map(tuple, wanted))) for clip_id, wanted in census.clips)  # type: ignore[arg-type]
    return census._replace(clips=clips, failed_takes=tuple(map(tuple, census.failed_takes)))  # type: ignore[arg-type]


def read_embedding(data: bytes, offset: int) -> EmbeddingRow:
    """The embedding at `offset` of a checkpoint file's bytes; DamagedRecord if it is not as it was written."""
    record = _record_at(data, offset) if offset + _HEAD.size <= len(data) else None
    if record is None:
        raise DamagedRecord("the checksum does not match")
    if record.kind != "embedding":
        raise DamagedRecord("not an embedding")
    values = np.frombuffer(data, "<f4", EMBEDDING_FLOATS, record.stop - 4 * EMBEDDING_FLOATS)
    return EmbeddingRow._make([*record.fields, values])


def read_all(data: bytes) -> Iterator[tuple[str, Row]]:
    """All undamaged rows of a checkpoint file, with their segments' ids."""
    for record in scan(data):
        match record.kind:
            case "embedding":
                yield record.segment_id, read_embedding(data, record.offset)
            case "failure":
                yield record.segment_id, FailureRow(*record.fields)  # type: ignore[arg-type]
            case "census":
                yield record.segment_id, _census(record.fields)
