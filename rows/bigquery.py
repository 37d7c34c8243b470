"""The tables in BigQuery: their names, their columns with types and descriptions, and rows as load jobs want them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from rows.model import SCALAR_FIELDS, FailureRow, RecordingRow, TableRow

Kind = Literal["embeddings", "recordings", "failures"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""In the order in which they are merged."""

_SUFFIXES: Final[dict[Kind, str]] = {"embeddings": "", "recordings": "_recordings", "failures": "_failures"}
_STAGING: Final = "hear_staging_"
PROJECT: Final = "([a-z][a-z0-9.-]{1,30}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
"""Pattern of a project's id, with the domain that some have."""
# https://cloud.google.com/bigquery/docs/tables#table_naming allows more, most of which Beam's parser does not take.
_NAME: Final = re.compile(
    rf"(?P<project>{PROJECT})[:.](?P<dataset>[A-Za-z0-9_]{{1,1024}})\.(?P<table>[A-Za-z0-9_-]{{1,1000}})"
)


class TableName(NamedTuple):
    """Where a table is."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """The table that `PROJECT:DATASET.TABLE` or `PROJECT.DATASET.TABLE` names; ValueError where it names none."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise ValueError("expected PROJECT:DATASET.TABLE, with letters, digits and _ in DATASET and TABLE")
        return cls(**found.groupdict())

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def for_beam(self) -> str:
        """As Beam parses it."""
        return f"{self.project}:{self.dataset}.{self.table}"


def tables_of(target: TableName) -> dict[Kind, TableName]:
    """A target's three tables: `TABLE`, `TABLE_recordings`, `TABLE_failures`."""
    return {kind: target._replace(table=target.table + suffix) for kind, suffix in _SUFFIXES.items()}


def staging_of(target: TableName, run_id: str) -> dict[Kind, TableName]:
    """The tables of a run's own, beside the target, that its rows are loaded into before they are merged."""
    stem = _STAGING + run_id.replace("-", "_")
    return {kind: target._replace(table=f"{stem}_{kind}") for kind in KINDS}


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    """As GoogleSQL names it."""
    mode: Literal["REQUIRED", "NULLABLE", "REPEATED"]
    description: str


COLUMNS: Final[dict[Kind, tuple[Column, ...]]] = {
    "embeddings": (
        Column("clip_id", "STRING", "REQUIRED", "The same for the same clip in every run"),
        Column("recording_uri", "STRING", "REQUIRED", "gs://bucket/name, or an absolute path"),
        Column(
            "recording_version",
            "STRING",
            "REQUIRED",
            "The object's generation; of a file its size and modification time",
        ),
        Column("channel", "STRING", "REQUIRED", "mean, or the channel's number from 0"),
        Column("clip_index", "INT64", "REQUIRED", "The clip's number in its channel, skipped and failed ones counted"),
        Column("start_s", "FLOAT64", "REQUIRED", "Where the clip's audio begins, in seconds of the recording"),
        Column("end_s", "FLOAT64", "REQUIRED", "Where the clip's audio ends, in seconds of the recording"),
        Column("padded_s", "FLOAT64", "REQUIRED", "Seconds of zeros behind or around the audio"),
        Column(
            "rms_dbfs", "FLOAT64", "REQUIRED", "Level of the audio relative to full scale; -inf for digital silence"
        ),
        Column(
            "peak_dbfs", "FLOAT64", "REQUIRED", "Peak of the audio relative to full scale; -inf for digital silence"
        ),
        Column("source_rate_hz", "INT64", "REQUIRED", "The recording's sample rate"),
        Column("source_channels", "INT64", "REQUIRED", "How many channels the recording has"),
        Column("codec", "STRING", "REQUIRED", "FFmpeg's name of the recording's codec, such as pcm_s16le"),
        Column("model_id", "STRING", "REQUIRED", "Which model embedded the clip"),
        Column("endpoint", "STRING", "REQUIRED", "The endpoint's resource name, with the deployed model's id behind @"),
        Column("fingerprint", "STRING", "REQUIRED", "Everything that changes what a row holds: samples and model"),
        Column("embedding", "FLOAT64", "REPEATED", "512 numbers"),
        Column("manifest_row", "INT64", "NULLABLE", "With a manifest: the number of its row, from 1"),
        Column("metadata", "JSON", "NULLABLE", "With a manifest: its other columns, as an object of strings"),
    ),
    "recordings": (
        Column("recording_uri", "STRING", "REQUIRED", "gs://bucket/name, or an absolute path"),
        Column("recording_version", "STRING", "REQUIRED", "See the embeddings; empty where it could not be looked up"),
        Column("size_bytes", "INT64", "REQUIRED", "Of the file or object"),
        Column("duration_s", "FLOAT64", "NULLABLE", "Seconds of audio that were decoded"),
        Column("container", "STRING", "NULLABLE", "Format of the file, such as wav"),
        Column("codec", "STRING", "NULLABLE", "FFmpeg's name of the codec"),
        Column("decoder", "STRING", "NULLABLE", "The library that decoded it"),
        Column("source_rate_hz", "INT64", "NULLABLE", "Sample rate"),
        Column("source_channels", "INT64", "NULLABLE", "How many channels it has"),
        Column("gaps", "INT64", "REQUIRED", "Gaps between frames that were filled with zeros"),
        Column("gap_s", "FLOAT64", "REQUIRED", "Seconds of these"),
        Column("clips", "INT64", "REQUIRED", "Clips with an outcome: embedded, failed or skipped"),
        Column("embedded", "INT64", "REQUIRED", "Clips that have an embedding"),
        Column("failed", "INT64", "REQUIRED", "Clips that failed"),
        Column("skipped_too_short", "INT64", "REQUIRED", "Last clips with too little audio"),
        Column("skipped_too_quiet", "INT64", "REQUIRED", "Clips below the threshold"),
        Column("status", "STRING", "REQUIRED", "embedded, partial, skipped, failed or unfinished"),
        Column("failure_codes", "STRING", "REPEATED", "Codes of its failures, each once"),
    ),
    "failures": (
        Column(
            "recording_uri",
            "STRING",
            "REQUIRED",
            "gs://bucket/name, or an absolute path; empty where a manifest's row names none",
        ),
        Column("recording_version", "STRING", "REQUIRED", "See the embeddings; empty where it is not known"),
        Column("clip_id", "STRING", "NULLABLE", "Null where the failure is the recording's"),
        Column("channel", "STRING", "NULLABLE", "Of the clip"),
        Column("start_s", "FLOAT64", "NULLABLE", "Where in the recording, as far as that is known"),
        Column("stage", "STRING", "REQUIRED", "list, manifest, fetch, decode, staging or endpoint"),
        Column("code", "STRING", "REQUIRED", "What happened, in one word"),
        Column("message", "STRING", "REQUIRED", "What happened, in a sentence"),
        Column("retryable", "BOOL", "REQUIRED", "Whether it may pass: the next run tries again"),
        Column("attempts", "INT64", "REQUIRED", "Requests that were sent for the clip"),
        Column("manifest_row", "INT64", "NULLABLE", "The manifest's row that cannot be used"),
    ),
}
"""The columns of each table, in order, with what BigQuery shows as their descriptions."""

DESCRIPTIONS: Final[dict[Kind, str]] = {
    "embeddings": "HeAR embeddings, a row for each 2-second clip (and row of the manifest that wants it)",
    "recordings": "A row for each recording: its format, and what became of its clips",
    "failures": "Why a recording, or one clip of it, could not be embedded",
}


def staging_columns(kind: Kind) -> tuple[Column, ...]:
    """The columns of a staging table: metadata are text there, as Avro has no JSON."""
    return tuple(column._replace(type="STRING") if column.type == "JSON" else column for column in COLUMNS[kind])


def beam_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a staging table, as Beam takes it."""
    fields = [{"name": column.name, "type": column.type, "mode": column.mode} for column in staging_columns(kind)]
    return {"fields": fields}


def embedding_dict(row: TableRow) -> dict[str, Any]:
    """A row of the embeddings' staging table; `embedding` a list of 512 Python floats."""
    clip = row.clip
    values: dict[str, Any] = dict(zip(SCALAR_FIELDS, clip, strict=False))
    values["embedding"] = clip.embedding.tolist()
    values["manifest_row"] = row.manifest_row
    values["metadata"] = None if row.manifest_row is None else json.dumps(dict(row.metadata), ensure_ascii=False)
    return values


def row_dict(row: RecordingRow | FailureRow) -> dict[str, Any]:
    """A row of the recordings' or the failures' staging table."""
    return row._asdict()


def normalised_type(name: str) -> str:
    """A type as GoogleSQL names it: the API answers with older names."""
    return {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}.get(name.upper(), name.upper())


def schema_difference(kind: Kind, found: Mapping[str, tuple[str, str]]) -> str | None:
    """What keeps rows from fitting into a table: a column that is missing or of another kind, or one that rows would lack.

    Args:
      kind: which table it is.
      found: type and mode of its columns, by name. Columns of the user's own do no harm if they may be null.
    """
    expected = {column.name: column for column in COLUMNS[kind]}
    for name, column in expected.items():
        wanted = f"{column.type} {column.mode}"
        if name not in found:
            return f"has no column {name!r}: expected {wanted}"
        type_name, mode = normalised_type(found[name][0]), found[name][1].upper()
        # A column that was made by hand may be null although it never is.
        is_mode = mode == column.mode or (mode, column.mode) == ("NULLABLE", "REQUIRED")
        if type_name != column.type or not is_mode:
            return f"has the column {name!r} as {type_name} {mode}: expected {wanted}"
    for name, (type_name, mode) in found.items():
        if name not in expected and mode.upper() == "REQUIRED":
            return (
                f"has a column {name!r} of its own as {normalised_type(type_name)} REQUIRED: expected it to be NULLABLE"
            )
    return None
