"""A real storage server, and this process's storage client pointed at it."""

import gc
from collections.abc import Callable, Iterator

import pytest

import audio.fetch
from tests.audio.gcs import StorageServer, storage_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    """A server with the bucket `bucket`."""
    with storage_server(tmp_path_factory.mktemp("objects")) as running:
        running.make_bucket("bucket")
        yield running


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that points this process's storage client at an address, for one test."""
    monkeypatch.setattr(audio.fetch, "_client", None)
    yield lambda address: monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    if audio.fetch._client is not None:
        audio.fetch._client.close()
    # The storage library leaves the connection of a refused request to the garbage collector, which warns.
    gc.collect()


@pytest.fixture
def emulated(server: StorageServer, use: Callable[[str], None]) -> StorageServer:
    """The server, which this process's storage client uses."""
    use(server.address)
    return server
