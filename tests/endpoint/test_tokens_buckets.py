"""Tokens for objects: which object gets which, how long they last together, and what becomes of refused ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth.transport.requests import Request

from endpoint.downscoping import downscoped
from endpoint.errors import RunEnded
from endpoint.items import ClipObject
from endpoint.token_source import TokenSource
from endpoint.tokens import PLACEHOLDER, BucketTokens, BucketTokenSettings, PlaceholderTokens, bearer_tokens
from tests.cloud.google_proxy import google_cloud
from tests.cloud.token_server import PREFIX
from tests.endpoint.token_fakes import SECRET, CountedCredentials, Time, source_of

MARGIN_S = 90.0
STAGING = ("staging", "run-1/")


def tokens_of(source: TokenSource, time: Time, **settings: Any) -> BucketTokens:
    return BucketTokens(BucketTokenSettings(**settings), MARGIN_S, clock=time.clock, source=source)


class Exchange:
    """Stands in for sts.googleapis.com behind google-auth's transport: gives SHORT-n for the n-th request."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.statuses: list[int] = []
        self.lifetime_s: float | None = None

    def __call__(self, url: str, body: bytes) -> tuple[int, str]:
        assert url == "https://sts.googleapis.com/v1/token"
        subject = next(part.partition("=")[2] for part in body.decode().split("&") if part.startswith("subject_token="))
        self.subjects.append(subject)
        if self.statuses:
            return self.statuses.pop(0), f'{{"error": "invalid_grant", "error_description": "{subject}"}}'
        return 200, f'{{"access_token": "SHORT-{len(self.subjects)}"}}'


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Exchange:
    fake = Exchange()

    def call(self: Request, url: str, method: str = "GET", body: bytes = b"", **_: Any) -> Any:
        status, text = fake(url, body)
        return type("Response", (), {"status": status, "data": text.encode(), "headers": {}})()

    monkeypatch.setattr(Request, "__call__", call)
    return fake


def test_each_bucket_and_the_staging_prefix_have_a_token_of_their_own(exchange: Exchange) -> None:
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time, staging=STAGING)
    objects = [
        ("a", "x"),
        ("a", "y/z"),
        ("staging", "run-1/c"),
        ("staging", "run-1/d"),
        ("staging", "run-10/c"),
        ("a", "x"),
    ]
    given = [tokens.token(ClipObject(*names)) for names in objects]
    assert given == ["SHORT-1", "SHORT-1", "SHORT-2", "SHORT-2", "SHORT-3", "SHORT-1"]
    assert exchange.subjects == [f"{SECRET}-1"] * 3


def test_a_refresh_of_what_all_are_made_of_serves_all_of_them(exchange: Exchange) -> None:
    time = Time()
    credentials = CountedCredentials(time, 240)
    tokens = tokens_of(source_of(credentials, time), time)
    for _ in range(2400):
        time.now_s += 1
        for bucket in ("a", "b", "c"):
            tokens.token(ClipObject(bucket, "x"))
    # Tokens are replaced each 150 s: 16 times in 2400 s, those of three buckets with one token of the source.
    assert credentials.refreshes <= 17
    assert len(exchange.subjects) <= 3 * 17


def test_a_refused_token_is_made_anew_from_a_new_one(exchange: Exchange) -> None:
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time)
    item = ClipObject("a", "x")
    sent_s = time.now_s
    assert tokens.token(item) == "SHORT-1"
    time.now_s += 1
    tokens.renew(sent_s)  # sent before this token was had: it was another that was refused
    assert tokens.token(item) == "SHORT-1"
    for _ in range(3):
        tokens.renew(time.now_s)
    assert tokens.token(item) == "SHORT-2"
    tokens.renew(time.now_s)
    assert tokens.token(item) == "SHORT-2"
    assert exchange.subjects == [f"{SECRET}-1", f"{SECRET}-2"]


def test_a_revoked_source_token_is_replaced_and_exchanged_again(exchange: Exchange) -> None:
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time)
    tokens.token(ClipObject("a", "x"))
    time.now_s += 1
    exchange.statuses = [400]
    assert tokens.token(ClipObject("b", "x")) == "SHORT-3"
    assert exchange.subjects == [f"{SECRET}-1", f"{SECRET}-1", f"{SECRET}-2"]


def test_a_service_that_will_not_exchange_ends_the_run_in_our_own_words(exchange: Exchange) -> None:
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time)
    exchange.statuses = [403]
    with pytest.raises(RunEnded, match=r"gs://a .*HTTP 403.*--full_scope_tokens") as caught:
        tokens.token(ClipObject("a", "x"))
    assert SECRET not in repr(caught.value)
    assert caught.value.__context__ is None


def test_quotes_in_a_prefix_do_not_end_the_condition() -> None:
    time = Time()
    source = downscoped(source_of(CountedCredentials(), time), "b", "it's\\here/", margin_s=90, clock=time.clock)
    boundary = source._credentials._credential_access_boundary.to_json()
    (rule,) = boundary["accessBoundary"]["accessBoundaryRules"]
    expression = rule["availabilityCondition"]["expression"]
    assert expression == r"resource.name.startsWith('projects/_/buckets/b/objects/it\'s\\here/')"


def test_tokens_of_full_scope_are_the_source_s(exchange: Exchange) -> None:
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time, full_scope=True)
    assert tokens.token(ClipObject("a", "x")) == f"{SECRET}-1"
    assert exchange.subjects == []
    time.now_s += 1
    tokens.renew(time.now_s)
    assert tokens.token(ClipObject("b", "x")) == f"{SECRET}-2"


def test_credentials_are_not_looked_for_until_a_token_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    tokens = BucketTokens(BucketTokenSettings(), MARGIN_S)
    with pytest.raises(RunEnded, match="gcloud auth application-default login"):
        tokens.token(ClipObject("a", "x"))


def test_settings_travel_and_tokens_do_not() -> None:
    settings = BucketTokenSettings("a@b.iam.gserviceaccount.com", full_scope=True, staging=STAGING)
    assert pickle.loads(pickle.dumps(settings)) == settings
    time = Time()
    tokens = tokens_of(source_of(CountedCredentials(), time), time, full_scope=True)
    tokens.token(ClipObject("a", "x"))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(tokens)
    assert SECRET not in repr(tokens)


@pytest.mark.parametrize(
    ("is_loopback", "emulator", "file", "is_placeholder"),
    [
        (True, "http://127.0.0.1:1", "", True),
        (True, "http://127.0.0.1:1", "credentials.json", False),
        (True, "", "", False),
        (False, "http://127.0.0.1:1", "", False),
    ],
)
def test_placeholders_are_for_practice_within_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, is_loopback: bool, emulator: str, file: str, is_placeholder: bool
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
    tokens = bearer_tokens(BucketTokenSettings(), MARGIN_S, is_loopback=is_loopback)
    assert isinstance(tokens, PlaceholderTokens) == is_placeholder
    if is_placeholder:
        tokens.renew(0.0)
        assert tokens.token(ClipObject("a", "x")) == PLACEHOLDER


def test_against_the_real_protocol_tokens_of_240_s_are_refreshed_as_rarely_as_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with google_cloud(tmp_path, lifetime_s=240) as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        tokens = BucketTokens(BucketTokenSettings(), MARGIN_S)
        item = ClipObject("clips", "a.wav")
        first = [tokens.token(item) for _ in range(50)]
        assert len(set(first)) == 1
        assert cloud.tokens.requests == {"refresh": 1, "exchange": 1}
        cloud.tokens.revoke(first[0])
        assert requests.get(cloud.tokens.token_info_url, {"access_token": first[0]}, timeout=20).status_code == 400
        tokens.renew(float("inf"))
        second = tokens.token(item)
        info = requests.get(cloud.tokens.token_info_url, {"access_token": second}, timeout=20).json()
        assert 200 < info["expires_in"] <= 240
        assert info["access_boundary"]["accessBoundaryRules"][0]["availableResource"].endswith("/buckets/clips")
        assert second.startswith(PREFIX)
        assert cloud.tokens.requests["refresh"] == cloud.tokens.requests["exchange"] == 2
