"""Clips that a batch prediction job was asked for: which clip each of its lines is, and what its row will say but for the embedding.

    index = `["hear-index-1", number of clips, CRC-32 of what follows]`, newline, clip*
    clip  = JSON array of the fields of PendingClip, newline

There is one index beside each shard of clips; its clips are in the order of the shard's lines. Nothing is pickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rows.model import EmbeddingRow

_FORMAT: Final = "hear-index-1"
_TO_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode


class DamagedIndex(Exception):
    """An index whose bytes are not those that were written."""


class PendingClip(NamedTuple):
    """A clip whose embedding is being waited for. From `clip_id` on these are the columns of its row."""

    digest: str
    """Of the clip's instance as it was written (`endpoint.job_lines`): clips with the same samples have the same one."""
    segment_id: str
    clip_id: str
    recording_uri: str
    recording_version: str
    channel: str
    clip_index: int
    start_s: float
    end_s: float
    padded_s: float
    rms_dbfs: float
    peak_dbfs: float
    source_rate_hz: int
    source_channels: int
    codec: str
    model_id: str
    fingerprint: str

    @classmethod
    def of(cls, digest: str, segment_id: str, row: EmbeddingRow) -> PendingClip:
        """The clip whose row this is, but for `endpoint` and `embedding`."""
        return cls(digest, segment_id, *(getattr(row, name) for name in _COLUMNS))

    def embedded(self, endpoint: str, embedding: npt.NDArray[np.float32]) -> EmbeddingRow:
        """The clip's row: with the resource name of what answered, and 512 float32 values."""
        columns: dict[str, Any] = dict(zip(_COLUMNS, self[_KEYS:], strict=True))
        return EmbeddingRow(**columns, endpoint=endpoint, embedding=embedding)

    def __repr__(self) -> str:
        return f"PendingClip(clip_id={self.clip_id!r}, recording_uri={self.recording_uri!r}, start_s={self.start_s})"


_KEYS: Final = 2
_COLUMNS: Final = PendingClip._fields[_KEYS:]


def encode_clip(clip: PendingClip) -> bytes:
    """A clip as a line of JSON, without its end."""
    return _TO_JSON(clip).encode()  # ASCII: file names that are no valid UTF-8 are escaped, too


def decode_clip(line: bytes) -> PendingClip:
    """The clip whose line this is."""
    return PendingClip._make(json.loads(line))


def encode_index(clips: Iterable[PendingClip]) -> bytes:
    """The index of a shard whose lines are these clips, in this order."""
    lines = [encode_clip(clip) + b"\n" for clip in clips]
    body = b"".join(lines)
    return _TO_JSON([_FORMAT, len(lines), zlib.crc32(body)]).encode() + b"\n" + body


def decode_index(data: bytes) -> Iterator[PendingClip]:
    """The clips of an index, in order. Raises DamagedIndex at once, before the first of them."""
    return map(decode_clip, index_lines(data))


def index_lines(data: bytes) -> list[bytes]:
    """The lines of an index's clips, as `encode_clip` made them. Raises DamagedIndex."""
    head, _, body = data.partition(b"\n")
    lines = body.splitlines()
    try:
        told = json.loads(head)
    except ValueError:
        told = None
    if told != [_FORMAT, len(lines), zlib.crc32(body)]:
        raise DamagedIndex("its checksum does not match")
    return lines
