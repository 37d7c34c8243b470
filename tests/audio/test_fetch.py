import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import audio.fetch
from audio.clips import ClipSettings, open_clips
from audio.errors import AudioError
from audio.fetch import local_version, open_recording
from audio.recording import Recording
from tests.audio.gcs import StorageServer
from tests.audio.makers import noise, wav

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


def test_a_storage_that_cannot_be_reached(use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.fetch, "_RETRY_FOR_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(f"http://127.0.0.1:{port}")
    error = failure(Recording("gs://bucket/a.wav", "7", 3))
    assert (error.code, error.retryable) == ("storage_error", True)


def test_one_client_per_process(emulated: StorageServer) -> None:
    assert audio.fetch.storage_client() is audio.fetch.storage_client()
