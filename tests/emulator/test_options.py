"""The options of `python -m emulator`, and the addresses it accepts of other servers."""

from __future__ import annotations

import pytest

from emulator.loopback import is_loopback_url, storage_address
from emulator.options import parse_options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rest_port", "x"], "argument --rest_port: 'x' is not a port: expected 0 to 65535"),
        (["--uri_endpoint", "220"], "argument --uri_endpoint: '220' is not an endpoint"),
        (["--garden_endpoint", "projects/local/locations/local/endpoints/200"], "two endpoints have the same name"),
        (
            ["--max_request_bytes", "0"],
            "argument --max_request_bytes: '0' is not a count: expected a whole number, 1 or",
        ),
        (["--quota_per_minute", "1.5"], "argument --quota_per_minute: '1.5' is not a count"),
        (
            ["--storage_host", "https://storage.googleapis.com"],
            "is not a storage server here: expected http://127.0.0.1",
        ),
        (
            ["--token_info_url", "http://example.com/"],
            "'http://example.com/' is not a token server here: expected http",
        ),
        (["--model", "220"], "argument --model: '220' is not a model: expected projects/P/locations/L/models/M"),
        (["--model", "projects/p/locations/l/models/1@2"], "argument --model: "),
        (["--garden_model", "projects/local/locations/local/models/220"], "two models have the same name"),
        (["--job_faults", "end=never"], "argument --job_faults: end=never is no state: expected one of succeeded"),
        (["--faults", "429=2"], "argument --faults: 429=2 is no rate: expected 0 to 1"),
        (["--faults", "%d=1"], "argument --faults: '%d=1' is no fault"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments, {})
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last


def test_defaults_and_given_values() -> None:
    options = parse_options([], {})
    assert options.service.endpoints.names == tuple(
        f"projects/local/locations/local/endpoints/{k}" for k in (200, 220, 300)
    )
    assert options.jobs.models.names == tuple(f"projects/local/locations/local/models/{k}" for k in (220, 300))
    assert (options.storage_host, options.token_info_url, options.arrivals_log) == (None, None, None)
    given = parse_options(["--storage_host=http://localhost:1/"], {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:2"})
    assert given.storage_host == "http://localhost:1"
    assert parse_options([], {"STORAGE_EMULATOR_HOST": "127.0.0.1:2"}).storage_host == "http://127.0.0.1:2"
    assert parse_options([], {"STORAGE_EMULATOR_HOST": "http://storage:4443"}).storage_host is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]", "LOCALHOST"])
def test_this_machine(host: str) -> None:
    assert is_loopback_url(f"http://{host}:80/a?b=c")
    assert storage_address(f"http://{host}:80/") == f"http://{host}:80"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "https://127.0.0.1:80",
        "http://example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://example.com@127.0.0.1",
        "http://127.0.0.1@example.com",
        "http://user:secret@127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://127.0.0.1/#a",
        "http://127.0.0.1/\n",
        "http://[::1",
        "http://2130706433",
        "file:///etc/passwd",
    ],
)
def test_elsewhere(url: str) -> None:
    assert not is_loopback_url(url)


@pytest.mark.parametrize("text", ["", "http://127.0.0.1:80/path", "http://127.0.0.1?x=1", "storage:80", "http://"])
def test_no_storage_address(text: str) -> None:
    assert storage_address(text) is None
