"""What a failed HTTP request means, from real answers of an HTTP server on loopback."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import grpc
import pytest

from endpoint.transport import Reply
from tests.endpoint.rest_calls import always, ask, google_error, transport_to
from tests.endpoint.servers import serve_rest


@pytest.mark.parametrize(
    ("http_status", "code"),
    [
        (201, "UNKNOWN"),
        (204, "UNKNOWN"),
        (301, "UNIMPLEMENTED"),
        (302, "UNIMPLEMENTED"),
        (307, "UNIMPLEMENTED"),
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (405, "UNIMPLEMENTED"),
        (408, "DEADLINE_EXCEEDED"),
        (409, "ABORTED"),
        (412, "FAILED_PRECONDITION"),
        (413, "INVALID_ARGUMENT"),
        (418, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (502, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (522, "UNAVAILABLE"),
    ],
)
def test_http_statuses_are_understood_whatever_page_comes_with_them(http_status: int, code: str) -> None:
    body = b"" if http_status == 204 else b"<html>echo 0.734375</html>"
    elsewhere = {"Location": "http://127.0.0.1:1/"}
    with serve_rest(always(http_status, body, elsewhere)) as port, transport_to(port) as transport:
        assert ask(transport) == Reply(grpc.StatusCode[code])


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=lambda code: code.name)
def test_googles_status_goes_before_that_of_http(code: grpc.StatusCode) -> None:
    with serve_rest(always(418, google_error(418, code.name))) as port, transport_to(port) as transport:
        reply = ask(transport)
    assert reply == Reply(code)
    assert "0.734375" not in repr(reply)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "text"}',
        b'{"error": {"status": "OK"}}',
        b'{"error": {"status": "ELSE"}}',
        b'{"error": {"status": 5, "details": 7, "message": []}}',
        b'{"error": {"status": null, "details": [7, {"@type": 3}, {"@type": "x/google.rpc.RetryInfo"}]}}',
        b'[{"error": {"status": "NOT_FOUND"}}]',
        b"7",
        b"\xff\xfe",
    ],
)
def test_errors_of_another_make_leave_the_http_status(body: bytes) -> None:
    with serve_rest(always(503, body)) as port, transport_to(port) as transport:
        assert ask(transport) == Reply(grpc.StatusCode.UNAVAILABLE)


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}


@pytest.mark.parametrize(
    ("retry_after", "details", "hint_s"),
    [
        (None, [], None),
        ("7", [], 7.0),
        ("0", [], None),
        ("-1", [], None),
        ("nan", [], None),
        ("soon", [], None),
        ("86400", [], 600.0),
        (None, [RETRY_INFO], 3.5),
        ("2", [{"@type": "type.googleapis.com/google.rpc.ErrorInfo"}, RETRY_INFO], 3.5),
        ("7", [RETRY_INFO], 7.0),
        (None, [{**RETRY_INFO, "retryDelay": "x"}], None),
        (None, [{**RETRY_INFO, "retryDelay": "-4s"}], None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [RETRY_INFO], 3.5),
    ],
)
def test_hints_are_read(retry_after: str | None, details: list[Any], hint_s: float | None) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    error = google_error(429, "RESOURCE_EXHAUSTED", details=details)
    with serve_rest(always(429, error, headers)) as port, transport_to(port) as transport:
        assert ask(transport) == Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=hint_s)


def test_a_hint_may_be_a_date() -> None:
    headers = {"Retry-After": email.utils.formatdate(time.time() + 300, usegmt=True)}
    with serve_rest(always(503, b"", headers)) as port, transport_to(port) as transport:
        hint_s = ask(transport).retry_after_s
    assert hint_s is not None
    assert 200 < hint_s <= 301


def test_a_response_that_would_be_too_large_is_told_from_other_rejections() -> None:
    for message, expected in (("x: Response size too large. Received at least 3 MB", True), ("bad instance", False)):
        error = google_error(400, "INVALID_ARGUMENT", message)
        with serve_rest(always(400, error)) as port, transport_to(port) as transport:
            assert ask(transport) == Reply(grpc.StatusCode.INVALID_ARGUMENT, response_too_large=expected)
