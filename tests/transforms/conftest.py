"""A bucket of a real storage server, behind a proxy that can fail, for tests of staged clips."""

import gc
import uuid
from collections.abc import Callable, Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from audio import fetch
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import StorageProxy, storage_proxy
from transforms.staging_area import StagingArea


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture
def bucket(server: StorageServer) -> str:
    name = f"staging-{uuid.uuid4().hex}"
    server.make_bucket(name)
    return name


@pytest.fixture
def proxy(server: StorageServer) -> Iterator[StorageProxy]:
    with storage_proxy(server.address) as running:
        yield running


@pytest.fixture
def client(proxy: StorageProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], storage.Client]]:
    # Else the client asks for the bucket's metadata in the background, on a thread that nobody waits for.
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    made = storage.Client("local", AnonymousCredentials(), client_options={"api_endpoint": proxy.address})
    yield lambda: made
    made.close()


@pytest.fixture
def area(bucket: str) -> StagingArea:
    return StagingArea.of(f"gs://{bucket}/a/b", "run1")


@pytest.fixture
def reached(server: StorageServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder on the server, `gs://bucket/folder`, which this process's storage client reaches."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
    monkeypatch.setattr(fetch, "_client", None)
    yield f"gs://{bucket}/folder"
    if fetch._client is not None:
        fetch._client.close()
    # The storage library leaves the connection of a refused request to the garbage collector, which warns.
    gc.collect()
