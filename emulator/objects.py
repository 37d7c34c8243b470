"""Objects of the configured storage server, fetched with the token that came with each."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from yarl import URL

from emulator.tokens import Grant, TokenInfo

SIDE_BY_SIDE = 16
"""Objects fetched at a time, over all requests."""

MAX_OBJECT_BYTES = 4 * 2**20
"""A clip at 192 kHz with two channels of 32-bit floats fits; what is longer is a recording, not a clip."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)

_log = logging.getLogger(__name__)


class BadReferenceError(Exception):
    """An instance that cannot name an object; `str()` says why."""


class NotRetrievedError(Exception):
    """An object that was not read; `str()` says why, in words of this module, without the token."""


class NoStorageError(NotRetrievedError):
    """This service was not told of any storage server."""

    def __init__(self) -> None:
        super().__init__("no storage server is configured here: start the local endpoint with --storage_host")


@dataclass(frozen=True)
class ObjectReference:
    """An object and the token to read it with."""

    bucket: str
    name: str
    token: str = field(repr=False)


def object_reference(bucket: str, name: str, token: str) -> ObjectReference:
    """Checks what an instance says of an object.

    Raises:
        BadReferenceError: the bucket's name has a scheme, a slash, or what else no bucket's has; the object's is empty,
            longer than 1024 bytes, or starts with a slash; the token is empty or no token.
    """
    if not _BUCKET.fullmatch(bucket):
        raise BadReferenceError("the bucket's name is none: expected it without gs:// and slashes")
    if name in {"", ".", ".."} or name.startswith("/") or len(name.encode("utf-8", "surrogatepass")) > 1024:
        raise BadReferenceError("the object's name is none: expected at most 1024 bytes without a leading slash")
    if not _TOKEN.fullmatch(token):
        raise BadReferenceError("bearer_token is no token")
    return ObjectReference(bucket, name, token)


class ObjectReader:
    """Reads objects by GCS's JSON API; with `tokens`, asks about each token first."""

    def __init__(self, session: aiohttp.ClientSession, storage_host: str | None, tokens: TokenInfo | None) -> None:
        """`session` stays the caller's; `storage_host` is `http://127.0.0.1:PORT`, None if there is no storage."""
        self._session = session
        self._storage_host = storage_host
        self._tokens = tokens
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def read(self, references: Sequence[ObjectReference]) -> list[bytes | NotRetrievedError]:
        """Each object's bytes, in order, or why it was not read; several side by side.

        Each of the request's tokens is asked about once, whatever the number of objects it stands beside.
        """
        if self._storage_host is None:
            return [NoStorageError() for _ in references]
        tokens = dict.fromkeys(reference.token for reference in references)
        grants = dict(zip(tokens, await asyncio.gather(*map(self._grant, tokens)), strict=True))
        return await asyncio.gather(*(self._read(reference, grants[reference.token]) for reference in references))

    async def _grant(self, token: str) -> Grant | None:
        if self._tokens is None:
            return Grant(None)
        async with self._room:
            return await self._tokens.ask(token)

    async def _read(self, reference: ObjectReference, grant: Grant | None) -> bytes | NotRetrievedError:
        if grant is None:
            return NotRetrievedError("the token is unknown, revoked or expired")
        if not grant.covers(reference.bucket, reference.name):
            return NotRetrievedError("the token's access boundary leaves the object out")
        bucket, name = (quote(part, safe="") for part in (reference.bucket, reference.name))
        url = URL(f"{self._storage_host}/storage/v1/b/{bucket}/o/{name}?alt=media", encoded=True)
        headers = {"Authorization": f"Bearer {reference.token}"}
        try:
            async with self._room, self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    return NotRetrievedError(f"the storage server answered {answer.status}")
                data = bytearray()
                async for part in answer.content.iter_any():
                    data += part
                    if len(data) > MAX_OBJECT_BYTES:
                        return NotRetrievedError(f"the object is longer than {MAX_OBJECT_BYTES} bytes")
                return bytes(data)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            # Its text may hold the request: only its name is told.
            _log.warning("an object was not read: %s", type(error).__name__)
            return NotRetrievedError("the storage server did not answer")
