"""Objects on Cloud Storage: written, read, listed, moved and deleted, again and again until that is known to be done or is given up.

All functions raise what the client raises once they have given up; `audio.storage_errors.reason` says it in our own words. Whatever
is tried again may have been done already, its answer lost. So a write is on the condition of the version that it replaces, of none for
a new name, and a move on there being something to move: doing it twice does what doing it once does.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from audio.fetch import ANSWER_WITHIN_S, retry_policy, storage_client

if TYPE_CHECKING:
    from google.cloud import storage
    from google.cloud.storage.fileio import BlobWriter

GS: Final = "gs://"
RETRY_FOR_S: Final = 60.0
"""How long an operation is tried again before it has failed."""
PIECE_BYTES: Final = 8 << 20
"""Larger files are uploaded in pieces of this size, as they are written."""
_KIND: Final = "application/octet-stream"
_MOVED_AS: Final = "hear-shard"
"""Metadata of an object that is to be moved: by it the one that has been moved already is known."""
_THREADS: Final = 16
_REPLACED_BY_OTHERS: Final = 5


def split(uri: str) -> tuple[str, str]:
    """Bucket and name of `gs://bucket/name`."""
    bucket, _, name = uri.removeprefix(GS).partition("/")
    return bucket, name


def blob_at(uri: str) -> storage.Blob:
    """The object `gs://bucket/name`, by this process's client."""
    bucket, name = split(uri)
    return storage_client().bucket(bucket).blob(name)


def how(retry_for_s: float = RETRY_FOR_S, first_pause_s: float = 1.0) -> dict[str, Any]:
    """How long is waited for an answer, and how often it is asked for again: arguments of all of the client's calls."""
    return {"timeout": ANSWER_WITHIN_S, "retry": retry_policy(retry_for_s, first_pause_s)}


def write_new(
    blob: storage.Blob,
    data: bytes,
    kind: str = _KIND,
    retry_for_s: float = RETRY_FOR_S,
    first_pause_s: float = 1.0,
) -> None:
    """Writes an object under a name that is nobody else's, whole or not at all, in one request."""
    from google.api_core import exceptions

    try:
        blob.upload_from_string(data, kind, if_generation_match=0, checksum="crc32c", **how(retry_for_s, first_pause_s))
    except exceptions.PreconditionFailed:
        return  # it is there: an earlier attempt succeeded, and its answer was lost


def write_over(uri: str, data: bytes) -> None:
    """Writes an object whole or not at all, in place of what is there."""
    from google.api_core import exceptions

    for is_last in (*[False] * (_REPLACED_BY_OTHERS - 1), True):
        blob = blob_at(uri)
        there = blob.bucket.get_blob(blob.name, **how())
        if there is not None and there.crc32c == crc32c(data) and there.size == len(data):
            return
        generation = 0 if there is None else int(there.generation)
        try:
            blob.upload_from_string(data, _KIND, if_generation_match=generation, checksum="crc32c", **how())
        except exceptions.PreconditionFailed:
            if is_last:  # either our own earlier attempt has succeeded, or somebody else writes there
                raise
        else:
            return


def read(blob: storage.Blob) -> bytes:
    """All bytes of the object, as they are stored; checked against its checksum."""
    data: bytes = blob.download_as_bytes(raw_download=True, single_shot_download=True, **how())
    return data


def names(bucket: str, prefix: str) -> Iterator[str]:
    """The names of the objects that begin with `prefix`."""
    for blob in storage_client().list_blobs(bucket, prefix=prefix, fields="items(name),nextPageToken", **how()):
        yield blob.name


class Version(NamedTuple):
    """One version of an object."""

    uri: str
    generation: str
    size_bytes: int


def versions(uri: str) -> Iterator[Version]:
    """The objects whose URIs begin with `gs://bucket/prefix`, as they are now."""
    bucket, prefix = split(uri)
    fields = "items(name,generation,size),nextPageToken"
    for blob in storage_client().list_blobs(bucket, prefix=prefix, fields=fields, **how()):
        yield Version(f"{GS}{bucket}/{blob.name}", str(blob.generation), int(blob.size))


def entries(bucket: str, prefix: str) -> list[str]:
    """The names that begin with `prefix` and have no further slash; and of those that have one what stands before it, and it."""
    blobs = storage_client().list_blobs(
        bucket, prefix=prefix, delimiter="/", fields="items(name),prefixes,nextPageToken", **how()
    )
    files = [blob.name for blob in blobs]
    return sorted({*files, *blobs.prefixes})  # these are complete once the last page was read


def folders(bucket: str, prefix: str) -> list[str]:
    """Those of the entries that end with a slash."""
    return [name for name in entries(bucket, prefix) if name.endswith("/")]


def delete(blob: storage.Blob, retry_for_s: float = RETRY_FOR_S, first_pause_s: float = 1.0) -> None:
    """Deletes an object; one that is not there is deleted."""
    from google.api_core import exceptions

    try:
        blob.delete(**how(retry_for_s, first_pause_s))
    except exceptions.NotFound:
        return


def delete_all(uris: Iterable[str]) -> None:
    """Deletes objects, several at a time."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="objects") as pool:
        for _ in pool.map(lambda uri: delete(blob_at(uri)), uris):
            pass


def move(source_uri: str, target_uri: str) -> None:
    """Gives an object that an ObjectWriter has written another name, in place of what has that name.

    Raises NotFound where there is no such object and it has not been moved there before.
    """
    from google.api_core import exceptions

    source, target = blob_at(source_uri), blob_at(target_uri)
    target.content_type, target.metadata = _KIND, {_MOVED_AS: source.name.rpartition("/")[2]}
    try:
        # Copied once more after an answer was lost, it is the same again; once it has been deleted, no late attempt copies it.
        token, _, _ = target.rewrite(source, **how())
        while token is not None:
            token, _, _ = target.rewrite(source, token=token, **how())
    except exceptions.NotFound:
        there = target.bucket.get_blob(target.name, **how())
        if there is None or (there.metadata or {}).get(_MOVED_AS) != target.metadata[_MOVED_AS]:
            raise
    delete(source)


def prove_rights(folder_uri: str) -> None:
    """Writes, lists, reads, moves and deletes an object in a folder, `gs://bucket/folder/`: what a run will do there."""
    made, moved = (f"{folder_uri}.{secrets.token_hex(16)}.tmp" for _ in range(2))
    bucket, name = split(made)
    try:
        write_new(blob_at(made), b"")
        list(names(bucket, name))
        move(made, moved)
        read(blob_at(moved))
    finally:
        delete_all([made, moved])


class ObjectWriter:
    """A file that becomes an object, whole, when it is closed; one that is never closed becomes none.

    What is small goes out in one request, what is larger in pieces while it is written: two pieces at most are held. The name
    must be nobody else's; the checksum of what has arrived is compared with that of what was written.
    """

    def __init__(self, uri: str, piece_bytes: int = PIECE_BYTES) -> None:
        self._blob = blob_at(uri)
        self._blob.metadata = {_MOVED_AS: self._blob.name.rpartition("/")[2]}
        self._piece_bytes = piece_bytes
        self._held = bytearray()
        self._upload: BlobWriter | None = None
        self._size_bytes = 0
        self._crc32c = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Appends bytes."""
        self._held += data
        self._size_bytes += len(data)
        if len(self._held) > self._piece_bytes:
            if self._upload is None:
                self._upload = _begin_upload(self._blob, self._piece_bytes)
            self._send(self._upload)
        return len(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._size_bytes

    def flush(self) -> None:
        """Does nothing: an object is there as a whole or not at all."""

    def close(self) -> None:
        """Sends what is held, and waits until the object is there."""
        if self.closed:
            return
        self.closed = True
        if self._upload is None:
            write_new(self._blob, bytes(self._held))
            return
        try:
            self._send(self._upload)
            self._upload.close()
        except Exception:
            # An upload that is complete may be forgotten by the time that its last piece is sent again.
            if not self._is_there():
                raise

    def readable(self) -> bool:
        """It is not."""
        return False

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is not."""
        return False

    def _send(self, upload: BlobWriter) -> None:
        import google_crc32c

        piece = bytes(self._held)
        self._held.clear()
        self._crc32c = google_crc32c.extend(self._crc32c, piece)
        upload.write(piece)

    def _is_there(self) -> bool:
        there = self._blob.bucket.get_blob(self._blob.name, **how())
        return there is not None and (there.size, there.crc32c) == (self._size_bytes, _as_stored(self._crc32c))


def _begin_upload(blob: storage.Blob, piece_bytes: int) -> BlobWriter:
    from google.cloud.storage.fileio import BlobWriter

    class Upload(BlobWriter):  # type: ignore[misc]
        def __del__(self) -> None:
            """Does not complete an upload that was given up: files are closed when they are collected."""

    return Upload(blob, piece_bytes, content_type=_KIND, if_generation_match=0, checksum="crc32c", **how())


def crc32c(data: bytes) -> str:
    """The checksum of bytes as Cloud Storage writes it."""
    import google_crc32c

    return _as_stored(google_crc32c.value(data))


def _as_stored(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()
