"""Options and settings of runs that write to BigQuery; what is asked of it is tested against a real server (tests/e2e)."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.command import WRONG_USAGE, main
from pipeline.planned import plan
from pipeline.report import print_summary
from pipeline.resuming import Earlier
from pipeline.tables import check_tables, table_facts, tables_in_order
from rows.bigquery import TableName
from tests.pipeline.commands import settings, whole
from tests.pipeline.test_report import summary

TABLE = {"output_table": "my-project:study.coughs"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"output_table": "study.coughs", "temp_location": "gs://b/t"},
            ["--output_table is 'study.coughs'", "PROJECT:DATASET.TABLE"],
        ),
        (TABLE, ["--temp_location is missing", "gs://bucket/temp"]),
        (TABLE | {"temp_location": "here"}, ["--temp_location is missing"]),
        (TABLE | {"output": None, "temp_location": "gs://b/t"}, ["--checkpoint is missing", "--output_table alone"]),
        (TABLE | {"output": "", "temp_location": "gs://b/t"}, ["--output is empty"]),
        ({"output": None}, ["--output is missing", "--output_table PROJECT:DATASET.TABLE"]),
    ],
)
def test_what_cannot_be_meant(
    changes: dict[str, str | None], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(whole(tmp_path, **changes)) == WRONG_USAGE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(part in err for part in said), err


def test_tables_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = whole(tmp_path, **TABLE, output=None, checkpoint="gs://b/ck")
    assert main([*alone, "--overwrite"]) == WRONG_USAGE
    assert "--overwrite is given, but has a meaning only with --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({"temp_location": "gs://temp/x/"}, "gs://temp/x"),
        ({"temp_location": "gs://temp", "checkpoint": "gs://b/ck"}, "gs://temp"),
        ({"temp_location": "here", "checkpoint": "gs://b/ck"}, "gs://b/ck"),
        ({"checkpoint": "gs://b/ck"}, "gs://b/ck"),
    ],
)
def test_load_files_are_in_a_folder_of_the_run_s_own(changes: dict[str, str], folder: str, tmp_path: Path) -> None:
    run = settings(tmp_path, **TABLE, **changes)
    assert run.table_write is not None
    assert run.table_write.load_folder == f"{folder}/bigquery-{run.run_id}"


def test_jobs_run_in_the_project_that_beam_is_told_else_in_the_table_s(tmp_path: Path) -> None:
    own = settings(tmp_path, **TABLE, checkpoint="gs://b/ck").table_write
    other = settings(tmp_path, **TABLE, checkpoint="gs://b/ck", project="payer-project").table_write
    assert own is not None
    assert other is not None
    assert (own.job_project, other.job_project) == ("my-project", "payer-project")


def test_without_files_the_summary_is_in_the_checkpoint(tmp_path: Path) -> None:
    run = settings(tmp_path, **TABLE, output=None, checkpoint="gs://b/ck")
    assert run.summary_path == f"gs://b/ck/{run.run_id}/summary.json"
    assert run.destinations == "--output_table"
    assert run.output_table == TableName("my-project", "study", "coughs")
    assert settings(tmp_path, **TABLE, checkpoint="gs://b/ck").destinations == "--output and --output_table"
    planned = plan(run)
    assert (planned["output"], planned["output_table"]) == (None, "my-project.study.coughs")


def test_a_run_without_tables_asks_nothing_of_bigquery(tmp_path: Path) -> None:
    run = settings(tmp_path)
    check_tables(run)
    with tables_in_order(run, Earlier({}), lambda: False):
        assert table_facts(run) == {}


def test_the_summary_names_tables_and_what_was_done_to_them() -> None:
    table: dict[str, Any] = {
        "table": "my-project.study.coughs",
        "inserted": 1234,
        "updated": 0,
        "deleted": 5,
        "job": "x",
    }
    file = io.StringIO()
    print_summary(summary(tables=[table]), Console(file=file, width=200))
    assert "my-project.study.coughs: 1,234 rows inserted, 0 rows updated, 5 rows deleted\n" in file.getvalue()
