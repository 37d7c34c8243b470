"""BigQuery before and after a run: tables that rows fit into, tables of the run's own, and nothing of a run that was cut off."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from pipeline.resuming import Earlier
from pipeline.settings import RunSettings
from pipeline.usage import UsageError
from rows.bigquery import COLUMNS, DESCRIPTIONS, KINDS, Column, Kind, TableName, schema_difference, staging_columns
from rows.merge import merge_statement, other_fingerprint_query
from rows.store import StoreError, open_store
from transforms.bigquery_jobs import EMULATOR, TableError, bigquery_client, reason, retry, table_error
from transforms.write_bigquery import TableWrite, remove_staging

if TYPE_CHECKING:
    from google.cloud import bigquery

FINGERPRINT_LABEL: Final = "hear-fingerprint"
STAGING_EXPIRES_AFTER: Final = timedelta(days=14)
"""A batch job of Dataflow ends within 10."""
_ROLES: Final = "roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project"


def table_facts(run: RunSettings) -> dict[str, Any]:
    """What the summary, and the next run on the checkpoint, are told of where rows go."""
    write = run.table_write
    if write is None:
        return {}
    return {"output_table": str(write.target), "job_project": write.job_project, "load_folder": write.load_folder}


def check_tables(run: RunSettings) -> None:
    """Raises UsageError where rows would not fit into the tables that are there, or are not to be mixed with theirs.

    Reads only. Raises TableError where BigQuery does not answer.
    """
    write = run.table_write
    if write is None:
        return
    # Beam makes a client that asks the environment for a project, although all names have theirs.
    os.environ.setdefault("GOOGLE_CLOUD_PROJECT", write.job_project)
    client = bigquery_client(write.job_project)
    _check_dataset(client, write)
    for kind, name in write.tables.items():
        table = _find(client, name)
        if table is None:
            continue
        difference = schema_difference(kind, {field.name: (field.field_type, field.mode) for field in table.schema})
        if difference is not None:
            raise UsageError(
                f"--output_table is {str(write.target)!r}, but the table {name} {difference}; choose another table, or change this one"
            )
        if kind == "embeddings":
            _check_fingerprint(client, table, name, run.fingerprint)


@contextmanager
def tables_in_order(run: RunSettings, earlier: Earlier, is_at_work: Callable[[], bool]) -> Iterator[None]:
    """Removes what earlier runs of the checkpoint left, and makes the tables that rows go into.

    Where the run fails inside of the context, what it has made for itself goes at once, unless it is still at work, elsewhere:
    then the next run removes it, or its expiration.
    """
    _sweep(earlier)
    write = run.table_write
    if write is None:
        yield
        return
    try:
        _make_tables(write, run.fingerprint)
        yield
    except BaseException:
        if not is_at_work():
            remove_own(run)
        raise


def remove_own(run: RunSettings) -> None:
    """Removes what the run has made for itself, and says where something is left."""
    if run.table_write is not None:
        _remove(run.table_write)


def _remove(write: TableWrite) -> None:
    try:
        remove_staging(write, stop=True)
    except (StoreError, TableError) as error:
        print(
            f"note: staging tables or load files of run {write.run_id} may be left: {error} The next run on this checkpoint tries again.",
            file=sys.stderr,
        )


def _sweep(earlier: Earlier) -> None:
    """Removes what is left of earlier runs. Most have left nothing, which one look at each dataset and place of load files tells."""
    tables: dict[tuple[str, str], set[str]] = {}
    folders: dict[str, set[str]] = {}
    for write in filter(None, map(_noted, earlier.runs)):
        dataset = (write.target.project, write.target.dataset)
        if dataset not in tables:
            tables[dataset] = _tables_beside(write)
        place, _, folder = write.load_folder.rpartition("/")
        if place not in folders:
            folders[place] = _folders_in(place)
        if tables[dataset] & {table.table for table in write.staging.values()} or folder in folders[place]:
            _remove(write)


def _tables_beside(write: TableWrite) -> set[str]:
    target = write.target
    try:
        client = bigquery_client(write.job_project)
        tables = client.list_tables(f"{target.project}.{target.dataset}", retry=retry())
        return {table.table_id for table in tables}
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        print(f"note: the dataset {target.dataset} cannot be searched for leftovers ({reason(error)})", file=sys.stderr)
        return set()


def _folders_in(place: str) -> set[str]:
    with contextlib.suppress(StoreError):
        return set(open_store(place).folders())
    return set()


def _noted(facts: Mapping[str, Any]) -> TableWrite | None:
    """How an earlier run wrote, by what it noted; None where it wrote to no table."""
    try:
        run_id, folder = str(facts["run_id"]), str(facts["load_folder"])
        target = TableName.parse(str(facts["output_table"]))
        project = str(facts["job_project"])
    except (KeyError, ValueError):
        return None
    # Never anything else, whatever stands in the file.
    return TableWrite(target, run_id, project, folder) if folder.endswith(f"/bigquery-{run_id}") else None


def _check_dataset(client: bigquery.Client, write: TableWrite) -> None:
    target = write.target
    try:
        client.get_dataset(f"{target.project}.{target.dataset}", retry=retry())
        _dry_run(client, "SELECT 1")
    except Exception as error:  # noqa: BLE001 - likewise
        code = getattr(error, "code", None)
        if code == 404:
            remedy = (
                f"there is no dataset {target.dataset!r} in the project {target.project!r}: make it, with "
                f"bq mk -d {target.project}:{target.dataset}"
            )
        elif code in (400, 403):
            remedy = f"it may not be used, or jobs may not be run in the project {write.job_project!r} ({reason(error)}): expected {_ROLES}"
        else:
            raise table_error(error, f"looking for the dataset {target.dataset}") from None
        raise UsageError(f"--output_table is {str(target)!r}, but {remedy}") from None


def _find(client: bigquery.Client, name: TableName) -> bigquery.Table | None:
    from google.api_core.exceptions import Forbidden, NotFound

    try:
        return client.get_table(str(name), retry=retry())
    except NotFound:
        return None
    except Forbidden as error:
        raise UsageError(
            f"--output_table: the table {name} may not be read ({reason(error)}): expected {_ROLES}"
        ) from None
    except Exception as error:  # noqa: BLE001 - likewise
        raise table_error(error, f"looking for the table {name}") from None


def _check_fingerprint(client: bigquery.Client, table: bigquery.Table, name: TableName, fingerprint: str) -> None:
    """Refuses a table whose rows are of other samples or another model: they must not be mixed."""
    if table.labels.get(FINGERPRINT_LABEL) == fingerprint:
        return
    try:
        rows = client.query_and_wait(other_fingerprint_query(name, fingerprint), retry=retry())
        other = next((str(row[0]) for row in rows), None)
    except Exception as error:  # noqa: BLE001 - likewise
        raise table_error(error, f"reading {name}") from None
    if other is not None:
        raise UsageError(
            f"--output_table is {str(name)!r}, which holds rows of the fingerprint {other!r}, but this run's is {fingerprint!r}: "
            "rows of two models, or of other samples, must not be mixed; choose another table"
        )


def _make_tables(write: TableWrite, fingerprint: str) -> None:
    """Makes the target tables that are not there, and the run's own. Raises TableError."""
    client = bigquery_client(write.job_project)
    expires = datetime.fromtimestamp(time.time(), timezone.utc) + STAGING_EXPIRES_AFTER
    for kind in KINDS:
        name = write.tables[kind]
        try:
            table = client.create_table(_described(kind, name, COLUMNS[kind]), exists_ok=True, retry=retry())
            if kind == "embeddings" and table.labels.get(FINGERPRINT_LABEL) != fingerprint:
                table.labels = {**table.labels, FINGERPRINT_LABEL: fingerprint}
                client.update_table(table, ["labels"], retry=retry())
            name = write.staging[kind]
            staging = _described(kind, name, staging_columns(kind))
            staging.expires = expires
            client.create_table(staging, exists_ok=True, retry=retry())
        except Exception as error:  # noqa: BLE001 - likewise
            raise table_error(error, f"making the table {name}") from None
    if os.environ.get(EMULATOR):  # which plans no MERGE
        return
    for kind in KINDS:
        try:
            _dry_run(client, merge_statement(kind, write.tables, write.staging))
        except Exception as error:  # noqa: BLE001 - likewise
            raise table_error(error, f"planning to merge rows into {write.tables[kind]}") from None


def _dry_run(client: bigquery.Client, query: str) -> None:
    """Asks whether a query could be run, which costs nothing."""
    from google.cloud import bigquery

    client.query(query, job_config=bigquery.QueryJobConfig(dry_run=True), retry=retry(), job_retry=None)


def _described(kind: Kind, name: TableName, columns: tuple[Column, ...]) -> bigquery.Table:
    from google.cloud import bigquery

    fields = [
        bigquery.SchemaField(column.name, column.type, column.mode, description=column.description)
        for column in columns
    ]
    table = bigquery.Table(str(name), schema=fields)
    table.description = DESCRIPTIONS[kind]
    table.clustering_fields = ["recording_uri"]
    return table
