"""The client against a real gRPC server on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.api_core.gapic_v1 import routing_header
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from endpoint.client import Client
from endpoint.codec import make_codec
from endpoint.errors import RunEnded
from endpoint.grpc_transport import GrpcTransport
from endpoint.rate import LocalRate
from endpoint.results import Embedded
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.outcomes import PATIENCE_S, embed
from tests.endpoint.servers import first_samples, serve

CLIP = np.linspace(-1, 1, 32000, dtype=np.float32)


def settings_for(port: int, **changes: Any) -> EndpointSettings:
    return EndpointSettings(**{"name": official.NAME, "host": f"127.0.0.1:{port}", **changes})


def ask(transport: GrpcTransport, timeout_s: float = PATIENCE_S) -> Reply:
    replies: list[Reply] = []
    replied = threading.Event()

    def take(reply: Reply) -> None:
        replies.append(reply)
        replied.set()

    request = make_codec("grpc", "research", "audio", official.NAME).prepare([CLIP]).request([0], lambda _: "")
    transport.send(request, timeout_s, take)
    assert replied.wait(PATIENCE_S)
    (reply,) = replies
    return reply


def client_to(port: int, *, backoff: Backoff | None = None, **changes: Any) -> Client:
    return Client(settings_for(port, **changes), rate=LocalRate(), backoff=backoff)


def test_clips_arrive_exactly_and_embeddings_come_back_in_order() -> None:
    rng = np.random.default_rng(1)
    batches = [[rng.normal(0, 0.3, 32000).astype(np.float32) for _ in range(size)] for size in (4, 4, 1, 3, 4, 4, 2, 4)]
    with serve(first_samples) as port, client_to(port) as client:
        outcomes = embed(client, *batches)
        stats = client.stats()
    for batch, outcome in zip(batches, outcomes, strict=True):
        for samples, result in zip(batch, outcome.results, strict=True):
            assert isinstance(result, Embedded)
            assert (result.embedding == samples[:512]).all()
            assert result.deployed_model_id == "dm-1"
    assert (stats.requests, stats.retries) == (8, 0)


def test_the_routing_header_is_that_of_the_official_client_and_no_credentials_are_sent() -> None:
    seen: list[dict[str, str]] = []

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        seen.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return first_samples(request, context)

    name = "projects/p%:q/locations/l/endpoints/a+b"
    with serve(handler) as port, client_to(port, name=name) as client:
        embed(client, [CLIP])
    expected = routing_header.to_grpc_metadata((("endpoint", name),))
    assert seen[0][expected[0]] == expected[1]
    assert "authorization" not in seen[0]


def test_statuses_and_hints_come_through_without_the_services_text() -> None:
    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)))
        status = status_pb2.Status(code=8, message="echo 0.12345", details=[info])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "echo 0.12345")

    with serve(handler) as port:
        transport = GrpcTransport(settings_for(port))
        reply = ask(transport)
        transport.close()
    assert reply == Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=3.0)
    assert "0.12345" not in repr(reply)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "Response size too large. Received at least 3 MB; echo 0.12345", True),
        (grpc.StatusCode.INVALID_ARGUMENT, "bad instance", False),
        (grpc.StatusCode.INTERNAL, "Response size too large", False),
    ],
)
def test_a_response_that_would_be_too_large_is_told_from_other_rejections(
    code: grpc.StatusCode, text: str, expected: bool
) -> None:
    with serve(lambda _, context: context.abort(code, text)) as port:
        transport = GrpcTransport(settings_for(port))
        reply = ask(transport)
        transport.close()
    assert reply == Reply(code, response_too_large=expected)
    assert "0.12345" not in repr(reply)


def test_a_request_times_out() -> None:
    answered = threading.Event()

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        answered.wait(PATIENCE_S)
        return first_samples(request, context)

    with serve(handler) as port:
        transport = GrpcTransport(settings_for(port))
        assert ask(transport, timeout_s=0.2).code is grpc.StatusCode.DEADLINE_EXCEEDED
        answered.set()
        transport.close()


def test_a_server_that_is_not_there_and_one_that_hangs_up_are_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        transport = GrpcTransport(settings_for(port))
        assert ask(transport).code is grpc.StatusCode.UNAVAILABLE
        transport.close()
        thread.join(PATIENCE_S)
    transport = GrpcTransport(settings_for(port))
    assert ask(transport).code is grpc.StatusCode.UNAVAILABLE
    transport.close()


def test_faults_between_good_answers_cost_no_clip() -> None:
    lock = threading.Lock()
    count = 0

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        nonlocal count
        with lock:
            count += 1
            turn = count
        message = first_samples(request, context)
        if turn % 7 == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        if turn % 7 == 3:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "")
        if turn % 7 == 4:
            del message.predictions[-1]
        if turn % 7 == 5:
            message.predictions[0].list_value.values[0].number_value = float("nan")
        return message

    rng = np.random.default_rng(2)
    batches = [[rng.normal(0, 0.3, 32000).astype(np.float32) for _ in range(2)] for _ in range(20)]
    settings = {"max_in_flight": 6, "max_attempts": 50}
    with (
        serve(handler) as port,
        client_to(port, **settings, backoff=Backoff(base_s=0.001, cap_s=0.01)) as client,
    ):
        outcomes = embed(client, *batches)
        stats = client.stats()
    for batch, outcome in zip(batches, outcomes, strict=True):
        for samples, result in zip(batch, outcome.results, strict=True):
            assert isinstance(result, Embedded)
            assert (result.embedding == samples[:512]).all()
    assert stats.retries_by_code.keys() == {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "BAD_ANSWER"}
    assert stats.requests_in_flight_peak <= 6


def test_a_rejected_clip_is_found_on_the_wire() -> None:
    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        if any(instance.list_value.values[0].number_value == 9.0 for instance in request.instances):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "")
        return first_samples(request, context)

    bad = CLIP.copy()
    bad[0] = 9.0
    with serve(handler) as port, client_to(port) as client:
        _, outcome = embed(client, [CLIP], [CLIP, CLIP, bad, CLIP])
    assert [isinstance(result, Embedded) for result in outcome.results] == [True, True, False, True]


def test_another_service_ends_the_run_with_one_request() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with client_to(port) as client:
        (outcome,) = embed(client, [CLIP])
        assert client.stats().requests == 1
    server.stop(None).wait()
    assert isinstance(outcome.error, RunEnded)
    assert "UNIMPLEMENTED" in outcome.error.message


def test_loopback_calls_pass_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with serve(first_samples) as port, client_to(port) as client:
        (outcome,) = embed(client, [CLIP])
    assert isinstance(outcome.results[0], Embedded)


def test_neither_beam_nor_the_official_client_is_imported_and_tracing_is_left_alone() -> None:
    code = (
        "import os, sys, endpoint.client, endpoint.grpc_transport\n"
        "heavy = [name for name in sys.modules if name.startswith(('apache_beam', 'google.cloud.aiplatform'))]\n"
        "assert not heavy, heavy\n"
        "assert 'GRPC_TRACE' not in os.environ and 'GRPC_VERBOSITY' not in os.environ\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
