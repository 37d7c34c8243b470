"""Names of tables, and rows as load jobs want them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from rows.bigquery import (
    COLUMNS,
    KINDS,
    Kind,
    TableName,
    beam_schema,
    embedding_dict,
    row_dict,
    schema_difference,
    staging_of,
    tables_of,
)
from rows.model import EmbeddingRow, FailureRow, RecordingRow, TableRow
from tests.rows.samples import embedding_row

TARGET = TableName("my-project", "study", "coughs")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "bigquery.md"


@pytest.mark.parametrize("text", ["my-project:study.coughs", "my-project.study.coughs"])
def test_a_table_has_two_ways_of_being_named(text: str) -> None:
    assert TableName.parse(text) == TARGET
    assert str(TARGET) == "my-project.study.coughs"
    assert TARGET.for_beam == "my-project:study.coughs"


def test_projects_of_a_domain() -> None:
    assert TableName.parse("example.com:my-project:study.t") == TableName("example.com:my-project", "study", "t")


@pytest.mark.parametrize(
    "text", ["", "study.coughs", "p:study", "p:s.t$20240101", "p:s.t`; DROP", "p:a-b.t", "P:s.t", "p:s.t "]
)
def test_what_names_no_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"PROJECT:DATASET\.TABLE"):
        TableName.parse(text)


def test_a_target_has_three_tables_and_a_run_three_of_its_own() -> None:
    assert [table.table for table in tables_of(TARGET).values()] == ["coughs", "coughs_recordings", "coughs_failures"]
    staging = staging_of(TARGET, "20260102T030405Z-abcdef")
    assert {table.table for table in staging.values()} == {
        f"hear_staging_20260102T030405Z_abcdef_{kind}" for kind in KINDS
    }


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("embeddings", (*EmbeddingRow._fields, "manifest_row", "metadata")),
        ("recordings", RecordingRow._fields),
        ("failures", FailureRow._fields),
    ],
)
def test_tables_have_the_columns_of_the_rows(kind: Kind, fields: tuple[str, ...]) -> None:
    assert tuple(column.name for column in COLUMNS[kind]) == fields
    assert all(column.description for column in COLUMNS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_shows_the_columns(kind: Kind) -> None:
    shown = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (.+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    expected = [(column.name, column.type, column.mode.lower(), column.description) for column in COLUMNS[kind]]
    start = sum(len(COLUMNS[before]) for before in KINDS[: KINDS.index(kind)])
    assert shown[start : start + len(expected)] == expected


def test_an_embedding_is_a_list_of_python_floats_whatever_its_numbers() -> None:
    clip = embedding_row()._replace(embedding=np.arange(512, dtype=np.float32), rms_dbfs=-math.inf)
    row = embedding_dict(TableRow(clip, None, ()))
    assert row["embedding"] == [float(number) for number in range(512)]
    assert {type(value) for value in row["embedding"]} == {float}
    assert row["rms_dbfs"] == -math.inf
    assert (row["manifest_row"], row["metadata"]) == (None, None)
    assert row.keys() == {field["name"] for field in beam_schema("embeddings")["fields"]}


def test_metadata_are_text_in_json_with_a_manifest_even_if_there_are_none() -> None:
    row = embedding_dict(TableRow(embedding_row(), 7, (("patient", "00017"), ("кашель", '"да"\n'))))
    assert json.loads(row["metadata"]) == {"patient": "00017", "кашель": '"да"\n'}
    assert row["manifest_row"] == 7
    assert embedding_dict(TableRow(embedding_row(), 1, ()))["metadata"] == "{}"


def test_other_rows_are_dicts_of_their_fields() -> None:
    failure = FailureRow.at_no_place("gs://a/b.wav", "1", "decode", "truncated", "the file ends early")
    assert row_dict(failure)["clip_id"] is None
    values = dict.fromkeys(RecordingRow._fields, 0) | {"failure_codes": ["truncated"]}
    assert row_dict(RecordingRow(**values)) == values  # type: ignore[arg-type]


def _found(**changes: tuple[str, str] | None) -> dict[str, tuple[str, str]]:
    old_names = {"FLOAT64": "FLOAT", "INT64": "INTEGER"}
    found = {c.name: (old_names.get(c.type, c.type), c.mode) for c in COLUMNS["embeddings"]}
    return {name: kind for name, kind in (found | changes).items() if kind is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"label": ("STRING", "NULLABLE")}, None),
        ({"clip_id": ("STRING", "NULLABLE")}, None),
        ({"codec": None}, "no column 'codec': expected STRING REQUIRED"),
        ({"start_s": ("NUMERIC", "REQUIRED")}, "'start_s' as NUMERIC REQUIRED: expected FLOAT64 REQUIRED"),
        ({"embedding": ("FLOAT", "NULLABLE")}, "'embedding' as FLOAT64 NULLABLE: expected FLOAT64 REPEATED"),
        ({"manifest_row": ("INTEGER", "REQUIRED")}, "'manifest_row' as INT64 REQUIRED: expected INT64 NULLABLE"),
        ({"mine": ("STRING", "REQUIRED")}, "'mine' of its own as STRING REQUIRED: expected it to be NULLABLE"),
    ],
)
def test_a_schema_that_does_not_fit_is_told_by_its_column(
    changes: dict[str, tuple[str, str] | None], said: str | None
) -> None:
    difference = schema_difference("embeddings", _found(**changes))
    assert difference is None if said is None else (difference is not None and said in difference)
