"""How rows get to BigQuery's load files; what becomes of them there is tested against a real server (tests/e2e/test_bigquery.py)."""

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from rows.bigquery import TableName
from transforms.write_bigquery import TableWrite, WriteBigQuery
from transforms.write_tables import ReadRows, WriteEmbeddings

WRITE = TableWrite(
    TableName("my-project", "study", "t"), "20260102T030405Z-abcdef", "my-project", "gs://bucket/bigquery-run"
)


def test_rows_are_read_once_and_written_to_files_and_load_files_where_they_are_read() -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    places = pipeline | "Places" >> beam.Create([("file", [])]) | beam.GroupByKey()
    rows = {
        "embeddings": places | "Read rows" >> ReadRows("/checkpoint"),
        "recordings": pipeline | "Recordings" >> beam.Create([]),
        "failures": pipeline | "Failures" >> beam.Create([]),
    }
    files = rows["embeddings"] | "Files" >> WriteEmbeddings("/out/a", "tfrecord", "run")
    rows | "BigQuery" >> WriteBigQuery(WRITE, after=(files,))
    _, stages = FnApiRunner().create_stages(pipeline.to_runner_api())
    steps = {step.unique_name: index for index, stage in enumerate(stages) for step in stage.transforms}
    (written,) = (name for name in steps if "Load embeddings" in name and name.endswith("ParDo(WriteRecordsToFile)"))
    assert steps["Read rows/Read"] == steps["Files/Into files/Write shards"] == steps[written]


def test_a_run_has_names_of_its_own() -> None:
    assert WRITE.job_stem("failures") == "hear_merge_20260102T030405Z-abcdef_failures"
    assert {table.table for table in WRITE.staging.values()}.isdisjoint(table.table for table in WRITE.tables.values())
