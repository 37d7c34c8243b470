"""What the service refuses: a status of gRPC's and a message in the service's manner.

No message holds a sample or a token, but for those of the fault `echo`, which exists to see what callers do with them.
"""

from __future__ import annotations

import grpc


class RefusalError(Exception):
    """A request that is answered with an error; `str()` is the message the caller reads.

    Attributes:
        status: gRPC's status, which also sets the one over HTTP.
        retry_s: what `google.rpc.RetryInfo` tells the caller to wait, or None.
    """

    def __init__(self, status: grpc.StatusCode, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s


class InvalidArgumentError(RefusalError):
    """The request breaks a rule of the documentation: the same request will never be accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, message)


class NotFoundError(RefusalError):
    """There is no endpoint of that name here."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.NOT_FOUND, message)


class ConnectionLostError(RefusalError):
    """Not refused but lost on the way: REST closes the socket, gRPC reports what its client would make of that."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer")


class UnansweredError(RefusalError):
    """The answer does not come until the service gives up."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def at_element(position: int, reason: str) -> InvalidArgumentError:
    """A research endpoint's refusal of a request for one of its instances."""
    return InvalidArgumentError(
        f"Failed to process element: {position} of 'instances' list. Error: INVALID_ARGUMENT: {reason}"
    )
