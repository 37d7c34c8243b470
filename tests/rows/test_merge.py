"""What the statements do to tables, on a real server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from google.cloud import bigquery

from rows.bigquery import COLUMNS, KINDS, Column, Kind, TableName, staging_columns, staging_of, tables_of
from rows.merge import merge_statement, other_fingerprint_query
from tests.cloud.bigquery import DATASET, PROJECT, BigQueryServer, proxied_bigquery

Row = dict[str, Any]
Rows = dict[Kind, list[Row]]
_SAMPLE: dict[str, Any] = {"STRING": "text", "INT64": 3, "FLOAT64": 2.0, "BOOL": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    with proxied_bigquery(tmp_path_factory.mktemp("bigquery"), "http://127.0.0.1:1") as (running, _):
        yield running


def row(kind: Kind, **changes: Any) -> Row:
    """A row with some value in each column that must have one."""
    values = {column.name: _SAMPLE.get(column.type) for column in COLUMNS[kind] if column.mode == "REQUIRED"}
    return values | ({"embedding": [0.5, 1.0]} if kind == "embeddings" else {}) | changes


def clip(clip_id: str, uri: str = "a", version: str = "1", **changes: Any) -> Row:
    return row("embeddings", clip_id=clip_id, recording_uri=uri, recording_version=version, **changes)


def recording(status: str = "embedded", uri: str = "a", version: str = "1", **changes: Any) -> Row:
    return row("recordings", recording_uri=uri, recording_version=version, status=status, **changes)


def failure(code: str, stage: str = "decode", uri: str = "a", version: str = "1", **changes: Any) -> Row:
    return row("failures", recording_uri=uri, recording_version=version, code=code, stage=stage, **changes)


def literal(value: Any, column: Column) -> str:
    if value is None:
        return "[]" if column.mode == "REPEATED" else "NULL"
    if isinstance(value, list):
        return f"[{', '.join(literal(item, column._replace(mode='REQUIRED')) for item in value)}]"
    if column.type == "JSON":
        return f"PARSE_JSON({json.dumps(json.dumps(value))})"
    return f"CAST('{value}' AS FLOAT64)" if column.type == "FLOAT64" else json.dumps(value)


class Bench:
    """Target tables, into which runs are merged."""

    numbers = count(1)

    def __init__(self, server: BigQueryServer, own: tuple[Column, ...] = ()) -> None:
        self.server = server
        self.target = tables_of(TableName(PROJECT, DATASET, f"t{next(self.numbers)}"))
        for kind in KINDS:
            self._make(self.target[kind], (*COLUMNS[kind], *(own if kind == "embeddings" else ())))

    def holds(self, rows: Rows) -> None:
        """Puts rows into the target tables."""
        for kind in KINDS:
            self._insert(self.target[kind], COLUMNS[kind], rows.get(kind, []))

    def merge(self, rows: Rows) -> dict[Kind, tuple[int, int, int]]:
        """Merges a run that gave these rows; how many were inserted, updated, deleted."""
        staging = staging_of(self.target["embeddings"], f"run{next(self.numbers)}")
        for kind in KINDS:
            self._make(staging[kind], staging_columns(kind))
            self._insert(staging[kind], staging_columns(kind), rows.get(kind, []))
        return {kind: self._merge(kind, staging) for kind in KINDS}

    def rows(self, kind: Kind = "embeddings") -> list[Row]:
        return self.server.rows(self.target[kind].table)

    def _merge(self, kind: Kind, staging: dict[Kind, TableName]) -> tuple[int, int, int]:
        job = self.server.client.query(merge_statement(kind, self.target, staging), job_retry=None)
        job.result()
        stats = job.dml_stats
        return stats.inserted_row_count, stats.updated_row_count, stats.deleted_row_count

    def _make(self, name: TableName, columns: Iterable[Column]) -> None:
        fields = [bigquery.SchemaField(column.name, column.type, column.mode) for column in columns]
        self.server.client.create_table(bigquery.Table(str(name), schema=fields))

    def _insert(self, name: TableName, columns: tuple[Column, ...], rows: list[Row]) -> None:
        assert all(values.keys() <= {column.name for column in columns} for values in rows)
        listed = (", ".join(literal(values.get(c.name), c) for c in columns) for values in rows)
        if tuples := ", ".join(f"({values})" for values in listed):
            self.server.query(f"INSERT INTO `{name}` ({', '.join(c.name for c in columns)}) VALUES {tuples}")


def test_rows_come_in_once_and_an_unchanged_run_rewrites_nothing(server: BigQueryServer) -> None:
    bench = Bench(server)
    silent = clip("quiet", rms_dbfs=-math.inf, manifest_row=2, metadata='{"patient": "007"}')
    run: Rows = {
        "embeddings": [clip("c1"), clip("c1"), silent, silent | {"manifest_row": 3}],
        "recordings": [recording("partial", duration_s=2.0, failure_codes=["truncated"])],
        "failures": [failure("truncated", start_s=1.5), failure("truncated", start_s=1.5)],
    }
    assert bench.merge(run) == {"embeddings": (3, 0, 0), "recordings": (1, 0, 0), "failures": (1, 0, 0)}
    once = [bench.rows(kind) for kind in KINDS]
    assert bench.merge(run) == {"embeddings": (0, 0, 0), "recordings": (0, 0, 0), "failures": (0, 0, 0)}
    assert [bench.rows(kind) for kind in KINDS] == once
    (found,) = (each for each in once[0] if each["manifest_row"] == 2)
    nothing: Row = dict.fromkeys(column.name for column in COLUMNS["embeddings"])
    assert found == nothing | silent | {"metadata": {"patient": "007"}}


@dataclass
class Case:
    """What the target holds of a recording, what a run brings of it, and which clips' rows are there afterwards."""

    held: list[Row]
    new: list[Row]
    then: list[str]
    status: str | None = "embedded"
    """None: the run did not ask for it."""
    version: str = "1"
    failures: list[Row] = field(default_factory=list)


_OTHER_HOP = [clip("c1"), clip("of another hop")]
CASES = {
    **{
        f"another version always goes, {status}": Case(
            [clip("old1", version="0"), clip("old2", version="0")], [clip("new")], ["new"], status
        )
        for status in ("embedded", "partial", "skipped", "failed", "unfinished")
    },
    "all of it": Case(_OTHER_HOP, [clip("c1")], ["c1"]),
    "all of it skipped": Case(_OTHER_HOP, [], [], "skipped"),
    "unfinished": Case(_OTHER_HOP, [clip("c1")], ["c1", "of another hop"], "unfinished"),
    "failed": Case(_OTHER_HOP, [], ["c1", "of another hop"], "failed", failures=[failure("not_audio")]),
    "all there is of a file cut short": Case(
        _OTHER_HOP, [clip("c1")], ["c1"], "partial", failures=[failure("truncated")]
    ),
    "all but an event that is not there": Case(
        _OTHER_HOP, [clip("c1")], ["c1"], "partial", failures=[failure("event_beyond_end", "manifest", manifest_row=3)]
    ),
    "what may pass may have more": Case(
        _OTHER_HOP,
        [clip("c1")],
        ["c1", "of another hop"],
        "partial",
        failures=[failure("truncated"), failure("quota", "endpoint", clip_id="x", retryable=True)],
    ),
    "another machine may have more": Case(
        _OTHER_HOP, [clip("c1")], ["c1", "of another hop"], "partial", failures=[failure("decoder_timeout")]
    ),
    "a clip that fails this time keeps its row": Case(
        [*_OTHER_HOP, clip("refused")],
        [clip("c1")],
        ["c1", "refused"],
        "partial",
        failures=[failure("rejected", "endpoint", clip_id="refused")],
    ),
    "not asked for": Case([clip("c1")], [], ["c1"], None),
    "not found": Case(
        [clip("c1")], [], ["c1"], "failed", "", [failure("storage_error", "list", version="", retryable=True)]
    ),
    "relabelled": Case(
        [clip("c1", manifest_row=1, metadata={"label": "x"}), clip("c1", manifest_row=9), clip("c2", manifest_row=2)],
        [clip("c1", manifest_row=1, metadata='{"label": "cough"}'), clip("c1", manifest_row=3, metadata="{}")],
        ["c1 1 {'label': 'cough'}", "c1 3 {}", "c2 2 None"],
        "unfinished",
    ),
    "there twice": Case([clip("c1"), clip("c1"), clip("gone"), clip("gone")], [clip("c1", codec="opus")], ["c1", "c1"]),
}


def test_what_a_run_supersedes_goes_and_all_else_stays(server: BigQueryServer) -> None:
    bench = Bench(server, own=(Column("reviewed", "STRING", "NULLABLE", ""),))

    def of(uri: str, rows: list[Row]) -> list[Row]:
        return [
            row | {"recording_uri": uri, "clip_id": f"{uri}/{row['clip_id']}" if row.get("clip_id") else None}
            for row in rows
        ]

    bench.holds({"embeddings": [row for uri, case in CASES.items() for row in of(uri, case.held)]})
    server.query(f"UPDATE `{bench.target['embeddings']}` SET reviewed = 'by me' WHERE TRUE")
    inserted, updated, deleted = bench.merge(
        {
            "embeddings": [row for uri, case in CASES.items() for row in of(uri, case.new)],
            "recordings": [recording(case.status, uri, case.version) for uri, case in CASES.items() if case.status],
            "failures": [row for uri, case in CASES.items() for row in of(uri, case.failures)],
        }
    )["embeddings"]
    then: dict[str, list[str]] = {uri: [] for uri in CASES}
    for found in bench.rows():
        event = "" if found["manifest_row"] is None else f" {found['manifest_row']} {found['metadata']}"
        then[found["recording_uri"]].append(found["clip_id"].removeprefix(f"{found['recording_uri']}/") + event)
    assert {uri: sorted(clips) for uri, clips in then.items()} == {uri: case.then for uri, case in CASES.items()}
    held, left = (
        sum(map(len, rows)) for rows in ([case.held for case in CASES.values()], [case.then for case in CASES.values()])
    )
    assert inserted - deleted == left - held
    assert updated == 3  # a relabelled row, and the two of the clip that is there twice
    of_the_users_own = server.query(
        f"SELECT COUNT(*) AS n FROM `{bench.target['embeddings']}` WHERE reviewed = 'by me'"
    )
    assert of_the_users_own == [{"n": held - deleted}]


def test_recordings_and_failures_are_those_of_the_latest_run(server: BigQueryServer) -> None:
    bench = Bench(server)
    in_manifest = failure("missing_value", "manifest", uri="", version="")
    bench.holds(
        {
            "recordings": [recording(), recording(uri="b")],
            "failures": [failure("truncated"), in_manifest | {"manifest_row": 4}, failure("truncated", uri="b")],
            "embeddings": [clip("c1", fingerprint="aa")],
        }
    )
    assert server.query(other_fingerprint_query(bench.target["embeddings"], "aa")) == []
    assert server.query(other_fingerprint_query(bench.target["embeddings"], "bb")) == [{"fingerprint": "aa"}]
    failures = [in_manifest | {"manifest_row": 5}, failure("not_audio", uri="c")]
    counts = bench.merge({"recordings": [recording("failed"), recording(uri="d")], "failures": failures})
    assert (counts["recordings"], counts["failures"]) == ((1, 1, 0), (2, 0, 2))
    statuses = {(row["recording_uri"], row["status"]) for row in bench.rows("recordings")}
    assert statuses == {("a", "failed"), ("b", "embedded"), ("d", "embedded")}
    assert {(row["recording_uri"], row["code"], row["manifest_row"]) for row in bench.rows("failures")} == {
        ("b", "truncated", None),
        ("c", "not_audio", None),
        ("", "missing_value", 5),
    }
