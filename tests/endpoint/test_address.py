"""Plain text is for loopback addresses only, so what counts as one is strict."""

from __future__ import annotations

import pytest

from endpoint.address import parse_host
from endpoint.settings import EndpointSettings

NAME = "projects/p/locations/l/endpoints/200"


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1:80", "ipv4:127.0.0.1:80"),
        ("127.8.9.10:8080", "ipv4:127.8.9.10:8080"),
        ("localhost:8080", "ipv4:127.0.0.1:8080"),
        ("LocalHost:8080", "ipv4:127.0.0.1:8080"),
        ("[::1]:8080", "ipv6:[::1]:8080"),
    ],
)
def test_loopback_hosts(host: str, target: str) -> None:
    assert parse_host(host) == (target, True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.8.9.10:8080", "http://127.8.9.10:8080"),
        ("localhost:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("us-west1-aiplatform.googleapis.com", "https://us-west1-aiplatform.googleapis.com:443"),
        ("ipv4:80", "https://ipv4:80"),
        ("0.0.0.0:80", "https://0.0.0.0:80"),
        ("[::]:80", "https://[::]:80"),
    ],
)
def test_only_loopback_hosts_are_spoken_to_in_plain_http(host: str, url: str) -> None:
    assert parse_host(host).url == url


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("us-west1-aiplatform.googleapis.com", "us-west1-aiplatform.googleapis.com:443"),
        ("example.com:8443", "example.com:8443"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("10.0.0.1", "10.0.0.1:443"),
        ("127.0.0.1.example.com:80", "127.0.0.1.example.com:80"),
        ("localhost.example.com:80", "localhost.example.com:80"),
        ("127.1:80", "127.1:80"),
        ("0177.0.0.1:80", "0177.0.0.1:80"),
        ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
        ("[::]:80", "[::]:80"),
    ],
)
def test_all_other_hosts(host: str, target: str) -> None:
    assert parse_host(host) == (target, False)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "https://example.com",
        "example.com/path",
        "dns:///example.com",
        "unix:/tmp/socket",
        "ipv4:10.0.0.1:80",
        "127.0.0.1:80,10.0.0.1:80",
        "127.0.0.1@example.com:80",
        "user@example.com",
        "example.com:0",
        "example.com:65536",
        "example.com:port",
        "exa mple.com",
        "example.com\n",
        "::1",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ],
)
def test_what_is_no_host_is_refused_by_name(host: str) -> None:
    with pytest.raises(ValueError, match="endpoint host"):
        parse_host(host)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"name": "200"}, "endpoint name '200'"),
        ({"name": NAME + "/x"}, "endpoint name"),
        ({"name": f"{NAME} "}, "endpoint name"),
        ({"host": "https://x"}, "endpoint host"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"clips_per_request": 0}, "clips_per_request is 0"),
        ({"max_requests": 0, "run_id": "run"}, "max_requests is 0"),
        ({"max_requests": 1}, "run_id is ''"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes: dict[str, object], names: str) -> None:
    fields: dict[str, object] = {"name": NAME, "host": "127.0.0.1:80", **changes}
    with pytest.raises(ValueError, match=names):
        EndpointSettings(**fields)  # type: ignore[arg-type]
