"""The service of jobs on hosts other than loopback: TLS always, credentials over TLS only, and nothing of them in logs.

0.0.0.0 reaches this machine, and yet it is no loopback address.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import google.auth.exceptions
import grpc
import pytest
from cryptography import x509

from endpoint.credentials import CallCredentials
from endpoint.errors import JobRefused, JobUnreachable, RunEnded
from endpoint.job_service import JobService
from endpoint.token_source import TokenSource
from tests.endpoint.certificates import Certificate, self_signed
from tests.endpoint.job_fakes import PARENT, FakeJobs, Fault, Moments, rest_handler, serve_grpc, settings_for
from tests.endpoint.servers import raw_server, serve_rest
from tests.endpoint.token_fakes import SECRET, CountedCredentials, Time, explain, source_of

LABELS = {"hear-clips": "0123abcd"}
FILES = (["gs://bucket/clips/*.jsonl"], "gs://bucket/results/")
SERVER_NAME = "hear.example.com"


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed(x509.IPAddress(ipaddress.ip_address("0.0.0.0")), x509.DNSName(SERVER_NAME))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Certificate) -> None:
    """No proxies; REST trusts the certificate; and .netrc has something to say about every host."""
    monkeypatch.setenv("no_proxy", "0.0.0.0")
    (tmp_path / "certificate.pem").write_bytes(certificate.public)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    (tmp_path / "netrc").write_text("default login user password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(params=["grpc", "rest"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def serve_tls(fake: FakeJobs, transport: str, certificate: Certificate, folder: Path) -> Iterator[int]:
    if transport == "grpc":
        with serve_grpc(fake, grpc.ssl_server_credentials([certificate])) as port:
            yield port
        return
    (folder / "key.pem").write_bytes(certificate.private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with serve_rest(rest_handler(fake), context) as port:
        yield port


@contextmanager
def service_at(
    port: int,
    transport: str,
    credentials: CountedCredentials,
    certificate: Certificate | None,
    *,
    source: TokenSource | None = None,
    pause: Callable[[float], None] | None = None,
) -> Iterator[JobService]:
    with JobService(
        settings_for(port, host=f"0.0.0.0:{port}", transport=transport),
        credentials=CallCredentials(source or TokenSource(credentials, explain)),
        root_certificates=certificate.public if certificate else None,
        server_name=SERVER_NAME if certificate else None,
        pause=pause or Moments().pause,
    ) as service:
        yield service


def authorizations(fake: FakeJobs) -> list[str]:
    return [headers["authorization"] for headers in fake.headers]


def test_calls_carry_the_token_over_tls(
    transport: str, certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake, credentials = FakeJobs(tokens={f"Bearer {SECRET}-1"}), CountedCredentials()
    with (
        serve_tls(fake, transport, certificate, tmp_path) as port,
        service_at(port, transport, credentials, certificate) as service,
    ):
        job = service.create("hear", LABELS, *FILES)
        assert service.get(job.name) == job
        assert service.find(LABELS) == [job]
    assert authorizations(fake) == [f"Bearer {SECRET}-1"] * 3
    assert SECRET not in caplog.text
    assert credentials.refreshes == 1


def test_a_refused_token_is_renewed_once(transport: str, certificate: Certificate, tmp_path: Path) -> None:
    fake, credentials = FakeJobs(tokens={f"Bearer {SECRET}-2"}), CountedCredentials()
    with (
        serve_tls(fake, transport, certificate, tmp_path) as port,
        service_at(port, transport, credentials, certificate) as service,
    ):
        service.create("hear", LABELS, *FILES)
        fake.tokens = {f"Bearer {SECRET}-3"}
        assert len(service.find(LABELS)) == 1
    assert authorizations(fake) == [f"Bearer {SECRET}-{number}" for number in (1, 2, 2, 3)]
    assert len(fake.jobs) == 1


def test_a_token_that_stays_refused_ends_the_run_after_two_calls(
    transport: str, certificate: Certificate, tmp_path: Path
) -> None:
    fake = FakeJobs(tokens=set())
    with (
        serve_tls(fake, transport, certificate, tmp_path) as port,
        service_at(port, transport, CountedCredentials(), certificate) as service,
        pytest.raises(JobRefused, match="gcloud auth application-default login") as caught,
    ):
        service.create("hear", LABELS, *FILES)
    assert authorizations(fake) == [f"Bearer {SECRET}-1", f"Bearer {SECRET}-2"]
    assert SECRET not in repr(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("retryable", [False, True])
def test_without_a_token_nothing_is_sent_and_google_s_text_is_not_shown(
    transport: str, certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture, retryable: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    failure = google.auth.exceptions.RefreshError(f"invalid_grant {SECRET}", retryable=retryable)
    fake = FakeJobs()
    with (
        serve_tls(fake, transport, certificate, tmp_path) as port,
        service_at(port, transport, CountedCredentials(failure=failure), certificate) as service,
        pytest.raises(JobUnreachable if retryable else RunEnded, match="UNAVAILABLE" if retryable else "our own words"),
    ):
        service.create("hear", LABELS, *FILES)
    assert fake.calls == []
    assert SECRET not in caplog.text


def test_a_job_that_was_not_asked_for_yet_is_not_looked_for(
    transport: str, certificate: Certificate, tmp_path: Path
) -> None:
    time = Time()
    credentials = CountedCredentials(time, failure=google.auth.exceptions.RefreshError("busy", retryable=True))

    def pause(seconds: float) -> None:
        time.now_s += 60
        credentials.failure = None

    fake = FakeJobs()
    with (
        serve_tls(fake, transport, certificate, tmp_path) as port,
        service_at(
            port, transport, credentials, certificate, source=source_of(credentials, time), pause=pause
        ) as service,
    ):
        service.create("hear", LABELS, *FILES)
    assert fake.calls == ["create"]


def test_a_certificate_that_is_not_trusted_gets_no_token(
    transport: str, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeJobs()
    with serve_tls(fake, transport, certificate, tmp_path) as port:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with (
            service_at(port, transport, CountedCredentials(), None) as service,
            pytest.raises(JobUnreachable, match="UNAVAILABLE"),
        ):
            service.get(f"{PARENT}/batchPredictionJobs/1")
    assert fake.calls == []


def test_a_host_that_speaks_plain_text_hears_a_tls_greeting_and_nothing_else(
    transport: str, certificate: Certificate
) -> None:
    heard: list[bytes] = []
    with (
        raw_server(lambda connection: heard.append(connection.recv(65536))) as port,
        service_at(port, transport, CountedCredentials(), certificate) as service,
        pytest.raises(JobUnreachable),
    ):
        service.get(f"{PARENT}/batchPredictionJobs/1")
    assert heard
    for data in heard:
        assert data[:2] == b"\x16\x03"  # a TLS handshake record
        assert SECRET.encode() not in data


def test_redirects_take_the_token_nowhere(certificate: Certificate, tmp_path: Path) -> None:
    elsewhere, fake = FakeJobs(), FakeJobs()
    with serve_rest(rest_handler(elsewhere)) as other_port:
        (tmp_path / "key.pem").write_bytes(certificate.private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        for status in (301, 302, 303, 307, 308):
            redirect = {"Location": f"http://127.0.0.1:{other_port}/v1/{PARENT}/batchPredictionJobs/1"}
            with (
                serve_rest(lambda _, status=status, to=redirect: (status, to, b""), context) as port,  # type: ignore[misc]
                service_at(port, "rest", CountedCredentials(), certificate) as service,
                pytest.raises(JobRefused, match="UNIMPLEMENTED"),
            ):
                service.get(f"{PARENT}/batchPredictionJobs/1")
    assert elsewhere.calls == fake.calls == []


def test_on_loopback_neither_proxies_nor_netrc_are_used(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fake = FakeJobs()
    job = fake.add(LABELS)
    fake.fail("get", Fault("UNAVAILABLE"))
    serve = serve_grpc(fake) if transport == "grpc" else serve_rest(rest_handler(fake))
    with serve as port, JobService(settings_for(port, transport=transport), pause=Moments().pause) as service:
        assert service.get(job.name).name == job.name
    assert all("authorization" not in headers for headers in fake.headers)
    assert len(fake.headers) == 2


def test_other_hosts_need_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(RunEnded, match="No usable Google credentials"):
        JobService(settings_for(0, host="us-west1-aiplatform.googleapis.com"))
