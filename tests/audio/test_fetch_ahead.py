"""Objects fetched ahead: by one request each, several at a time, with their errors kept for their turn."""

import threading
from pathlib import Path

import pytest

from audio.errors import MissingFile
from audio.fetch import ONE_GET_BYTES
from audio.fetch_ahead import FetchAhead, Source, fetch, held_bytes
from audio.recording import Recording
from tests.audio.gcs import StorageServer

LARGE = 100 << 20


def test_a_local_recording_is_left_to_its_decoder(tmp_path: Path) -> None:
    ahead = FetchAhead(fetch_one=lambda _: b"never")
    assert ahead.begin(Recording(str(tmp_path / "nothing.wav"), "1-1", 5)).result(timeout=0) is None
    ahead.close()


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


def test_what_cannot_be_fetched_is_an_error_of_that_recording_alone(emulated: StorageServer) -> None:
    version = emulated.upload("bucket", "there", b"x")
    ahead = FetchAhead()
    gone = ahead.begin(Recording("gs://bucket/gone", "1", 1))
    there = ahead.begin(Recording("gs://bucket/there", version, 1))
    assert there.result(timeout=60) == b"x"
    with pytest.raises(MissingFile):
        gone.result(timeout=60)
    ahead.close()


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


def test_closing_gives_up_what_has_not_begun() -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(_: Recording) -> Source:
        started.set()
        assert go_on.wait(60)
        return b""

    ahead = FetchAhead(slow, threads=1)
    first, second = (ahead.begin(Recording(f"gs://b/{number}", "1", 1)) for number in range(2))
    assert started.wait(60)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    go_on.set()
    closing.join(60)
    assert first.result(timeout=0) == b""
    assert second.cancelled()


def test_what_a_fetched_recording_holds_in_memory() -> None:
    assert held_bytes(Recording("/in/a.wav", "1-1", LARGE)) == 0
    assert held_bytes(Recording("gs://b/small", "1", 70)) == 70
    assert held_bytes(Recording("gs://b/large", "1", LARGE)) == ONE_GET_BYTES
