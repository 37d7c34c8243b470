"""The storage server as jobs use it: objects listed and read in ranges, others written in pieces, nothing held whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import grpc
import orjson
from yarl import URL

RANGE_BYTES = 4 * 2**20
"""Read at a time."""

PIECE_BYTES = 2**20
"""Written at a time; Cloud Storage wants a multiple of 256 KiB."""

MAX_LINE_BYTES = 16 * 2**20
"""A clip's line has some 300 kB; one that is longer by far is not gathered to find that out."""

_WILD = re.compile(r"\*\*|\*|\?")


class JobFailedError(Exception):
    """What ends a job; `str()` is the message of its error.

    Attributes:
        code: of its error.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoredObject(NamedTuple):
    """An object and its size in bytes."""

    bucket: str
    name: str
    size: int


class JobStorage:
    """One storage server, by Cloud Storage's JSON API."""

    def __init__(self, session: aiohttp.ClientSession, host: str) -> None:
        """`session` stays the caller's; `host` is `http://127.0.0.1:PORT`."""
        self._session = session
        self._host = host

    async def find(self, uri: str) -> list[StoredObject]:
        """The objects that a URI names, sorted: `*` stands for any characters but slashes, `**` for any, `?` for one.

        Raises:
            JobFailedError: there is none.
        """
        bucket, _, pattern = uri.removeprefix("gs://").partition("/")
        prefix = _WILD.split(pattern, maxsplit=1)[0]
        named = re.compile(_expression(pattern), re.DOTALL)
        found: list[StoredObject] = []
        token = ""
        while True:
            query = urlencode({"prefix": prefix, **({"pageToken": token} if token else {})})
            async with self._asked("GET", f"/storage/v1/b/{bucket}/o?{query}") as answer:
                page = orjson.loads(await answer.read()) if answer.status == 200 else {}
            items = ((item["name"], int(item["size"])) for item in page.get("items", []))
            found += [StoredObject(bucket, name, size) for name, size in items if named.fullmatch(name)]
            token = page.get("nextPageToken", "")
            if not token:
                break
        if not found:
            raise JobFailedError(grpc.StatusCode.NOT_FOUND, f"No files were found for {uri}.")
        return sorted(found)

    async def lines(self, stored: StoredObject) -> AsyncGenerator[bytes, None]:
        """The lines of an object, as they are, blank ones left out.

        Raises:
            JobFailedError: it cannot be read any more, or a line is too long.
        """
        rest = b""
        for start in range(0, stored.size, RANGE_BYTES):
            parts = (rest + await self._range(stored, start)).split(b"\n")
            rest = parts.pop()
            for line in parts:
                if line.strip():
                    yield line
            if len(rest) > MAX_LINE_BYTES:
                message = f"gs://{stored.bucket}/{stored.name} has a line of more than {MAX_LINE_BYTES} bytes."
                raise JobFailedError(grpc.StatusCode.INVALID_ARGUMENT, message)
        if rest.strip():
            yield rest

    async def _range(self, stored: StoredObject, start: int) -> bytes:
        end = min(start + RANGE_BYTES, stored.size)
        headers = {"Range": f"bytes={start}-{end - 1}"}
        path = f"/storage/v1/b/{stored.bucket}/o/{quote(stored.name, safe='')}?alt=media"
        async with self._asked("GET", path, headers=headers) as answer:
            data = await answer.read() if answer.status == 206 else b""  # 200 would be the whole of it
        if len(data) != end - start:
            uri = f"gs://{stored.bucket}/{stored.name}"
            raise JobFailedError(grpc.StatusCode.NOT_FOUND, f"{uri} was not read: HTTP {answer.status}.")
        return data

    async def begin(self, bucket: str, name: str) -> Upload:
        """Begins to write an object, which is there once `Upload.finish` has returned; raises JobFailedError."""
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={quote(name, safe='')}"
        headers = {"X-Upload-Content-Type": "application/octet-stream"}
        async with self._asked("POST", path, headers=headers) as answer:
            location = answer.headers.get("Location", "")
        if answer.status != 200 or not location:
            raise not_written(bucket, name, answer.status)
        # Servers may name themselves otherwise than they are known here.
        return Upload(self, bucket, name, URL(location, encoded=True).raw_path_qs)

    async def put(self, path: str, data: bytes | bytearray, content_range: str) -> int:
        """Sends a piece; the status of the answer."""
        async with self._asked("PUT", path, headers={"Content-Range": content_range}, data=bytes(data)) as answer:
            return answer.status

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, data: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(f"{self._host}{path}", encoded=True)
        try:
            async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as answer:
                yield answer
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            raise JobFailedError(grpc.StatusCode.UNAVAILABLE, "The storage server did not answer.") from None


class Upload:
    """An object that is being written, a piece at a time."""

    def __init__(self, storage: JobStorage, bucket: str, name: str, path: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._name = name
        self._path = path
        self._waiting = bytearray()
        self._sent = 0

    async def write(self, data: bytes) -> None:
        """Appends; raises JobFailedError."""
        self._waiting += data
        while len(self._waiting) > PIECE_BYTES:
            await self._send(self._waiting[:PIECE_BYTES], "*")
            del self._waiting[:PIECE_BYTES]

    async def finish(self) -> None:
        """Makes what was written an object; raises JobFailedError."""
        await self._send(self._waiting, str(self._sent + len(self._waiting)))
        self._waiting.clear()

    async def _send(self, piece: bytearray, total: str) -> None:
        where = f"{self._sent}-{self._sent + len(piece) - 1}" if piece else "*"
        status = await self._storage.put(self._path, piece, f"bytes {where}/{total}")
        if status != (308 if total == "*" else 200):
            raise not_written(self._bucket, self._name, status)
        self._sent += len(piece)


def not_written(bucket: str, name: str, status: int) -> JobFailedError:
    """An object that the storage server does not take."""
    code = grpc.StatusCode.NOT_FOUND if status == 404 else grpc.StatusCode.UNAVAILABLE
    return JobFailedError(code, f"gs://{bucket}/{name} was not written: HTTP {status}.")


def _expression(pattern: str) -> str:
    """The regular expression of a name with wildcards."""
    meanings = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meanings.get(part, re.escape(part)) for part in re.split(f"({_WILD.pattern})", pattern))
