"""The client over REST, against real HTTP servers on loopback, with TLS and without."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import ipaddress
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from endpoint import rest_transport
from endpoint.client import Client
from endpoint.codec import make_codec
from endpoint.errors import RunEnded, TokenUnavailable
from endpoint.rate import LocalRate
from endpoint.rest_transport import RestTransport
from endpoint.results import Embedded, Outcome
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.servers import RestRequest, first_samples_rest, serve_rest

PATIENCE_S = 20.0
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


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hands each connection to `serve` in a thread; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def handle(connection: socket.socket) -> None:
            # Clients of these tests hang up as they please.
            with connection, contextlib.suppress(OSError):
                serve(connection)

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)


def client_to(port: int, *, backoff: Backoff | None = None, **changes: Any) -> Client:
    return Client(settings_for(port, **changes), rate=LocalRate(), backoff=backoff)


def embed(client: Client, *batches: list[np.ndarray]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    finished = threading.Semaphore(0)

    def submit(position: int, batch: list[np.ndarray]) -> None:
        def take(outcome: Outcome) -> None:
            outcomes[position] = outcome
            finished.release()

        client.submit(batch, take)

    for position, batch in enumerate(batches):
        submit(position, batch)
    for _ in batches:
        assert finished.acquire(timeout=PATIENCE_S)
    return [outcomes[position] for position in range(len(batches))]


def test_clips_arrive_and_embeddings_come_back_in_order() -> None:
    rng = np.random.default_rng(1)
    batches = [[rng.normal(0, 0.3, 32000).astype(np.float32) for _ in range(size)] for size in (4, 4, 1, 3, 4, 2)]
    with serve_rest(first_samples_rest) as port, client_to(port) as client:
        outcomes = embed(client, *batches)
    for batch, outcome in zip(batches, outcomes, strict=True):
        for samples, result in zip(batch, outcome.results, strict=True):
            assert isinstance(result, Embedded)
            assert np.abs(result.embedding - samples[:512]).max() <= 1e-7
            assert result.deployed_model_id == "dm-1"


def test_a_request_is_one_post_to_the_endpoint_without_credentials_on_loopback() -> None:
    seen: list[RestRequest] = []

    def handler(request: RestRequest) -> Answer:
        seen.append(request)
        return 200, {}, b"answer"

    name = "projects/p%:q/locations/l/endpoints/a+b?c#d"
    credentials = FakeCredentials()
    with serve_rest(handler) as port, transport_to(port, credentials, name=name) as transport:
        assert ask(transport) == Reply(grpc.StatusCode.OK, b"answer")
        transport.renew_credentials()
    (request,) = seen
    assert request.path == "/v1/projects/p%25%3Aq/locations/l/endpoints/a%2Bb%3Fc%23d:predict"
    assert request.body == REQUEST
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Host"] == f"127.0.0.1:{port}"
    assert "Authorization" not in request.headers
    assert credentials.renewals == 1


def test_connections_are_used_again_and_as_many_as_requests_are_out() -> None:
    together = threading.Barrier(6)
    clients = []

    def handler(request: RestRequest) -> Answer:
        clients.append(request.client)
        together.wait(PATIENCE_S)
        return 200, {}, b""

    with serve_rest(handler) as port, transport_to(port, max_in_flight=6) as transport:
        for _ in range(3):
            replies = Replies()
            for _ in range(6):
                transport.send(REQUEST, PATIENCE_S, replies.take)
            assert {reply.code for reply in replies.wait(6)} == {grpc.StatusCode.OK}
    assert len(clients) == 18
    assert len(set(clients)) == 6


def test_no_more_requests_are_out_than_allowed() -> None:
    lock, release = threading.Lock(), threading.Event()
    out = most = 0

    def handler(request: RestRequest) -> Answer:
        nonlocal out, most
        with lock:
            out += 1
            most = max(most, out)
            if out == 2:
                release.set()
        assert release.wait(PATIENCE_S)
        with lock:
            out -= 1
        return 200, {}, b""

    with serve_rest(handler) as port, transport_to(port, max_in_flight=2) as transport:
        replies = Replies()
        for _ in range(10):
            transport.send(REQUEST, PATIENCE_S, replies.take)
        replies.wait(10)
    assert most == 2


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


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_transport, "MAX_ANSWER_BYTES", 1_000_000)
    hung_up = threading.Event()

    def pour(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                connection.sendall(bytes(65536))
        except OSError:
            hung_up.set()

    with raw_server(pour) as port, transport_to(port) as transport:
        assert ask(transport) == Reply(grpc.StatusCode.INVALID_ARGUMENT, response_too_large=True)
        assert hung_up.wait(PATIENCE_S)


def test_a_server_that_is_not_there_or_hangs_up_or_speaks_another_language_is_unavailable() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(100)

    def half_an_answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    def other_language(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"220 mail.example.com ready\r\n")

    for server in (hang_up, half_an_answer, other_language):
        with raw_server(server) as port, transport_to(port) as transport:
            assert ask(transport).code is grpc.StatusCode.UNAVAILABLE
    with transport_to(port) as transport:
        assert ask(transport).code is grpc.StatusCode.UNAVAILABLE


def test_a_request_times_out_however_the_server_spends_the_time() -> None:
    stop = threading.Event()

    def silence(connection: socket.socket) -> None:
        stop.wait(PATIENCE_S)

    def drip(connection: socket.socket, head: bytes) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while not stop.wait(0.02):
            connection.sendall(b"x")

    servers: list[Callable[[socket.socket], None]] = [
        silence,
        lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nServer: "),
        lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
    ]
    for server in servers:
        with raw_server(server) as port, transport_to(port) as transport:
            assert ask(transport, timeout_s=0.2).code is grpc.StatusCode.DEADLINE_EXCEEDED
            (thread,) = transport._threads
            # Its thread is free again, not held by the server.
            replies = Replies()
            transport.send(REQUEST, 0.2, replies.take)
            assert replies.wait(1)[0].code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert transport._threads == [thread]
    stop.set()


def test_closing_gives_up_what_is_out_at_once() -> None:
    arrived, stop = threading.Semaphore(0), threading.Event()

    def handler(request: RestRequest) -> Answer:
        arrived.release()
        stop.wait(PATIENCE_S)
        return 200, {}, b""

    with serve_rest(handler) as port:
        transport = RestTransport(settings_for(port, max_in_flight=2))
        replies = Replies()
        for _ in range(3):
            transport.send(REQUEST, 600.0, replies.take)
        assert arrived.acquire(timeout=PATIENCE_S)
        assert arrived.acquire(timeout=PATIENCE_S)
        transport.close()
        assert [reply.code for reply in replies.all] == [grpc.StatusCode.CANCELLED] * 3
        assert not any(thread.is_alive() for thread in (transport._watch, *transport._threads))
        transport.send(REQUEST, 600.0, replies.take)
        assert replies.all[3].code is grpc.StatusCode.CANCELLED
        transport.close()
        stop.set()


def test_neither_proxies_nor_netrc_are_used_on_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        monkeypatch.setenv(variable.upper(), "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    seen: list[RestRequest] = []

    def handler(request: RestRequest) -> Answer:
        seen.append(request)
        return 200, {}, b""

    with serve_rest(handler) as port, transport_to(port) as transport:
        assert ask(transport).code is grpc.StatusCode.OK
    assert "Authorization" not in seen[0].headers


def test_another_service_ends_the_run_with_one_request() -> None:
    for status in (302, 404, 405):
        with (
            serve_rest(always(status, b"<html>", {"Location": "/login"})) as port,
            client_to(port) as client,
        ):
            (outcome,) = embed(client, [np.zeros(32000, np.float32)])
            assert client.stats().requests == 1
        assert isinstance(outcome.error, RunEnded)


# Hosts other than loopback: 0.0.0.0 reaches this machine, and yet it is no loopback address.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 0.0.0.0 and hear.example.com, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hear.example.com")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.IPAddress(ipaddress.ip_address("0.0.0.0")), x509.DNSName("hear.example.com")]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context


@pytest.fixture
def trusted(tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's context; its certificate is trusted by way of the environment."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    monkeypatch.setenv("no_proxy", "0.0.0.0")
    return tls[1]


def echo_authorization(seen: list[RestRequest]) -> Callable[[RestRequest], Answer]:
    def handler(request: RestRequest) -> Answer:
        seen.append(request)
        return 401, {"Set-Cookie": "a=b"}, google_error(401, "UNAUTHENTICATED", str(request.headers["Authorization"]))

    return handler


def test_requests_carry_the_token_over_tls_and_nothing_else_carries_it(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "netrc").write_text("default login user password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen: list[RestRequest] = []
    with (
        serve_rest(echo_authorization(seen), trusted) as port,
        transport_to(port, FakeCredentials(), host=f"0.0.0.0:{port}") as transport,
    ):
        assert ask(transport) == Reply(grpc.StatusCode.UNAUTHENTICATED)
        transport.renew_credentials()
        assert ask(transport) == Reply(grpc.StatusCode.UNAUTHENTICATED)
    assert [request.headers["Authorization"] for request in seen] == [f"Bearer {SECRET}-1", f"Bearer {SECRET}-2"]
    assert seen[0].client == seen[1].client
    assert all("Cookie" not in request.headers for request in seen)
    assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
    assert SECRET not in caplog.text
    assert "0.734375" not in caplog.text


def test_redirects_take_the_token_nowhere(trusted: ssl.SSLContext) -> None:
    elsewhere: list[RestRequest] = []
    with serve_rest(echo_authorization(elsewhere)) as other_port:
        for status in (301, 302, 303, 307, 308):
            redirect = always(status, b"", {"Location": f"http://127.0.0.1:{other_port}/"})
            with (
                serve_rest(redirect, trusted) as port,
                transport_to(port, FakeCredentials(), host=f"0.0.0.0:{port}") as transport,
            ):
                assert ask(transport) == Reply(grpc.StatusCode.UNIMPLEMENTED)
    assert elsewhere == []


def test_a_certificate_that_is_not_trusted_gets_no_request(
    tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "0.0.0.0")
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    seen: list[RestRequest] = []
    with (
        serve_rest(echo_authorization(seen), tls[1]) as port,
        transport_to(port, FakeCredentials(), host=f"0.0.0.0:{port}") as transport,
    ):
        assert ask(transport) == Reply(grpc.StatusCode.UNAVAILABLE)
    assert seen == []


def test_a_certificate_for_another_name_gets_no_request(trusted: ssl.SSLContext) -> None:
    seen: list[RestRequest] = []
    # This name for 0.0.0.0 is not in the certificate.
    with (
        serve_rest(echo_authorization(seen), trusted) as port,
        transport_to(port, FakeCredentials(), host=f"0:{port}") as transport,
    ):
        assert ask(transport) == Reply(grpc.StatusCode.UNAVAILABLE)
    assert seen == []


def test_a_host_that_speaks_plain_text_hears_a_tls_greeting_and_nothing_else(trusted: ssl.SSLContext) -> None:
    heard: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))

    with (
        raw_server(listen) as port,
        transport_to(port, FakeCredentials(), host=f"0.0.0.0:{port}") as transport,
    ):
        assert ask(transport) == Reply(grpc.StatusCode.UNAVAILABLE)
    assert heard[0][:2] == b"\x16\x03"  # a TLS handshake record
    assert SECRET.encode() not in b"".join(heard)


def test_closing_cuts_tls_connections_too(trusted: ssl.SSLContext) -> None:
    arrived, stop = threading.Event(), threading.Event()

    def handler(request: RestRequest) -> Answer:
        arrived.set()
        stop.wait(PATIENCE_S)
        return 200, {}, b""

    with serve_rest(handler, trusted) as port:
        transport = RestTransport(settings_for(port, host=f"0.0.0.0:{port}"), credentials=FakeCredentials())
        replies = Replies()
        transport.send(REQUEST, 600.0, replies.take)
        assert arrived.wait(PATIENCE_S)
        transport.close()
        assert [reply.code for reply in replies.all] == [grpc.StatusCode.CANCELLED]
        assert not any(thread.is_alive() for thread in (transport._watch, *transport._threads))
        stop.set()


def test_other_hosts_are_reached_by_the_environments_proxy(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    seen: list[RestRequest] = []

    def proxy(connection: socket.socket) -> None:
        """Tunnels to the server, whatever host is asked for."""
        asked.append(connection.recv(65536))
        with socket.create_connection(("127.0.0.1", port)) as server:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

            def pump(source: socket.socket, sink: socket.socket) -> None:
                with contextlib.suppress(OSError):  # the other side may be gone first
                    while data := source.recv(65536):
                        sink.sendall(data)
                    sink.shutdown(socket.SHUT_RDWR)

            back = threading.Thread(target=pump, args=(server, connection), daemon=True)
            back.start()
            pump(connection, server)
            back.join(PATIENCE_S)

    with serve_rest(echo_authorization(seen), trusted) as port, raw_server(proxy) as proxy_port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy_port}")
        with transport_to(port, FakeCredentials(), host="hear.example.com") as transport:
            assert ask(transport) == Reply(grpc.StatusCode.UNAUTHENTICATED)
    assert asked[0].startswith(b"CONNECT hear.example.com:443 ")
    assert SECRET.encode() not in asked[0]
    assert seen[0].headers["Authorization"] == f"Bearer {SECRET}-1"
    assert seen[0].headers["Host"] == "hear.example.com"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TokenUnavailable(SECRET), grpc.StatusCode.UNAVAILABLE),
        (RunEnded(SECRET), grpc.StatusCode.UNAUTHENTICATED),
        (ValueError(SECRET), grpc.StatusCode.UNAVAILABLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_without_a_token_nothing_is_sent(
    trusted: ssl.SSLContext, failure: Exception, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[RestRequest] = []
    with (
        serve_rest(echo_authorization(seen), trusted) as port,
        transport_to(port, FakeCredentials(failure), host=f"0.0.0.0:{port}") as transport,
    ):
        assert ask(transport) == Reply(code)
    assert seen == []
    assert SECRET not in caplog.text


def test_what_was_sent_is_not_kept() -> None:
    with serve_rest(always(200)) as port, transport_to(port) as transport:
        request = bytes(100_000)
        references = sys.getrefcount(request)
        assert ask(transport, request).code is grpc.StatusCode.OK
        # The reply comes a moment before the thread lets go.
        until_s = time.monotonic() + PATIENCE_S
        while sys.getrefcount(request) > references and time.monotonic() < until_s:
            time.sleep(0.01)
        assert sys.getrefcount(request) == references


def test_neither_beam_nor_the_official_client_is_imported() -> None:
    code = (
        "import sys, endpoint.client, endpoint.rest_transport\n"
        "heavy = [name for name in sys.modules if name.startswith(('apache_beam', 'google.cloud.aiplatform'))]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_requests_of_the_codec_are_what_the_service_documents() -> None:
    seen: list[RestRequest] = []

    def handler(request: RestRequest) -> Answer:
        seen.append(request)
        return first_samples_rest(request)

    codec = make_codec("rest", "research", "audio", official.NAME)
    clips = [np.linspace(-1, 1, 32000, dtype=np.float32)] * 4
    with serve_rest(handler) as port, transport_to(port) as transport:
        reply = ask(transport, codec.prepare(clips).request(range(4), lambda _: ""))
    assert codec.read(reply.body, 4).embeddings.shape == (4, 512)
    assert len(json.loads(seen[0].body)["instances"]) == 4
