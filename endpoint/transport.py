"""The seam between what is sent and how: a transport takes a request's bytes and calls back with the reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import grpc

_TOO_LARGE = "response size too large"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request."""

    code: grpc.StatusCode
    """OK, or how the request failed, be it at the service or on the way."""
    body: bytes = field(default=b"", repr=False)
    """The answer's message if the code is OK."""
    retry_after_s: float | None = None
    """How long the service asks to wait before the request is sent again."""
    response_too_large: bool = False
    """Whether the request failed because its answer would be too large, so that fewer instances may be answered."""


class Transport(Protocol):
    """One way to an endpoint. Its methods return at once."""

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        """Sends a request; `done` is called once, from any thread, within about `timeout_s`. Requests are not kept."""

    def renew_credentials(self) -> None:
        """Lets requests from now on carry new credentials, as those in use were refused."""

    def close(self) -> None:
        """Gives up requests without a reply and releases connections."""


def says_response_too_large(code: grpc.StatusCode, message: object) -> bool:
    """Whether a failure is Vertex AI's limit on the size of answers, by its text, which is not kept (design.md 2.3)."""
    return code is grpc.StatusCode.INVALID_ARGUMENT and isinstance(message, str) and _TOO_LARGE in message.lower()
