"""Recordings that are named one by one: files and objects, and what is said of those that are not there."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import audio.lookup
from audio.listing import Unlisted, list_input
from audio.lookup import resolve
from audio.recording import Recording
from tests.audio.gcs import StorageServer
from tests.audio.storage_proxy import Fault, storage_proxy

_LEAVES_CONNECTIONS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


def failure(uri: str) -> Unlisted:
    (found,) = resolve([uri])
    assert isinstance(found, Unlisted)
    assert found.uri == uri
    return found


def test_nothing_is_nothing() -> None:
    assert resolve([]) == []


@pytest.mark.parametrize("name", ["a b.wav", "star*.wav", "[x].wav", "new\nline.wav", "кашель 🤧.wav", "none"])
def test_a_file_is_the_recording_that_listing_it_gives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"abc")
    path = str(tmp_path / name)
    assert resolve([path]) == list(list_input(path))


def test_globs_are_names(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    assert failure(f"{tmp_path}/*.wav").code == "missing_file"


@pytest.mark.parametrize("name", ["nothing.wav", "folder/nothing.wav", "file/x.wav", "a\0.wav", "x" * 300, "circle"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "circle").symlink_to("circle")
    found = failure(f"{tmp_path}/{name}")
    assert (found.code, found.retryable) == ("missing_file", False)


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket", "device"])
def test_what_is_no_regular_file(tmp_path: Path, kind: str) -> None:
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
    found = failure(str(path))
    assert (found.code, found.retryable) == ("not_a_regular_file", False)
    assert kind in found.message or kind == "fifo"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied"), "permission_denied"),
        (OSError(5, "Input/output error"), "storage_error"),
    ],
)
def test_a_file_that_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: str
) -> None:
    def refuse(path: str) -> None:
        raise error

    monkeypatch.setattr(os, "stat", refuse)  # root, as whom tests may run, may look at everything
    found = failure(str(tmp_path / "a.wav"))
    assert (found.code, found.retryable) == (code, True)


def test_many_objects_and_files_in_their_order_with_duplicates(
    server: StorageServer, use: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(b"abcd")
    with storage_proxy(server.address) as proxy:
        use(proxy.address)
        proxy.delay_s = 0.05
        names = [f"batch/{number} ?#%20.wav" for number in range(60)]
        generations = [server.upload("bucket", name, b"x" * number) for number, name in enumerate(names)]
        uris = [f"gs://bucket/{name}" for name in names]
        expected = [Recording(uri, g, n) for n, (uri, g) in enumerate(zip(uris, generations, strict=True))]
        found = resolve([uris[7], str(tmp_path / "a.wav"), "gs://bucket/batch/none.wav", *uris])
        assert found[0] == expected[7]
        assert found[1] == next(list_input(str(tmp_path / "a.wav")))
        assert isinstance(found[2], Unlisted)
        assert found[3:] == expected
        assert proxy.count("^GET /storage/v1/b/bucket/o/batch/") == len(proxy.lines) == 61
        assert 2 < proxy.most_concurrent <= 32
        assert proxy.connections <= 32


@pytest.mark.parametrize(
    "uri", ["gs://bucket/none.wav", "gs://no-such-bucket/a.wav", "gs://bucket", "gs://", "gs:///a"]
)
def test_an_object_that_is_not_there(emulated: StorageServer, uri: str) -> None:
    found = failure(uri)
    assert (found.code, found.retryable) == ("missing_file", False)


def test_a_folder_of_objects(emulated: StorageServer) -> None:
    emulated.upload("bucket", "folder/", b"")
    assert failure("gs://bucket/folder/").code == "not_a_regular_file"


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "permission_denied"), (403, "permission_denied"), (400, "permission_denied"), (503, "storage_error")],
)
def test_refusals_and_failures_of_the_service(
    status: int, code: str, server: StorageServer, use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio.lookup, "_RETRY_FOR_S", 0.01)
    server.upload("bucket", "a.wav", b"abc")
    with storage_proxy(server.address) as proxy:
        proxy.add(Fault("/o/refused", status=status))
        use(proxy.address)
        refused, there = resolve(["gs://bucket/refused.wav", "gs://bucket/a.wav"])
    assert isinstance(refused, Unlisted)
    assert (refused.code, refused.retryable) == (code, True)
    assert "PLANTED" not in refused.message
    assert isinstance(there, Recording)


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize("status", [503, 429, None])
def test_what_passes_is_tried_again(status: int | None, server: StorageServer, use: Callable[[str], None]) -> None:
    server.upload("bucket", "again.wav", b"abc")
    with storage_proxy(server.address) as proxy:
        proxy.add(Fault("/o/again", status=status, times=1))
        use(proxy.address)
        (found,) = resolve(["gs://bucket/again.wav"])
    assert isinstance(found, Recording)


@_LEAVES_CONNECTIONS
def test_a_storage_that_cannot_be_reached(use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.lookup, "_RETRY_FOR_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(f"http://127.0.0.1:{port}")
    found = failure("gs://bucket/a.wav")
    assert (found.code, found.retryable) == ("storage_error", True)


def test_without_credentials_each_object_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.exceptions import DefaultCredentialsError

    def refuse() -> None:
        raise DefaultCredentialsError("PLANTED")

    monkeypatch.setattr(audio.lookup, "storage_client", refuse)
    for found in resolve(["gs://bucket/a.wav", "gs://bucket/b.wav"]):
        assert isinstance(found, Unlisted)
        assert found.code == "permission_denied"
        assert re.search("DefaultCredentialsError.*gcloud auth application-default login", found.message)
