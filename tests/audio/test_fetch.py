import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import audio.fetch
from audio.clips import ClipSettings, open_clips
from audio.errors import AudioError
from audio.fetch import _Pieces, local_version, open_recording
from audio.recording import Recording, Take
from audio.segments import cut
from tests.audio.gcs import StorageServer
from tests.audio.makers import noise, sound_file, wav
from tests.audio.storage_proxy import Fault, storage_proxy
from tests.cloud.fault_proxy import fault_proxy

_LEAVES_CONNECTIONS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


def listed(path: Path) -> Recording:
    status = path.stat()
    return Recording(str(path), local_version(status), status.st_size)


def failure(recording: Recording) -> AudioError:
    with pytest.raises(AudioError) as caught, open_recording(recording) as file:
        file.read()
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        "a b.wav",
        "a#1.wav",
        "a?.wav",
        "a&b.wav",
        "a%20b.wav",
        "-dash.wav",
        "new\nline.wav",
        "кашель.wav",
        "🤧.wav",
        "none",
    ],
)
def test_files_of_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"abc")
    with open_recording(listed(path)) as file:
        assert file.read() == b"abc"
        assert file.seekable()


def test_a_name_that_begins_with_a_dash_or_looks_like_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.wav", "0"):
        Path(name).write_bytes(b"abc")
        with open_recording(Recording(name, "", 3)) as file:
            assert file.read() == b"abc"


def test_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with open_recording(listed(tmp_path / "link")) as file:
        assert file.read() == b"abc"


def test_missing(tmp_path: Path) -> None:
    error = failure(Recording(str(tmp_path / "a.wav"), "1-1", 1))
    assert (error.code, error.retryable) == ("missing_file", False)
    assert failure(Recording(str(tmp_path / "a\0.wav"), "1-1", 1)).code == "missing_file"


def test_changed_after_listing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"abc")
    recording = listed(path)
    path.write_bytes(b"abcd")
    assert failure(recording).code == "changed_file"
    os.utime(path, ns=(1, 1))
    assert failure(Recording(str(path), "4-2", 4)).code == "changed_file"


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket", "device"])
def test_what_is_not_a_regular_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path = Path("/dev/zero")
    error = failure(Recording(str(path), "0-0", 0))
    assert error.code == "not_a_regular_file"
    assert not error.retryable


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"abc")
    path.chmod(0)
    assert failure(listed(path)).code == "permission_denied"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["a b.wav", "a#1?&%20.wav", "folder/кашель 🤧.wav", "-dash"])
def test_an_object_of_any_name(emulated: StorageServer, name: str) -> None:
    generation = emulated.upload("bucket", name, b"abc")
    with open_recording(Recording(f"gs://bucket/{name}", generation, 3)) as file:
        assert file.read() == b"abc"


def test_a_large_object_is_read_in_pieces(emulated: StorageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.fetch, "ONE_GET_BYTES", 1_000)
    monkeypatch.setattr(audio.fetch, "_FIRST_PIECE_BYTES", 3_000)
    monkeypatch.setattr(audio.fetch, "_PIECE_BYTES", 50_000)
    data = wav(noise(100_000))
    generation = emulated.upload("bucket", "large.wav", data)
    with open_recording(Recording("gs://bucket/large.wav", generation, len(data))) as file:
        assert file.seek(0, os.SEEK_END) == len(data)
        assert file.read() == b""
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read(9) == data[-5:]
        file.seek(70_000)
        assert file.read(60_000) == data[70_000:130_000]
        file.seek(0)
        stream = open_clips(file, ClipSettings())
        assert len(list(stream)) == 4
        assert stream.error is None


class Ranges:
    """Stands in for the storage: keeps the size of each range that is asked for."""

    def __init__(self, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self._data = data
        self.sizes: list[int] = []
        monkeypatch.setattr(audio.fetch, "_download", self._range)
        self.file = io.BufferedReader(_Pieces(None, len(data)), 8 << 20)  # type: ignore[arg-type]

    def _range(self, _: object, first: int, last: int) -> bytes:
        self.sizes.append(last + 1 - first)
        return self._data[first : last + 1]


def test_pieces_grow_while_reading_goes_on_and_are_small_again_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = Ranges(bytes(40 << 20), monkeypatch)
    kib = 1 << 10
    while ranges.file.read(32 * kib):
        pass
    grown = [256 * kib, 1024 * kib, 4096 * kib, 8192 * kib]
    assert ranges.sizes[:4] == grown
    assert set(ranges.sizes[4:-1]) == {8192 * kib}
    assert sum(ranges.sizes) == 40 << 20
    ranges.sizes.clear()
    for place in (10 << 20, 30 << 20, 20 << 20):
        ranges.file.seek(place)
        ranges.file.read(10)
        ranges.file.seek(place + 100 * kib)
        ranges.file.read(10)
    assert ranges.sizes == [256 * kib] * 3
    ranges.file.seek(-10, os.SEEK_END)
    assert len(ranges.file.read(99)) == 10
    assert ranges.sizes[3:] == [10]


@given(st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 5_000)), max_size=12))
def test_any_part_of_a_large_object(places: list[tuple[int, int]]) -> None:
    data = np.random.default_rng(0).bytes(9_000)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(audio.fetch, "_FIRST_PIECE_BYTES", 100)
        monkeypatch.setattr(audio.fetch, "_PIECE_BYTES", 1_000)
        ranges = Ranges(data, monkeypatch)
        for place, size in places:
            ranges.file.seek(place)
            assert ranges.file.read(size) == data[place : place + size]
        assert max(ranges.sizes, default=0) <= 1_000


def test_a_part_of_a_long_flac_takes_a_part_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound_file(noise(1_500 * 8_000), 8_000, "FLAC")
    assert len(data) > 16 << 20
    recording = Recording("gs://bucket/long.flac", "7", len(data))
    ranges = Ranges(data, monkeypatch)
    parts = cut(recording, cast(BinaryIO, ranges.file), (Take("mean", 905 * 16_000, 906 * 16_000),), ClipSettings())
    assert [(part.start_s, part.stop_s) for part in parts] == [(900, 1_200)]
    assert sum(ranges.sizes) < 2 << 20
    ranges = Ranges(data, monkeypatch)
    stream = open_clips(cast(BinaryIO, ranges.file), ClipSettings(), parts[0].takes, 900, 1_200)
    assert len(list(stream)) == 1
    assert stream.error is None
    assert sum(ranges.sizes) < 3 << 20


@_LEAVES_CONNECTIONS
def test_an_object_that_is_not_there(emulated: StorageServer) -> None:
    error = failure(Recording("gs://bucket/nothing.wav", "7", 3))
    assert (error.code, error.retryable) == ("missing_file", False)
    assert failure(Recording("gs://no-such-bucket/a.wav", "7", 3)).code == "missing_file"
    assert failure(Recording("gs://bucket", "7", 3)).code == "missing_file"


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "17")
        self.end_headers()
        self.wfile.write(b"secret of service")

    def log_message(self, format: str, *args: object) -> None:
        pass


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(401, "permission_denied", True), (403, "permission_denied", True), (503, "storage_error", True)],
)
def test_refusals_and_failures_of_the_service(
    status: int, code: str, retryable: bool, use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio.fetch, "_RETRY_FOR_S", 0.01)
    handler = type("Handler", (_Answers,), {"status": status})
    with serving(handler) as address:
        use(address)
        error = failure(Recording("gs://bucket/a.wav", "7", 3))
    assert (error.code, error.retryable) == (code, retryable)
    assert "secret" not in error.message


@_LEAVES_CONNECTIONS
def test_an_object_that_was_replaced(use: Callable[[str], None]) -> None:
    class Replaced(_Answers):
        def do_GET(self) -> None:
            self.send_response(404 if "generation=" in self.path else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    with serving(Replaced) as address:
        use(address)
        error = failure(Recording("gs://bucket/a.wav", "7", 3))
    assert (error.code, error.retryable) == ("changed_file", False)


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize("first", [{"status": 429}, {"drop": True}, {"cut": True}, {"delay_s": 0.1}])
def test_what_passes_is_read_again_whole_or_in_part(
    server: StorageServer, use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    data = wav(noise(100_000))
    generation = server.upload("bucket", "again.wav", data)
    with fault_proxy() as proxy:
        host, _, port = server.address.removeprefix("http://").partition(":")
        proxy.upstream = (host, int(port))
        use(proxy.address)
        for one_get_bytes in (1 << 20, 1_000):
            monkeypatch.setattr(audio.fetch, "ONE_GET_BYTES", one_get_bytes)
            hit = proxy.inject("alt=media", **first)
            with open_recording(Recording("gs://bucket/again.wav", generation, len(data))) as file:
                assert file.read() == data
            assert hit.hits == 1


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize(
    ("metadata", "status", "said"),
    [
        (
            {"name": "a.wav", "customerEncryption": {"encryptionAlgorithm": "AES256"}},
            200,
            "a key that only its owner has",
        ),
        ({"error": {"code": 400}}, 400, "requester pays"),
    ],
)
def test_an_object_that_cannot_be_read_as_it_is(
    server: StorageServer, use: Callable[[str], None], metadata: dict[str, Any], status: int, said: str
) -> None:
    generation = server.upload("bucket", "a.wav", b"abc")
    with storage_proxy(server.address) as proxy:
        # Without the owner's key, or a project that pays, the service says that the request is bad.
        proxy.add(Fault("a.wav.*alt=media", status=400))
        proxy.add(Fault("^GET /storage/v1/b/bucket/o/a.wav", status=status, body=metadata))
        use(proxy.address)
        error = failure(Recording("gs://bucket/a.wav", generation, 3))
    assert (error.code, error.retryable) == ("permission_denied", True)
    assert said in error.message
    assert "PLANTED" not in error.message


def test_a_storage_that_cannot_be_reached(use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.fetch, "_RETRY_FOR_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(f"http://127.0.0.1:{port}")
    error = failure(Recording("gs://bucket/a.wav", "7", 3))
    assert (error.code, error.retryable) == ("storage_error", True)


def test_one_client_per_process(emulated: StorageServer) -> None:
    assert audio.fetch.storage_client() is audio.fetch.storage_client()
