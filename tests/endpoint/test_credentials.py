"""Credentials at the start of a run: found or not, working or not, with the remedy; and what they put on requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from endpoint.credentials import CallCredentials, check_credentials, default_credentials
from endpoint.errors import RunEnded, TokenUnavailable
from endpoint.token_request import TokenRequest
from endpoint.token_source import TokenSource
from tests.cloud.google_proxy import GoogleCloud, google_cloud
from tests.cloud.token_server import PREFIX, REFRESH_TOKEN, TokenServer, serve_tokens
from tests.endpoint.token_fakes import SECRET, CountedCredentials, explain

REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNT = "caller@local-project.iam.gserviceaccount.com"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TokenServer]:
    with serve_tokens() as tokens:
        file = tokens.write_user_file(tmp_path / "credentials.json")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "local-project")
        yield tokens


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GoogleCloud]:
    with google_cloud(tmp_path, accounts=(ACCOUNT,)) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_the_check_really_gets_a_token(server: TokenServer) -> None:
    check_credentials()
    assert server.requests == {"refresh": 1}


def test_the_check_tries_each_account_once(cloud: GoogleCloud) -> None:
    check_credentials(None, ACCOUNT, ACCOUNT, None)
    assert cloud.tokens.requests == {"refresh": 1, "impersonate": 1}


def test_credentials_that_were_revoked_name_the_remedy_and_not_the_reason(server: TokenServer) -> None:
    server.is_signed_in = False
    with pytest.raises(RunEnded) as caught:
        check_credentials()
    message = caught.value.message
    assert "gcloud auth application-default login" in message
    assert "--impersonate-service-account=" in message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in message
    assert REFRESH_TOKEN not in message
    assert PREFIX not in message
    assert caught.value.__context__ is None


def test_an_account_that_may_not_be_impersonated_names_the_role(cloud: GoogleCloud) -> None:
    other = "stranger@local-project.iam.gserviceaccount.com"
    with pytest.raises(RunEnded, match=r"roles/iam\.serviceAccountTokenCreator") as caught:
        check_credentials(other)
    assert other in caught.value.message
    assert PREFIX not in caught.value.message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_sign_in_service_that_recovers_is_waited_for(server: TokenServer, status: int) -> None:
    # google-auth itself does not mark any of these as retryable for such credentials.
    server.fail_next(1, status)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)  # real, as is the clock of the source

    check_credentials(pause=pause)
    assert len(pauses) == 1
    assert server.requests == {"refresh": 2}


def test_a_sign_in_service_that_stays_down_ends_the_check(server: TokenServer) -> None:
    server.fail_next(9, 503)
    with pytest.raises(RunEnded, match=r"HTTP 503.*try again later"):
        check_credentials(pause=lambda _: None)


def test_a_sign_in_service_out_of_reach_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_tokens() as tokens:
        file = tokens.write_user_file(tmp_path / "credentials.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "local-project")
    with pytest.raises(TokenUnavailable, match="could not be reached"):
        default_credentials().token()


@pytest.mark.parametrize(
    "content", [f'{{"type": "{SECRET}"}}', f'{{"type": "service_account", "{SECRET}": 1}}', SECRET]
)
def test_a_broken_file_names_the_remedy_and_not_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    broken = tmp_path / "credentials.json"
    broken.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(broken))
    with pytest.raises(RunEnded, match="gcloud auth application-default login") as caught:
        default_credentials()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_without_credentials_the_metadata_server_is_asked_for_once() -> None:
    # In a process of its own: google-auth reads its variables when it is imported.
    code = """
import socket
from endpoint import token_request
calls = []
def create_connection(address, timeout):
    calls.append((address, timeout))
    raise TimeoutError
token_request.socket.create_connection = create_connection
token_request._PRODUCT_NAME = token_request.Path("/nonexistent")
from endpoint.credentials import default_credentials
from endpoint.errors import RunEnded
try:
    default_credentials()
except RunEnded as error:
    print(calls, error.message)
"""
    dropped = {"GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK", "GCE_METADATA_IP", "GCE_METADATA_HOST"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**environment, "CLOUDSDK_CONFIG": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("[(('169.254.169.254', 80), 1.0)] No usable Google credentials were found")


def test_requests_carry_the_token_and_the_project_that_is_charged(server: TokenServer, tmp_path: Path) -> None:
    plain = CallCredentials(default_credentials()).authorization_headers()
    assert plain == {"authorization": f"Bearer {server.values[0]}"}
    server.write_user_file(tmp_path / "credentials.json", quota_project_id="payer")
    charged = CallCredentials(default_credentials()).authorization_headers()
    assert charged == {"authorization": f"Bearer {server.values[1]}", "x-goog-user-project": "payer"}


def test_an_impersonated_account_s_token_is_put_on_requests(cloud: GoogleCloud) -> None:
    headers = CallCredentials(default_credentials(ACCOUNT)).authorization_headers()
    (impersonated,) = cloud.tokens.of_kind("impersonate")
    assert headers == {"authorization": f"Bearer {impersonated.value}"}


def test_impersonation_is_charged_to_the_user_s_project(cloud: GoogleCloud, tmp_path: Path) -> None:
    # Without it, Google refuses a signed-in user's calls of this service.
    cloud.tokens.write_user_file(tmp_path / "credentials.json", quota_project_id="payer")
    check_credentials(ACCOUNT)
    assert cloud.tokens.charged == ["payer"]


def test_call_credentials_say_when_they_are_of_no_use() -> None:
    fake = CountedCredentials(failure=ValueError("no answer"))
    credentials = CallCredentials(TokenSource(fake, explain))
    with pytest.raises(TokenUnavailable):
        credentials.authorization_headers()
    assert not credentials.are_invalid
    invalid = CallCredentials(TokenSource(CountedCredentials(failure=OSError()), explain))
    with pytest.raises(RunEnded):
        invalid.authorization_headers()
    assert invalid.are_invalid
    assert invalid.failure is not None
    assert invalid.failure.message == "our own words (None)"


def test_renewed_call_credentials_carry_a_new_token(server: TokenServer) -> None:
    credentials = CallCredentials(default_credentials())
    first = [credentials.authorization_headers() for _ in range(3)]
    credentials.renew()
    second = [credentials.authorization_headers() for _ in range(3)]
    assert first == [{"authorization": f"Bearer {server.values[0]}"}] * 3
    assert second == [{"authorization": f"Bearer {server.values[1]}"}] * 3


def test_netrc_does_not_replace_authorization_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine token.example.com login user password word\n")
    monkeypatch.setenv("NETRC", str(netrc))
    prepared = TokenRequest().session.prepare_request(
        requests.Request("POST", "https://token.example.com/", headers={"Authorization": f"Bearer {SECRET}"})
    )
    assert prepared.headers["Authorization"] == f"Bearer {SECRET}"


def test_the_test_s_own_server_refuses_what_google_would(server: TokenServer) -> None:
    refused = requests.post(
        f"{server.url}/token", {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}, timeout=20
    )
    assert refused.status_code == 401
    info = requests.get(server.token_info_url, {"access_token": "unknown"}, timeout=20)
    assert (info.status_code, info.json()) == (400, {"error": "invalid_token"})
    assert json.loads(requests.get(f"{server.url}/control", timeout=20).text)["tokens"] == []
