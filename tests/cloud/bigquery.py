"""A real server of BigQuery's protocol (local-bigquery, on DuckDB) on loopback, and what leads the command to it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from tests.audio.gcs import wait_for
from tests.cloud.fault_proxy import FaultProxy, fault_proxy
from tests.cloud.google_proxy import google_cloud

PROJECT, DATASET = "local-project", "study"
_REPOSITORY = Path(__file__).resolve().parents[2]
_PYTHON = Path(os.environ.get("BIGQUERY_PYTHON") or _REPOSITORY / ".venv-bigquery" / "bin" / "python")
_SHIM = Path(__file__).with_name("beam_bigquery")


class BigQueryServer:
    """A running server."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self.address = address
        self.environment = environment
        """For the command."""
        options = {"api_endpoint": address}
        self._client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options=options)

    @property
    def client(self) -> bigquery.Client:
        """A client of the server itself, without faults."""
        return self._client

    def query(self, text: str) -> list[dict[str, Any]]:
        """The rows that a query gives."""
        return [dict(row) for row in self._client.query(text, job_retry=None).result()]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table of the dataset, as SQL gives them."""
        return self.query(f"SELECT * FROM {DATASET}.{table}")

    def tables(self) -> set[str]:
        """The names of the dataset's tables."""
        return {table.table_id for table in self._client.list_tables(DATASET)}


def require_server() -> None:
    """Skips the test, or fails it in CI, where the server's environment is not there."""
    if _PYTHON.exists():
        return
    reason = f"needs the local BigQuery server in {_PYTHON.parents[1]}: make bigquery-server, with Python 3.13"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def proxied_bigquery(folder: Path, storage_address: str) -> Iterator[tuple[BigQueryServer, FaultProxy]]:
    """Runs a server that keeps its tables in `folder`, with an empty dataset, and a proxy in front of it for the command.

    Args:
        folder: an empty one.
        storage_address: of the storage server that load jobs read from.
    """
    require_server()
    (folder / "cloud").mkdir()
    with fault_proxy() as proxy, google_cloud(folder / "cloud") as cloud, _running(folder, storage_address) as port:
        proxy.upstream = ("127.0.0.1", port)
        environment = {
            **cloud.environment,  # Beam's client wants credentials, also for a server on this machine
            "BIGQUERY_EMULATOR_HOST": proxy.address,
            "STORAGE_EMULATOR_HOST": storage_address,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_SHIM), os.environ.get("PYTHONPATH")])),
        }
        del environment["GOOGLE_CLOUD_PROJECT"], environment["https_proxy"]  # Beam would ask it for loopback, too
        server = BigQueryServer(f"http://127.0.0.1:{port}", environment)
        server.client.create_dataset(DATASET)
        yield server, proxy


@contextmanager
def _running(folder: Path, storage_address: str) -> Iterator[int]:
    port, grpc_port = _free_ports(2)
    environment = _PYTHON.parents[1]
    command = [_PYTHON.with_name("local-bigquery"), "--host", "127.0.0.1", "--port", port, "--grpc-port", grpc_port]
    command += ["--data-dir", folder / "bigquery", "--project", PROJECT]
    with (folder / "bigquery.log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command)],
            # DuckDB looks for its extensions in the home folder.
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(environment / "home"),
                "STORAGE_EMULATOR_HOST": storage_address,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, folder / "bigquery.log")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
