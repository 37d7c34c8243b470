"""What a failed HTTP request means, in the terms of gRPC, so that there is one set of rules for both."""

from __future__ import annotations

import grpc
import orjson

from endpoint.retry import http_retry_hint_s
from endpoint.transport import Reply, says_response_too_large

_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""As `google.rpc.Code` documents them, and as proxies use them."""

_BY_HTTP_CLASS = {
    2: grpc.StatusCode.UNKNOWN,  # an answer other than 200 is none
    3: grpc.StatusCode.UNIMPLEMENTED,  # Vertex AI redirects nobody: this is another service, or a network's log-in page
    4: grpc.StatusCode.INVALID_ARGUMENT,
    5: grpc.StatusCode.UNAVAILABLE,  # those that proxies and load balancers have invented
}


def failed(http_status: int, retry_after: str | None, body: bytes) -> Reply:
    """The reply for an answer whose HTTP status is not 200.

    Args:
        http_status: it.
        retry_after: the header of that name.
        body: Google's error as JSON, whose status is more exact than HTTP's; or anything else, such as a proxy's page.
    """
    error = _error(body)
    code = _status_code(error.get("status"))
    if code is None:
        code = status_of_http(http_status)
    return Reply(
        code,
        retry_after_s=http_retry_hint_s(retry_after, error.get("details")),
        response_too_large=says_response_too_large(code, error.get("message")),
    )


def status_of_http(http_status: int) -> grpc.StatusCode:
    """What an HTTP status other than 200 says by itself."""
    return _BY_HTTP_STATUS.get(http_status) or _BY_HTTP_CLASS.get(http_status // 100, grpc.StatusCode.UNKNOWN)


def _error(body: bytes) -> dict[str, object]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _status_code(name: object) -> grpc.StatusCode | None:
    code = grpc.StatusCode.__members__.get(name) if isinstance(name, str) else None
    return None if code is grpc.StatusCode.OK else code
