"""The client over REST, against real HTTP servers on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from endpoint import rest_transport
from endpoint.client import Client
from endpoint.codec import make_codec
from endpoint.errors import RunEnded
from endpoint.rate import LocalRate
from endpoint.rest_transport import RestTransport
from endpoint.results import Embedded
from endpoint.retry import Backoff
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.outcomes import PATIENCE_S, embed
from tests.endpoint.rest_calls import (
    REQUEST,
    Answer,
    FakeCredentials,
    Replies,
    always,
    ask,
    settings_for,
    transport_to,
)
from tests.endpoint.servers import RestRequest, first_samples_rest, raw_server, serve_rest


def client_to(port: int, *, backoff: Backoff | None = None, **changes: Any) -> Client:
    return Client(settings_for(port, **changes), rate=LocalRate(), backoff=backoff)


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
