"""What the service refuses: a status of gRPC's and a message in the service's manner that never holds a sample."""

from __future__ import annotations

import grpc


class RefusalError(Exception):
    """A request that is answered with an error; `str()` is the message the caller reads."""

    status: grpc.StatusCode = grpc.StatusCode.UNKNOWN


class InvalidArgumentError(RefusalError):
    """The request breaks a rule of the documentation: the same request will never be accepted."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(RefusalError):
    """There is no endpoint of that name here."""

    status = grpc.StatusCode.NOT_FOUND
