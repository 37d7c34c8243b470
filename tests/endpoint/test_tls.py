"""Hosts other than loopback: TLS always, and the authorization header over TLS only.

Connecting to 0.0.0.0 reaches this machine, and yet it is no loopback address: so these tests have a host that is treated as
a foreign one and a server that listens on loopback only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import google.auth.exceptions
import grpc
import numpy as np
import pytest
from cryptography import x509
from google.auth.credentials import Credentials

from endpoint.channel import open_loopback_channel, open_tls_channel
from endpoint.client import Client
from endpoint.credentials import CallCredentials
from endpoint.errors import RunEnded
from endpoint.grpc_transport import METHOD, GrpcTransport
from endpoint.results import Embedded
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.token_source import TokenSource
from tests.endpoint import official
from tests.endpoint.certificates import Certificate, self_signed
from tests.endpoint.outcomes import PATIENCE_S, embed
from tests.endpoint.servers import first_samples, raw_server, serve
from tests.endpoint.token_fakes import SECRET, CountedCredentials, explain

SERVER_NAME = "hear.example.com"
CLIP = np.linspace(-1, 1, 32000, dtype=np.float32)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """Key and self-signed certificate for SERVER_NAME, as PEM."""
    return self_signed(x509.DNSName(SERVER_NAME))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "0.0.0.0")


def source_of(credentials: Credentials) -> TokenSource:
    return TokenSource(credentials, explain)


def settings_for(port: int) -> EndpointSettings:
    return EndpointSettings(name=official.NAME, host=f"0.0.0.0:{port}", max_attempts=3)


def client_for(port: int, credentials: Credentials, certificate: Certificate) -> Client:
    settings = settings_for(port)
    transport = GrpcTransport(
        settings,
        credentials=CallCredentials(source_of(credentials)),
        root_certificates=certificate.public,
        server_name=SERVER_NAME,
    )
    return Client(settings, transport=transport, backoff=Backoff(base_s=0.001, cap_s=0.001))


class Gate:
    """A handler that asks for one of the accepted tokens."""

    def __init__(self, *accepted: str) -> None:
        self.accepted = accepted
        self.seen: list[str] = []

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        authorization = str(dict(context.invocation_metadata()).get("authorization"))
        self.seen.append(authorization)
        if authorization not in [f"Bearer {token}" for token in self.accepted]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"no: {authorization}")
        return first_samples(request, context)


def test_calls_carry_the_token_over_tls(certificate: Certificate) -> None:
    gate, credentials = Gate(f"{SECRET}-1"), CountedCredentials()
    with (
        serve(gate, grpc.ssl_server_credentials([certificate])) as port,
        client_for(port, credentials, certificate) as client,
    ):
        outcomes = embed(client, *[[CLIP]] * 12)
    assert all(isinstance(outcome.results[0], Embedded) for outcome in outcomes)
    assert gate.seen == [f"Bearer {SECRET}-1"] * 12
    assert credentials.refreshes == 1


def test_a_refused_token_is_renewed_once(certificate: Certificate) -> None:
    gate, credentials = Gate(f"{SECRET}-2"), CountedCredentials()
    with (
        serve(gate, grpc.ssl_server_credentials([certificate])) as port,
        client_for(port, credentials, certificate) as client,
    ):
        outcomes = embed(client, *[[CLIP]] * 12)
        assert client.stats().retries_by_code == {"UNAUTHENTICATED": 1}
    assert all(isinstance(outcome.results[0], Embedded) for outcome in outcomes)
    assert credentials.refreshes == 2


def test_a_token_that_stays_refused_ends_the_run_after_two_requests(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gate, credentials = Gate(), CountedCredentials()
    with (
        serve(gate, grpc.ssl_server_credentials([certificate])) as port,
        client_for(port, credentials, certificate) as client,
    ):
        outcomes = embed(client, *[[CLIP]] * 3)
    assert gate.seen == [f"Bearer {SECRET}-1", f"Bearer {SECRET}-2"]
    for outcome in outcomes:
        assert isinstance(outcome.error, RunEnded)
        assert "gcloud auth application-default login" in outcome.error.message
        assert SECRET not in repr(outcome)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("retryable", [False, True])
def test_a_refresh_that_fails_ends_the_run_and_its_text_is_not_shown(
    certificate: Certificate, caplog: pytest.LogCaptureFixture, retryable: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    failure = google.auth.exceptions.RefreshError(f"invalid_grant {SECRET}", retryable=retryable)
    gate, credentials = Gate(f"{SECRET}-1"), CountedCredentials(failure=failure)
    with (
        serve(gate, grpc.ssl_server_credentials([certificate])) as port,
        client_for(port, credentials, certificate) as client,
    ):
        (outcome,) = embed(client, [CLIP])
        retries = client.stats().retries_by_code
    assert gate.seen == []
    assert retries == ({"UNAVAILABLE": 2} if retryable else {"UNAUTHENTICATED": 1})
    assert isinstance(outcome.error, RunEnded)
    assert SECRET not in outcome.error.message
    assert SECRET not in caplog.text


def test_a_certificate_that_is_not_trusted_gets_no_token(certificate: Certificate) -> None:
    gate = Gate(f"{SECRET}-1")
    with serve(gate, grpc.ssl_server_credentials([certificate])) as port:
        settings = settings_for(port)
        # The usual authorities have not signed it.
        transport = GrpcTransport(settings, credentials=CallCredentials(source_of(CountedCredentials())))
        with Client(settings, transport=transport, backoff=Backoff(0.001, 0.001)) as client:
            (outcome,) = embed(client, [CLIP])
    assert outcome.error is not None
    assert gate.seen == []


@pytest.fixture
def eavesdropper() -> Iterator[tuple[int, list[bytes]]]:
    """A listener that keeps the first bytes of each connection and hangs up; its port and what it heard."""
    heard: list[bytes] = []
    with raw_server(lambda connection: heard.append(connection.recv(65536))) as port:
        yield port, heard


def test_a_host_that_speaks_plain_text_hears_a_tls_greeting_and_nothing_else(
    certificate: Certificate, eavesdropper: tuple[int, list[bytes]]
) -> None:
    port, heard = eavesdropper
    with client_for(port, CountedCredentials(), certificate) as client:
        (outcome,) = embed(client, [CLIP])
    assert outcome.error is not None
    assert heard
    for data in heard:
        assert data[:2] == b"\x16\x03"  # a TLS handshake record
        assert b"authorization" not in data
        assert SECRET.encode() not in data


@pytest.mark.parametrize("host", ["0.0.0.0:80", "us-west1-aiplatform.googleapis.com", "127.0.0.1.example.com:80"])
def test_plain_text_to_another_host_is_impossible(host: str) -> None:
    with pytest.raises(ValueError, match="plain text is for this machine only"):
        open_loopback_channel(host)


def test_grpc_itself_refuses_these_credentials_without_tls() -> None:
    # The second line of defence: call credentials on a plain channel fail before anything is sent.
    plugin = grpc.metadata_call_credentials(CallCredentials(source_of(CountedCredentials())))
    with serve(first_samples) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", credentials=plugin, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_tls_channel_is_lazy() -> None:
    # Making one connects to nothing, so that a client can be made before its network is there.
    open_tls_channel("hear.invalid", CallCredentials(source_of(CountedCredentials()))).close()
