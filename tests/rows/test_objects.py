"""Objects on a real storage server, behind a proxy that fails and loses answers: repeated requests do what one does."""

import gc
import os
import tracemalloc
from collections.abc import Iterator

import pytest
from google.api_core import exceptions

from audio import fetch
from rows import objects
from rows.objects import ObjectWriter, blob_at, crc32c, move, write_new, write_over
from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.storage import proxied_storage
from tests.rows.resumable import Uploads, resumable_uploads

# The library leaves the connections of refused requests to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PIECE = 256 << 10
UPLOAD, REWRITE, DELETE = "^POST /upload", "/rewriteTo/", "^DELETE "


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StorageServer, FaultProxy]]:
    with proxied_storage(tmp_path_factory.mktemp("gcs")) as running:
        running[0].make_bucket("bucket")
        yield running


@pytest.fixture
def server(running: tuple[StorageServer, FaultProxy], monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    """The server, which this process's storage client reaches; retries begin at once."""
    yield from _reached(running[0].address, monkeypatch, running[0])


@pytest.fixture
def proxy(running: tuple[StorageServer, FaultProxy], server: StorageServer) -> Iterator[FaultProxy]:
    running[1].clear()
    yield running[1]
    running[1].clear()


def _reached(address: str, monkeypatch: pytest.MonkeyPatch, given: StorageServer) -> Iterator[StorageServer]:
    policy = fetch.retry_policy
    monkeypatch.setattr(objects, "retry_policy", lambda _seconds, _pause_s: policy(20.0, 0.01))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setattr(fetch, "_client", None)
    yield given
    if fetch._client is not None:
        fetch._client.close()
    gc.collect()


def shard(uri: str, data: bytes, piece_bytes: int = PIECE) -> None:
    file = ObjectWriter(uri, piece_bytes)
    file.write(data)
    file.close()


def content(server: StorageServer, name: str) -> bytes:
    return server.content("bucket", name)[0]


NEW_FAULTS = [{"status": 429}, {"status": 503}, {"drop": True}, {"after": True, "drop": True}]


@pytest.mark.parametrize("fault", NEW_FAULTS)
def test_what_is_written_under_a_new_name_is_there_once(
    server: StorageServer, proxy: FaultProxy, fault: dict[str, bool]
) -> None:
    name = f"new/{NEW_FAULTS.index(fault)}"
    hit = proxy.inject(UPLOAD, times=2, **fault)
    write_new(blob_at(f"gs://bucket/{name}"), b"data")
    assert hit.hits == 2
    assert content(server, name) == b"data"


def test_what_is_there_is_written_over_whatever_answers_are_lost(server: StorageServer, proxy: FaultProxy) -> None:
    for data in (b"one", b"another", b""):
        lost = proxy.inject(UPLOAD, after=True, drop=True)
        write_over("gs://bucket/over", data)
        assert lost.hits == 1
        assert content(server, "over") == data


def test_what_is_written_over_is_what_was_there_a_moment_ago(server: StorageServer, proxy: FaultProxy) -> None:
    write_over("gs://bucket/contended", b"first")
    proxy.inject(UPLOAD, call=lambda: server.upload("bucket", "contended", b"somebody else's"))
    write_over("gs://bucket/contended", b"last")
    assert content(server, "contended") == b"last"


def test_a_checksum_is_that_of_the_service(server: StorageServer, proxy: FaultProxy) -> None:
    write_new(blob_at("gs://bucket/checked"), b"some data")
    assert blob_at("gs://bucket/checked").bucket.get_blob("checked").crc32c == crc32c(b"some data")


def test_a_cut_off_answer_is_read_again(server: StorageServer, proxy: FaultProxy) -> None:
    server.upload("bucket", "cut", b"x" * 100_000)
    cut = proxy.inject("cut.*alt=media", cut=True, times=2)
    assert objects.read(blob_at("gs://bucket/cut")) == b"x" * 100_000
    assert cut.hits == 2


FAULTS = [
    (REWRITE, {"status": 503}),
    (REWRITE, {"drop": True}),
    (REWRITE, {"after": True, "drop": True}),
    (DELETE, {"status": 429, "retry_after": "1"}),
    (DELETE, {"after": True, "status": 503}),
]


@pytest.mark.parametrize(("match", "fault"), FAULTS)
def test_a_move_is_done_once_whatever_answers_are_lost(
    server: StorageServer, proxy: FaultProxy, match: str, fault: dict[str, object]
) -> None:
    folder = f"move{FAULTS.index((match, fault))}"
    server.upload("bucket", f"{folder}/name", b"of an earlier run")
    shard(f"gs://bucket/{folder}/.hidden/abc", b"rows")
    hit = proxy.inject(match, times=2, **fault)  # type: ignore[arg-type]
    move(f"gs://bucket/{folder}/.hidden/abc", f"gs://bucket/{folder}/name")
    assert hit.hits == 2
    assert server.names("bucket", folder) == [f"{folder}/name"]
    assert content(server, f"{folder}/name") == b"rows"


def test_a_move_that_was_cut_off_at_any_point_ends_the_same_when_it_is_done_again(
    server: StorageServer, proxy: FaultProxy
) -> None:
    source, target = "gs://bucket/again/.hidden/abc", "gs://bucket/again/name"
    shard(source, b"rows")
    blob_at(target).rewrite(blob_at(source))  # before the metadata say so
    move(source, target)
    move(source, target)
    assert server.names("bucket", "again") == ["again/name"]
    assert content(server, "again/name") == b"rows"


def test_another_shard_of_that_name_is_not_taken_for_the_one_that_is_missing(
    server: StorageServer, proxy: FaultProxy
) -> None:
    shard("gs://bucket/missing/.hidden/old", b"old rows")
    move("gs://bucket/missing/.hidden/old", "gs://bucket/missing/name")
    with pytest.raises(exceptions.NotFound):
        move("gs://bucket/missing/.hidden/new", "gs://bucket/missing/name")
    assert content(server, "missing/name") == b"old rows"


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1])
def test_a_file_of_any_size_is_an_object_once_it_is_closed(server: StorageServer, proxy: FaultProxy, size: int) -> None:
    data = os.urandom(size)
    file = ObjectWriter(f"gs://bucket/written/{size}", PIECE)
    for start in range(0, size, 100_000):
        file.write(data[start : start + 100_000])
    assert file.tell() == size
    assert server.names("bucket", f"written/{size}") == []
    file.close()
    file.close()
    assert content(server, f"written/{size}") == data
    assert sum("/upload/" in line for line in proxy.requests) <= (1 if size <= PIECE else 2 + -(-size // PIECE))


@pytest.mark.parametrize("size", [10, 3 * PIECE])
def test_a_file_that_is_given_up_is_no_object(server: StorageServer, proxy: FaultProxy, size: int) -> None:
    file = ObjectWriter(f"gs://bucket/given-up/{size}", PIECE)
    file.write(bytes(size))
    del file
    gc.collect()
    assert server.names("bucket", "given-up/") == []


def test_a_large_file_takes_the_memory_of_a_few_pieces(server: StorageServer, proxy: FaultProxy) -> None:
    block = os.urandom(64 << 10)
    file = ObjectWriter("gs://bucket/large", 1 << 20)
    file.write(block * 20)
    tracemalloc.start()
    try:
        for _ in range(30 << 4):
            file.write(block)
        file.close()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20
    assert len(content(server, "large")) == (20 << 16) + (30 << 20)


def test_a_complete_upload_whose_answer_was_lost_is_complete_though_it_is_forgotten(
    server: StorageServer, proxy: FaultProxy
) -> None:
    data = os.urandom(2 * PIECE + 5)
    file = ObjectWriter("gs://bucket/forgotten", PIECE)
    file.write(data)
    lost = proxy.inject("^PUT /upload", after=True, drop=True)
    file.close()
    assert lost.hits == 1
    assert content(server, "forgotten") == data


def test_what_arrived_otherwise_than_it_was_sent_is_an_error(server: StorageServer, proxy: FaultProxy) -> None:
    # This server appends a piece that is sent once more because its answer was lost; the real one knows that it has it.
    proxy.inject("^PUT /upload", after=True, drop=True)
    with pytest.raises(Exception, match="checksum"):
        shard("gs://bucket/doubled", os.urandom(2 * PIECE + 5))


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    with resumable_uploads() as running:
        for _ in _reached(running.address, monkeypatch, StorageServer(running.address)):
            yield running


@pytest.mark.parametrize("lost", [{1}, {2}, {3}, {1, 2, 3, 4, 5}])
@pytest.mark.parametrize("how", ["refused", "kept half", "kept"])
def test_pieces_whose_answers_are_lost_are_there_once(uploads: Uploads, lost: set[int], how: str) -> None:
    data = os.urandom(2 * PIECE + 5)
    uploads.lost = dict.fromkeys(lost, how)
    shard("gs://bucket/pieces", data)
    assert uploads.objects == {"pieces": data}
    assert uploads.puts > 3


def test_answers_that_do_not_come_are_waited_for_no_longer_than_is_allowed(
    server: StorageServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "ANSWER_WITHIN_S", (1.0, 0.3))
    late = [proxy.inject(match, delay_s=0.8) for match in (UPLOAD, REWRITE, "alt=media", DELETE)]
    shard("gs://bucket/late/.hidden/abc", b"rows")
    move("gs://bucket/late/.hidden/abc", "gs://bucket/late/name")
    assert objects.read(blob_at("gs://bucket/late/name")) == b"rows"
    assert [fault.hits for fault in late] == [1, 1, 1, 1]
    assert server.names("bucket", "late/") == ["late/name"]
