"""Requests over REST without a client: a transport to a server of a test, and what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from endpoint.rest_transport import RestTransport
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.outcomes import PATIENCE_S
from tests.endpoint.servers import RestRequest

SECRET = "ya29.TEST-planted-token"
REQUEST = b'{"instances":["0.734375"]}'
Answer = tuple[int, Mapping[str, str], bytes]


class FakeCredentials:
    """Credentials whose n-th token is SECRET-n, or that fail."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.renewals = 1

    def headers(self) -> dict[str, str]:
        if self.failure is not None:
            raise self.failure
        return {"authorization": f"Bearer {SECRET}-{self.renewals}"}

    def renew(self) -> None:
        self.renewals += 1


def settings_for(port: int, **changes: Any) -> EndpointSettings:
    fields = {"name": official.NAME, "host": f"127.0.0.1:{port}", "transport": "rest", **changes}
    return EndpointSettings(**fields)


@contextmanager
def transport_to(port: int, credentials: FakeCredentials | None = None, **changes: Any) -> Iterator[RestTransport]:
    transport = RestTransport(settings_for(port, **changes), credentials=credentials)
    try:
        yield transport
    finally:
        transport.close()


class Replies:
    """Takes replies, and waits for them."""

    def __init__(self) -> None:
        self.all: list[Reply] = []
        self._came = threading.Semaphore(0)

    def take(self, reply: Reply) -> None:
        self.all.append(reply)
        self._came.release()

    def wait(self, count: int) -> list[Reply]:
        for _ in range(count):
            assert self._came.acquire(timeout=PATIENCE_S)
        return self.all


def ask(transport: RestTransport, request: bytes = REQUEST, timeout_s: float = PATIENCE_S) -> Reply:
    replies = Replies()
    transport.send(request, timeout_s, replies.take)
    (reply,) = replies.wait(1)
    return reply


def always(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Callable[[RestRequest], Answer]:
    return lambda _: (status, headers or {}, body)


def google_error(code: int, status: str, message: str = "echo 0.734375", details: Any = None) -> bytes:
    return json.dumps(
        {"error": {"code": code, "message": message, "status": status, "details": details or []}}
    ).encode()
