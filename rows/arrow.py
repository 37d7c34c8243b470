"""The tables' Parquet schemas, and rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from rows.model import EMBEDDING_FLOATS, SCALAR_FIELDS, EmbeddingRow, RecordingRow, TableRow

_TYPES: Final = {str: pa.string(), int: pa.int64(), float: pa.float64()}

EMBEDDINGS_SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, _TYPES[EmbeddingRow.__annotations__[name]], nullable=False) for name in SCALAR_FIELDS),
        pa.field("embedding", pa.list_(pa.float32(), EMBEDDING_FLOATS), nullable=False),
    ]
)

MANIFEST_FIELDS: Final = (
    pa.field("manifest_row", pa.int64(), nullable=False),
    pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
)
"""What a table has besides where a manifest names the recordings."""


def embeddings_schema(*, has_manifest: bool) -> pa.Schema:
    """The schema of the embeddings' table."""
    return pa.schema([*EMBEDDINGS_SCHEMA, *MANIFEST_FIELDS]) if has_manifest else EMBEDDINGS_SCHEMA


RECORDINGS_SCHEMA: Final = pa.schema(
    [
        pa.field("recording_uri", pa.string(), nullable=False),
        pa.field("recording_version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("container", pa.string()),
        pa.field("codec", pa.string()),
        pa.field("decoder", pa.string()),
        pa.field("source_rate_hz", pa.int64()),
        pa.field("source_channels", pa.int64()),
        pa.field("gaps", pa.int64(), nullable=False),
        pa.field("gap_s", pa.float64(), nullable=False),
        pa.field("clips", pa.int64(), nullable=False),
        pa.field("embedded", pa.int64(), nullable=False),
        pa.field("failed", pa.int64(), nullable=False),
        pa.field("skipped_too_short", pa.int64(), nullable=False),
        pa.field("skipped_too_quiet", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("failure_codes", pa.list_(pa.string()), nullable=False),
    ]
)


def embeddings_table(rows: Sequence[TableRow], schema: pa.Schema = EMBEDDINGS_SCHEMA) -> pa.Table:
    """The rows as a table of `embeddings_schema`; `embedding` is a fixed-size list of 512 float32."""
    columns = [
        pa.array([getattr(row.clip, field.name) for row in rows], field.type)
        for field in EMBEDDINGS_SCHEMA
        if field.name != "embedding"
    ]
    values = np.concatenate([row.clip.embedding for row in rows]) if rows else np.empty(0, np.float32)
    field = EMBEDDINGS_SCHEMA.field("embedding")
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), type=field.type))
    if len(schema) > len(EMBEDDINGS_SCHEMA):
        columns += [pa.array([getattr(row, field.name) for row in rows], field.type) for field in MANIFEST_FIELDS]
    return pa.Table.from_arrays(columns, schema=schema)


def recordings_table(rows: Sequence[RecordingRow]) -> pa.Table:
    """The rows as a table of RECORDINGS_SCHEMA."""
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=RECORDINGS_SCHEMA)
