"""The proxy that makes faults, in front of the real storage server."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.storage import proxied_storage

UPLOAD = r"^POST /upload/storage/v1/b/clinic/o"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StorageServer, FaultProxy]]:
    with proxied_storage(tmp_path_factory.mktemp("storage")) as both:
        both[0].make_bucket("clinic")
        yield both


@pytest.fixture
def server(running: tuple[StorageServer, FaultProxy]) -> StorageServer:
    return running[0]


@pytest.fixture
def proxy(running: tuple[StorageServer, FaultProxy]) -> FaultProxy:
    running[1].clear()
    return running[1]


def test_it_forwards_and_notes_requests(server: StorageServer, proxy: FaultProxy) -> None:
    server.upload("clinic", "forwarded", bytes(range(256)))
    assert server.content("clinic", "forwarded") == (bytes(range(256)), "audio/wav")
    uploaded, read = proxy.requests
    assert uploaded.startswith("POST /upload/storage/v1/b/clinic/o?")
    assert read == "GET /storage/v1/b/clinic/o/forwarded?alt=media"


def test_an_error_is_answered_so_often_and_nothing_is_done(server: StorageServer, proxy: FaultProxy) -> None:
    fault = proxy.inject(UPLOAD, status=429, times=2, retry_after="1")
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.upload("clinic", "refused", b"data")
        with refused.value as answer:
            assert (answer.code, answer.headers["Retry-After"]) == (429, "1")
            assert json.loads(answer.read())["error"]["errors"][0]["reason"] == "rateLimitExceeded"
    assert "refused" not in server.names("clinic")
    server.upload("clinic", "refused", b"data")
    assert fault.hits == 2


def test_an_answer_is_lost_after_the_work_was_done(server: StorageServer, proxy: FaultProxy) -> None:
    done: list[list[str]] = []
    proxy.inject(UPLOAD, drop=True, after=True, call=lambda: done.append(proxy.requests))
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        server.upload("clinic", "lost", b"data")
    assert server.content("clinic", "lost")[0] == b"data"
    assert len(done) == 1


def test_a_body_is_cut(server: StorageServer, proxy: FaultProxy) -> None:
    server.upload("clinic", "cut", bytes(100_000))
    proxy.inject("/o/cut", cut=True)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        server.content("clinic", "cut")
    assert len(server.content("clinic", "cut")[0]) == 100_000


def test_batch_deletes_work_behind_it(server: StorageServer, proxy: FaultProxy) -> None:
    names = ["batch/a", "batch/b"]
    for name in names:
        server.upload("clinic", name, b"data")
    body = "".join(
        f"--x\r\nContent-Type: application/http\r\n\r\nDELETE /storage/v1/b/clinic/o/{name.replace('/', '%2F')} HTTP/1.1\r\n\r\n\r\n"
        for name in names
    )
    request = urllib.request.Request(
        f"{server.address}/batch/storage/v1",
        f"{body}--x--".encode(),
        {"Content-Type": 'multipart/mixed; boundary="x"'},
    )
    urllib.request.urlopen(request, timeout=10).close()
    assert server.names("clinic", "batch/") == []
