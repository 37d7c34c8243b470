"""REST to hosts other than loopback: 0.0.0.0 reaches this machine, and yet it is no loopback address."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from endpoint.errors import RunEnded, TokenUnavailable
from endpoint.rest_transport import RestTransport
from endpoint.transport import Reply
from tests.endpoint.certificates import self_signed
from tests.endpoint.outcomes import PATIENCE_S
from tests.endpoint.rest_calls import (
    REQUEST,
    SECRET,
    Answer,
    FakeCredentials,
    Replies,
    always,
    ask,
    google_error,
    settings_for,
    transport_to,
)
from tests.endpoint.servers import RestRequest, raw_server, serve_rest


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 0.0.0.0 and hear.example.com, and a server's context with it."""
    made = self_signed(x509.IPAddress(ipaddress.ip_address("0.0.0.0")), x509.DNSName("hear.example.com"))
    folder = tmp_path_factory.mktemp("tls")
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public)
    private.write_bytes(made.private)
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
