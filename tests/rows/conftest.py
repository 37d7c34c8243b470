"""A real storage server for what is stored in a bucket."""

import gc
from collections.abc import Iterator

import pytest

from audio import fetch
from tests.audio.gcs import StorageServer, storage_server


@pytest.fixture(scope="package")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("gcs")) as running:
        running.make_bucket("bucket")
        yield running


@pytest.fixture
def server(running_server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    """The server, which this process's storage client reaches."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running_server.address)
    monkeypatch.setattr(fetch, "_client", None)
    yield running_server
    if fetch._client is not None:
        fetch._client.close()
    # The storage library leaves the connection of a refused request to the garbage collector, which warns.
    gc.collect()
