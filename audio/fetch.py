"""A recording's bytes: a local regular file, or an object on Cloud Storage, in the version that was listed."""

from __future__ import annotations

import io
import os
import stat
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from audio.errors import AccessDenied, ChangedFile, FetchError, MissingFile, NotARegularFile, StorageError
from audio.ranged_file import RangedFile
from audio.recording import Recording
from audio.storage_errors import fetch_error, is_bad_request, why_not_as_it_is

if TYPE_CHECKING:
    from google.cloud import storage

_GS = "gs://"
_READING = "reading the object"
_READ_RIGHT = "storage.objects.get on its bucket"
ONE_GET_BYTES = 8 << 20
"""Objects up to this size come in one request; larger ones are read piece by piece as they are decoded."""
_FIRST_PIECE_BYTES = 256 << 10
_PIECE_BYTES = 8 << 20
"""How much a request asks for: little where reading begins, for whoever only looks around there (headers, and the places
that are tried in finding one in FLAC), and four times as much with each further piece in a row, up to this."""
_PIECE_GROWTH = 4
_RETRY_FOR_S = 60.0
ANSWER_WITHIN_S = (10.0, 60.0)
"""How long Cloud Storage may take to be connected to, and between two bytes of an answer, in seconds."""
_CONNECTIONS = 64
"""Kept open: as many as all threads of a process that fetch, and those that store rows, use at a time."""

_client_lock = threading.Lock()
_client: storage.Client | None = None


def is_object(recording: Recording) -> bool:
    """Whether the recording is on Cloud Storage."""
    return recording.uri.startswith(_GS)


def open_recording(recording: Recording) -> BinaryIO:
    """Return the recording as a seekable file of exactly the version that was listed; use it as a context manager.

    Raises FetchError; of its kinds only StorageError is worth trying again.
    """
    if is_object(recording):
        return _open_object(recording)
    return _open_local(recording)


def local_version(status: os.stat_result) -> str:
    """Return what tells two versions of a local file apart: size and modification time."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def storage_client() -> storage.Client:
    """Return this process's one Cloud Storage client: anonymous to an emulator (STORAGE_EMULATOR_HOST).

    Raises google.auth.exceptions.DefaultCredentialsError where there are no credentials.
    """
    global _client
    with _client_lock:
        if _client is None:
            # Else the library asks for a bucket's metadata in the background, for traces that nobody collects.
            os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import storage

            if os.environ.get("STORAGE_EMULATOR_HOST"):
                _client = storage.Client(project="local", credentials=AnonymousCredentials())
            else:
                _client = storage.Client()
            keep_authorization(_client)
            widen_pool(_client, _CONNECTIONS)
        return _client


def widen_pool(client: storage.Client, connections: int) -> None:
    """Let the client keep at least so many connections open.

    requests keeps 10 a host: with more threads, every further call would open a connection of its own, a TLS handshake
    each, and warn of it. Adapters of another kind (mutual TLS) are left alone.
    """
    from requests.adapters import HTTPAdapter

    adapters = client._http.adapters
    for scheme in ("https://", "http://"):
        adapter: Any = adapters.get(scheme)
        # An adapter takes its key's place in one step (mount() would reorder the others under threads that read them).
        if type(adapter) is HTTPAdapter and adapter._pool_maxsize < connections:
            adapters[scheme] = HTTPAdapter(pool_maxsize=connections)


def retry_policy(retry_for_s: float, first_pause_s: float = 1.0) -> Any:
    """How calls of Cloud Storage that may be repeated are: 408, 429, 5xx and broken connections, after pauses that double.

    Args:
      retry_for_s: how long, before RetryError is raised.
      first_pause_s: the longest pause before the first retry; the longest of all are 16 seconds.
    """
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(retry_for_s).with_delay(initial=first_pause_s, maximum=16.0, multiplier=2.0)


def keep_authorization(client: Any) -> None:
    """Keeps `requests`, by which a Google Cloud client asks, from replacing the authorization header by what .netrc holds."""
    client._http.auth = _unchanged  # any `auth` does


def _unchanged(request: Any) -> Any:
    return request


def _open_local(recording: Recording) -> BinaryIO:
    path = recording.uri
    try:
        # Opening a device can have effects, and a pipe blocks: look first, and look again at what was opened.
        check_regular(os.stat(path))  # noqa: PTH116 - a path is opened as it was listed, never normalised
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile("the file was listed, but is no longer there") from None
    except PermissionError:
        raise AccessDenied("this user may not read the file; change its permissions") from None
    except ValueError:
        raise MissingFile("no file can have this name: it holds a zero byte") from None
    except OSError as error:
        raise StorageError(f"opening the file failed ({error_name(error)}); try again") from None
    try:
        status = os.fstat(descriptor)
        check_regular(status)
        if recording.version and local_version(status) != recording.version:
            raise ChangedFile("the file was changed after it was listed; run again to embed what it holds now")
        return cast(BinaryIO, os.fdopen(descriptor, "rb"))
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(status: os.stat_result) -> None:
    """Raises NotARegularFile for a folder, pipe, socket or device."""
    if not stat.S_ISREG(status.st_mode):
        raise NotARegularFile(f"this is {_file_type(status.st_mode)}, not a regular file")


def _file_type(mode: int) -> str:
    for is_type, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if is_type(mode):
            return name
    return "something special"


def error_name(error: OSError) -> str:
    """The system's name of an error, such as EIO: its text holds paths, and differs from system to system."""
    import errno

    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def fetch_range(recording: Recording, first: int, last: int) -> bytes:
    """Bytes `first` to `last` (included) of an object's version. Raises FetchError."""
    return _download(_blob_of(recording), first, last)


def _open_object(recording: Recording) -> BinaryIO:
    blob = _blob_of(recording)
    if recording.size_bytes > ONE_GET_BYTES:
        return cast(BinaryIO, io.BufferedReader(_Pieces(blob, recording.size_bytes), _PIECE_BYTES))
    return io.BytesIO(_download(blob, None, None))


def _blob_of(recording: Recording) -> storage.Blob:
    from google.auth.exceptions import GoogleAuthError

    bucket, _, name = recording.uri.removeprefix(_GS).partition("/")
    if not bucket or not name:
        raise MissingFile(f"{recording.uri!r} names no object; expected gs://bucket/name")
    try:
        client = storage_client()
    except GoogleAuthError as error:
        raise fetch_error(error, _READING, _READ_RIGHT) from None
    generation = int(recording.version) if recording.version else None
    return client.bucket(bucket).blob(name, generation=generation)


class _Pieces(RangedFile):
    """A large object, read by ranges; its generation and size are known, so that it cannot change under a decoder.

    One read is one request, for less than the buffer holds unless pieces follow each other.
    """

    def __init__(self, blob: storage.Blob, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._blob = blob
        self._piece_bytes = 0
        self._read_to = 0
        self.fetched_bytes = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        goes_on = self._piece_bytes and self._position == self._read_to
        piece_bytes = min(self._piece_bytes * _PIECE_GROWTH, _PIECE_BYTES) if goes_on else _FIRST_PIECE_BYTES
        end = min(self._position + min(len(buffer), piece_bytes), self._size_bytes)
        if end <= self._position:
            return 0
        data = _download(self._blob, self._position, end - 1)
        buffer[: len(data)] = data
        self.fetched_bytes += len(data)
        self._position += len(data)
        self._piece_bytes, self._read_to = piece_bytes, self._position
        return len(data)


def _download(blob: storage.Blob, first: int | None, last: int | None) -> bytes:
    """Return bytes `first` to `last` (included; None: all) of the object as it is stored. Raises FetchError."""
    from google.api_core import exceptions

    try:
        # In one piece: else the library reads 8 kB at a time, which costs threads beside each other more than the rest.
        data: bytes = blob.download_as_bytes(
            start=first,
            end=last,
            raw_download=True,
            single_shot_download=True,
            timeout=ANSWER_WITHIN_S,
            retry=retry_policy(_RETRY_FOR_S),
        )
    except exceptions.NotFound:
        raise _not_found(blob) from None
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        raise (why_not_as_it_is(blob) if is_bad_request(error) else fetch_error(error, _READING, _READ_RIGHT)) from None
    return data


def _not_found(blob: storage.Blob) -> FetchError:
    """Tell an object that is gone from one of which another version has taken its place."""
    if blob.generation is not None:
        try:
            if blob.bucket.blob(blob.name).exists():
                return ChangedFile("the object was replaced after it was listed; run again to embed what it holds now")
        except Exception:  # noqa: BLE001 - the object is missing whatever this says
            return MissingFile("the object was listed, but is no longer there")
    return MissingFile("the object was listed, but is no longer there")
