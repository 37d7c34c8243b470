"""The statements that bring a run's staging tables into the target tables: new rows in, superseded ones out, each once.

Written for what is documented of GoogleSQL's MERGE: each source row has a key of its own, subqueries stand in the source only.
A table that has all rows already is not rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rows.bigquery import COLUMNS, Column, Kind, TableName

Tables = Mapping[Kind, TableName]

# What decoders do is up to the machine as well: what an earlier run had of the recording may still be right.
_OF_THE_MOMENT: Final = "retryable OR stage IN ('list', 'fetch') OR STARTS_WITH(code, 'decoder_')"


def merge_statement(kind: Kind, target: Tables, staging: Tables) -> str:
    """The MERGE of one of the tables.

    Embeddings: a recording that the run finished has exactly this run's rows. Rows of another version of a recording
    always go. Of a recording that failed or is unfinished, rows of the same version stay. Recordings that the run did not ask for
    stay as they are.

    Recordings: a row a recording, the latest run's. Failures: those of the run's recordings, and those of no recording,
    are replaced.
    """
    columns = COLUMNS[kind]
    names = [column.name for column in columns]
    gone = _gone(kind, target, staging)
    tombstones = "" if gone is None else f"\n  UNION ALL\n  SELECT {_nulls(columns)}, TRUE, gone_key FROM ({gone})"
    changed = (
        ""
        if kind == "failures"  # there all columns are the key
        else f"""
WHEN MATCHED AND {_as_text("target", columns)} <> {_as_text("source", columns)} THEN
  UPDATE SET {", ".join(f"{name} = source.{name}" for name in names)}"""
    )
    removed = "" if gone is None else "\nWHEN MATCHED AND source.is_gone THEN DELETE"
    return f"""MERGE `{target[kind]}` AS target
USING (
  SELECT {", ".join(map(_staged, columns))}, FALSE AS is_gone, {_key(kind, "staged")} AS row_key
  FROM `{staging[kind]}` AS staged
  WHERE TRUE
  QUALIFY ROW_NUMBER() OVER (PARTITION BY {_key(kind, "staged")}) = 1{tombstones}
) AS source
ON {_key(kind, "target")} = source.row_key{removed}{changed}
WHEN NOT MATCHED BY TARGET AND NOT source.is_gone THEN
  INSERT ({", ".join(names)}) VALUES ({", ".join(f"source.{name}" for name in names)})"""


def other_fingerprint_query(target: TableName, fingerprint: str) -> str:
    """A query for a fingerprint in the embeddings' table that is not `fingerprint`, hex digits."""
    return f"SELECT fingerprint FROM `{target}` WHERE fingerprint <> '{fingerprint}' LIMIT 1"


def _key(kind: Kind, table: str) -> str:
    """What tells the rows of a table apart, as text."""
    match kind:
        case "embeddings":
            return f"CONCAT({table}.clip_id, '/', CAST(IFNULL({table}.manifest_row, 0) AS STRING))"
        case "recordings":
            return f"{table}.recording_uri"
        case "failures":
            return _as_text(table, COLUMNS[kind])


def _as_text(table: str, columns: tuple[Column, ...]) -> str:
    return f"TO_JSON_STRING(STRUCT({', '.join(f'{table}.{column.name}' for column in columns)}))"


def _staged(column: Column) -> str:
    return f"PARSE_JSON(staged.{column.name}) AS {column.name}" if column.type == "JSON" else f"staged.{column.name}"


def _nulls(columns: tuple[Column, ...]) -> str:
    return ", ".join(map(_null, columns))


def _null(column: Column) -> str:
    if column.type == "JSON":  # to which nothing is documented to be cast
        return "PARSE_JSON(CAST(NULL AS STRING))"
    return f"CAST(NULL AS {f'ARRAY<{column.type}>' if column.mode == 'REPEATED' else column.type})"


def _gone(kind: Kind, target: Tables, staging: Tables) -> str | None:
    """A query for the keys, `gone_key`, of the target's rows that the run's rows supersede; None where there can be none."""
    if kind == "recordings":
        return None
    staged_keys = f"SELECT DISTINCT {_key(kind, 'staged')} AS row_key FROM `{staging[kind]}` AS staged"
    present = f"""
    SELECT DISTINCT {_key(kind, "present")} AS gone_key
    FROM `{target[kind]}` AS present
    LEFT JOIN ({staged_keys}) AS kept ON kept.row_key = {_key(kind, "present")}"""
    if kind == "failures":
        return f"""{present}
    LEFT JOIN (
      SELECT recording_uri FROM `{staging["recordings"]}` UNION DISTINCT SELECT recording_uri FROM `{staging["failures"]}`
    ) AS asked ON asked.recording_uri = present.recording_uri
    WHERE kept.row_key IS NULL AND (asked.recording_uri IS NOT NULL OR present.recording_uri = '')"""
    return f"""{present}
    JOIN (
      SELECT staged.recording_uri, staged.recording_version,
        staged.status IN ('embedded', 'skipped') OR (staged.status = 'partial' AND NOT IFNULL(failed.may_pass, FALSE)) AS is_finished
      FROM `{staging["recordings"]}` AS staged
      LEFT JOIN (
        SELECT recording_uri, LOGICAL_OR({_OF_THE_MOMENT}) AS may_pass FROM `{staging["failures"]}` GROUP BY recording_uri
      ) AS failed ON failed.recording_uri = staged.recording_uri
      WHERE staged.recording_version <> ''
    ) AS recording ON recording.recording_uri = present.recording_uri
    LEFT JOIN (SELECT DISTINCT clip_id FROM `{staging["embeddings"]}`) AS embedded ON embedded.clip_id = present.clip_id
    LEFT JOIN (
      SELECT DISTINCT clip_id FROM `{staging["failures"]}` WHERE clip_id IS NOT NULL
    ) AS failed ON failed.clip_id = present.clip_id
    WHERE kept.row_key IS NULL AND (
      present.recording_version <> recording.recording_version
      OR embedded.clip_id IS NOT NULL
      OR (recording.is_finished AND failed.clip_id IS NULL)
    )"""
