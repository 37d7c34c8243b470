"""Sixth stage, beside the files or instead of them: rows into BigQuery, by load jobs into tables of the run, and one MERGE each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
from apache_beam.io.gcp.bigquery import WriteToBigQuery

from rows.bigquery import (
    KINDS,
    Kind,
    TableName,
    beam_schema,
    embedding_dict,
    row_dict,
    staging_of,
    tables_of,
)
from rows.merge import merge_statement
from rows.model import TableRow
from rows.store import StoreError, open_store
from transforms.bigquery_jobs import RETRY_FOR_S, TableError, bigquery_client, retry, run_merge, stop_jobs, table_error
from transforms.quiet import quiet_worker

CLEAN_UP_FOR_S: Final = 30.0
"""What is left after that is removed by the next run on the checkpoint, or expires."""


@dataclass(frozen=True)
class TableWrite:
    """Where a run's rows go, and by way of what."""

    target: TableName
    run_id: str
    job_project: str
    """In which the jobs run, and which pays for them."""
    load_folder: str
    """The run's own, `gs://.../bigquery-RUN_ID`, for the files that load jobs read."""

    @property
    def tables(self) -> dict[Kind, TableName]:
        """The target's three tables."""
        return tables_of(self.target)

    @property
    def staging(self) -> dict[Kind, TableName]:
        """The tables that rows are loaded into."""
        return staging_of(self.target, self.run_id)

    def job_stem(self, kind: Kind) -> str:
        """What the names of the jobs begin with that merge one of the tables: the same whoever asks."""
        return f"hear_merge_{self.run_id}_{kind}"


def location_of(write: TableWrite, client: Any, for_s: float = RETRY_FOR_S) -> str:
    """Where the dataset is, and so its jobs. Raises TableError."""
    try:
        dataset = client.get_dataset(f"{write.target.project}.{write.target.dataset}", retry=retry(for_s))
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        raise table_error(error, f"looking for the dataset {write.target.dataset}") from None
    return str(dataset.location)


def remove_staging(write: TableWrite, *, stop: bool) -> None:
    """Removes the run's staging tables and load files; what is gone is no error. Raises TableError, StoreError.

    Args:
      write: whose they are.
      stop: jobs that are at work on them may be there, and are ended first: one that went on would bring the rows of a run
        that was cut off over those of a later one.
    """
    client = bigquery_client(write.job_project)
    if stop:
        location = location_of(write, client, CLEAN_UP_FOR_S)
        for kind in KINDS:
            stop_jobs(client, write.job_stem(kind), location, for_s=CLEAN_UP_FOR_S)
    for table in write.staging.values():
        try:
            client.delete_table(str(table), not_found_ok=True, retry=retry(CLEAN_UP_FOR_S))
        except Exception as error:  # noqa: BLE001 - likewise
            raise table_error(error, f"removing {table}") from None
    store = open_store(write.load_folder)
    store.remove(list(store.names()))


class _Merge(beam.DoFn):
    def __init__(self, write: TableWrite) -> None:
        self._write = write

    def setup(self) -> None:
        quiet_worker()

    def process(self, _once: None, *_loaded: Iterable[Any]) -> Iterator[dict[str, Any]]:
        write = self._write
        client = bigquery_client(write.job_project)
        location = location_of(write, client)
        for kind in KINDS:
            table = write.tables[kind]
            statement = merge_statement(kind, write.tables, write.staging)
            merged = run_merge(client, statement, write.job_stem(kind), table, location)
            yield {"table": str(table), **merged._asdict()}
        try:
            remove_staging(write, stop=False)
        except (TableError, StoreError) as error:
            print(
                f"note: staging tables or load files of the run are left, and expire by themselves: {error}",
                file=sys.stderr,
            )


def _row_dicts(rows: list[TableRow]) -> Iterator[dict[str, Any]]:
    return map(embedding_dict, rows)


_TO_DICTS: Final[dict[Kind, Callable[[Any], Iterable[dict[str, Any]]]]] = {
    "embeddings": _row_dicts,
    "recordings": lambda row: (row_dict(row),),
    "failures": lambda row: (row_dict(row),),
}


class WriteBigQuery(beam.PTransform):
    """Rows into the three tables of a target: loaded into tables of the run, then merged, which nothing that is repeated repeats.

    Rows cross no shuffle: only the names of the files that they are in do.

    Args:
      write: where to.
      after: what must be there before anything is merged, so that a run that fails changes no table.

    Expects a dict of PCollections: `embeddings` (lists of TableRow), `recordings` and `failures` (rows). Returns what was done to
    each table, as dicts of JSON values.
    """

    def __init__(self, write: TableWrite, after: Iterable[beam.PCollection] = ()) -> None:
        super().__init__()
        self._write = write
        self._after = tuple(after)

    def expand(self, rows: dict[str, beam.PCollection]) -> beam.PCollection:
        loaded: list[beam.PCollection] = []
        for kind in KINDS:
            load = rows[kind] | f"{kind.capitalize()} as dicts" >> beam.FlatMap(_TO_DICTS[kind])
            done = load | f"Load {kind}" >> WriteToBigQuery(
                self._write.staging[kind].for_beam,
                schema=beam_schema(kind),
                method=WriteToBigQuery.Method.FILE_LOADS,
                # Whole numbers stay floats, and -inf is one; JSON has neither.
                temp_file_format="AVRO",
                custom_gcs_temp_location=self._write.load_folder,
                create_disposition="CREATE_NEVER",
                write_disposition="WRITE_APPEND",
                load_job_project_id=self._write.job_project,
            )
            loaded += [done.destination_load_jobid_pairs, done.destination_copy_jobid_pairs]
        waits_for = map(beam.pvalue.AsIter, (*loaded, *self._after))
        once = rows["recordings"].pipeline | "Once" >> beam.Create([None])
        return once | "Merge" >> beam.ParDo(_Merge(self._write), *waits_for)
