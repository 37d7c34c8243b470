"""What is fetched ahead: one request an object, many at a time, over connections that are kept."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audio.errors import MissingFile
from audio.fetch import ONE_GET_BYTES
from audio.fetch_ahead import THREADS, FetchAhead, Source, fetch, held_bytes
from audio.recording import Recording
from tests.audio.gcs import StorageServer
from tests.audio.storage_proxy import StorageProxy, storage_proxy

LARGE = 100 << 20


@pytest.fixture
def proxy(server: StorageServer, use: Callable[[str], None]) -> Iterator[StorageProxy]:
    """In front of the server, and used by this process's storage client."""
    with storage_proxy(server.address) as running:
        use(running.address)
        yield running


def test_each_object_takes_one_request_and_no_connection_is_given_up(
    server: StorageServer, proxy: StorageProxy
) -> None:
    contents = {f"ahead/{number}.wav": bytes([number]) * 1000 * number for number in range(100)}
    listed = [
        Recording(f"gs://bucket/{name}", server.upload("bucket", name, data), len(data))
        for name, data in contents.items()
    ]
    proxy.delay_s = 0.02
    with closing(FetchAhead()) as ahead:
        for _ in range(2):
            proxy.lines.clear()
            fetched = [ahead.begin(recording) for recording in listed]
            assert [source.result(30) for source in fetched] == list(contents.values())
            assert len(proxy.lines) == len(listed)
            assert all(proxy.count(rf"^GET .*/{name}\?.*alt=media") == 1 for name in contents)
    assert 1 < proxy.most_concurrent <= THREADS
    assert proxy.connections <= THREADS


def test_what_is_wrong_shows_when_it_is_taken(server: StorageServer, proxy: StorageProxy) -> None:
    with closing(FetchAhead()) as ahead, pytest.raises(MissingFile):
        ahead.begin(Recording("gs://bucket/never.wav", "7", 3)).result(30)


def test_local_files_are_left_to_the_decoder(tmp_path: Path) -> None:
    with closing(FetchAhead()) as ahead:
        assert ahead.begin(Recording(str(tmp_path / "a.wav"), "1-1", 1)).result(0) is None


def test_what_has_not_begun_when_all_is_closed_is_given_up() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fetch_one(recording: Recording) -> Source:
        begun.set()
        assert go_on.wait(30)
        return recording.uri.encode()

    ahead = FetchAhead(fetch_one, threads=1)
    first, second = (ahead.begin(Recording(f"gs://bucket/{name}", "1", 1)) for name in "ab")
    assert begun.wait(30)
    closing_thread = threading.Thread(target=ahead.close)
    closing_thread.start()
    assert second.cancelled() or not second.done()
    go_on.set()
    closing_thread.join(30)
    assert first.result(30) == b"gs://bucket/a"
    assert second.cancelled()


def test_a_small_object_is_its_bytes_and_a_large_one_a_file(
    emulated: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audio.fetch.ONE_GET_BYTES", 1000)
    monkeypatch.setattr("audio.fetch_ahead.ONE_GET_BYTES", 1000)
    small, large = b"s" * 1000, b"l" * 1001
    made = {name: emulated.upload("bucket", name, data) for name, data in (("small", small), ("large", large))}
    assert fetch(Recording("gs://bucket/small", made["small"], 1000)) == small
    file = fetch(Recording("gs://bucket/large", made["large"], 1001))
    assert file is not None
    assert not isinstance(file, bytes)
    assert file.read() == large


def test_several_are_fetched_at_a_time_and_not_more() -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()
    at_once: list[int] = []
    lock = threading.Lock()
    now = 0

    def slow(_: Recording) -> Source:
        nonlocal now
        with lock:
            now += 1
            at_once.append(now)
        arrived.release()
        assert go_on.wait(60)
        with lock:
            now -= 1
        return b""

    ahead = FetchAhead(slow, threads=3)
    begun = [ahead.begin(Recording(f"gs://b/{number}", "1", 1)) for number in range(5)]
    for _ in range(3):
        assert arrived.acquire(timeout=60)
    assert not any(fetched.done() for fetched in begun)
    go_on.set()
    for fetched in begun:
        fetched.result(timeout=60)
    assert max(at_once) == 3
    ahead.close()


def test_what_a_fetched_recording_holds_in_memory() -> None:
    assert held_bytes(Recording("/in/a.wav", "1-1", LARGE)) == 0
    assert held_bytes(Recording("gs://b/small", "1", 70)) == 70
    assert held_bytes(Recording("gs://b/large", "1", LARGE)) == ONE_GET_BYTES
