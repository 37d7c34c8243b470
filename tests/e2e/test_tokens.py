"""Object URIs with the real google-auth: tokens that expire and are revoked while a run goes on, and what may be read with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rows.checkpoint import read_all
from rows.model import EmbeddingRow
from tests.cloud.google_proxy import GoogleCloud
from tests.e2e.clouds import ACCOUNT, world, write_recording
from tests.e2e.running import embeddings, run_command, succeed

GRPC = ("research", "grpc")
REST = ("model_garden", "rest")
both_formats = pytest.mark.parametrize("way", [GRPC, REST], ids="-".join)


def boundary(bucket: str, prefix: str = "") -> dict[str, Any]:
    """Google's form of "may read objects of this bucket whose names begin so, and nothing else"."""
    rule: dict[str, Any] = {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        "availablePermissions": ["inRole:roles/storage.objectViewer"],
    }
    if prefix:
        name = f"projects/_/buckets/{bucket}/objects/{prefix}"
        rule["availabilityCondition"] = {"expression": f"resource.name.startsWith('{name}')"}
    return {"accessBoundaryRules": [rule]}


@pytest.mark.parametrize(("way", "account"), [(GRPC, None), (REST, ACCOUNT)], ids=["own account", "impersonated"])
def test_tokens_that_expire_and_are_revoked_cost_no_clip_and_few_refreshes(
    way: tuple[str, str], account: str | None, tmp_path: Path
) -> None:
    """Tokens live 6 s. Where a token's life is less than twice the margin, it is used for half of it."""
    lifetime_s, clips, revoked = 6, 280, [15, 50]
    in_flight: list[int] = []

    def revoke(cloud: GoogleCloud, token: str, count: int) -> None:
        if count in revoked:  # it has come with a request, and is on its way in those that follow
            in_flight.append(cloud.tokens.revoke_all())

    with world(tmp_path, lifetime_s=lifetime_s, accounts=(ACCOUNT,), latency_ms=400, on_asked=revoke) as around:
        write_recording(tmp_path / "in" / "noise.wav", clips)
        impersonation = ("--bucket_service_account", account) if account else ()
        pace = ("--max_requests_per_minute", 600, "--timeout_s", 20)
        summary = succeed(
            *around.arguments(way, "--input", tmp_path / "in", *impersonation, *pace), **around.environment
        )
        assert (summary["clips"], summary["embedded"], summary["failed"]) == (clips, clips, 0)
        assert len(embeddings(tmp_path / "rows")) == clips
        requests = around.cloud.tokens.requests
        times = [arrival["t_s"] for arrival in around.arrivals]
        assert {token.account for token in around.arrived()} == {account or "user"}
        assert around.storage.names("staging") == []
    assert len(in_flight) == len(revoked)
    # The endpoint saw the revoked ones.
    if way == GRPC:
        assert summary["rejections"] >= len(revoked)
    else:
        assert summary["retries_by_code"]["NOT_RETRIEVED"] >= len(revoked)
    span_s = times[-1] - times[0]
    # The lifetimes of exchanged tokens come in whole seconds, rounded down.
    usable_s = (lifetime_s - 1) / 2
    # The check of the credentials, the probe and the run begin with a token each.
    allowed = 3 + span_s / usable_s + len(revoked)
    for kind in ("refresh", "exchange", "impersonate") if account else ("refresh", "exchange"):
        assert span_s / lifetime_s < requests[kind] <= allowed, (kind, requests, span_s)


@both_formats
def test_the_tokens_that_arrive_can_read_the_run_s_clips_and_nothing_else(way: tuple[str, str], tmp_path: Path) -> None:
    with world(tmp_path, accounts=(ACCOUNT,)) as around:
        around.storage.make_bucket("clinic")
        for name, clips in (("clip.wav", 1), ("longer.wav", 21)):
            write_recording(tmp_path / name, clips)
            around.storage.upload("clinic", f"study/{name}", (tmp_path / name).read_bytes())
        given = ("--input", "gs://clinic/study", "--bucket_service_account", ACCOUNT)
        summary = succeed(*around.arguments(way, *given), **around.environment)
        assert (summary["embedded"], summary["staged_clips"]) == (22, 21)
        arrived = around.arrived()
    folder = f"clips/hear-staged-{summary['run_id']}/"
    assert {(token.kind, token.account) for token in arrived} == {("exchange", ACCOUNT)}
    boundaries = [token.boundary for token in arrived]
    assert boundary("clinic") in boundaries
    assert all(found in (boundary("clinic"), boundary("staging", folder)) for found in boundaries)
    # One for each of the probe's and the run's own use of the staging folder, and one for the recordings' bucket.
    assert len(boundaries) == 3


@pytest.mark.parametrize("account", [None, ACCOUNT], ids=["own account", "impersonated"])
def test_full_scope_tokens_are_sent_only_when_asked_for(account: str | None, tmp_path: Path) -> None:
    with world(tmp_path, accounts=(ACCOUNT,)) as around:
        write_recording(tmp_path / "in" / "noise.wav", 20)
        impersonation = ("--bucket_service_account", account) if account else ()
        arguments = around.arguments(GRPC, "--input", tmp_path / "in", "--full_scope_tokens", *impersonation)
        done = run_command(*arguments, **around.environment)
        assert done.returncode == 0, done.stderr
        assert "note: with --full_scope_tokens, whoever sees a token" in done.stderr
        kind = "impersonate" if account else "refresh"
        assert {(token.kind, token.account) for token in around.arrived()} == {(kind, account or "user")}
        assert all(token.boundary is None for token in around.arrived())
        assert around.cloud.tokens.requests["exchange"] == 0


def _revoke(cloud: GoogleCloud, token: str) -> None:
    cloud.tokens.revoke(token)


def _narrow(cloud: GoogleCloud, token: str) -> None:
    for minted in cloud.tokens.of_kind("exchange"):
        if minted.value == token:
            minted.boundary = boundary("staging", "clips/another-run/")


def _expire(cloud: GoogleCloud, token: str) -> None:
    for minted in cloud.tokens.of_kind("exchange"):
        if minted.value == token:
            minted.expires_s = 0.0


@pytest.mark.parametrize(("way", "spoil"), [(GRPC, _revoke), (GRPC, _narrow), (GRPC, _expire), (REST, _narrow)])
def test_when_no_token_is_good_the_run_ends_with_the_remedy(
    way: tuple[str, str], spoil: Callable[[GoogleCloud, str], None], tmp_path: Path
) -> None:
    with world(tmp_path, on_asked=lambda cloud, token, _: spoil(cloud, token)) as around:
        write_recording(tmp_path / "in" / "noise.wav", 400)
        done = run_command(*around.arguments(way, "--input", tmp_path / "in"), timeout_s=60, **around.environment)
        assert around.storage.names("staging") == []
        sent = len(around.arrivals)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "storage.objects.get; --bucket_service_account" in line
    assert "Traceback" not in done.stderr
    assert sent <= 3
    assert not list(tmp_path.glob("rows-*.*"))


def test_credentials_that_are_lost_end_the_run_and_keep_what_was_embedded(tmp_path: Path) -> None:
    def sign_out(cloud: GoogleCloud, token: str, count: int) -> None:
        if count == 20:
            cloud.tokens.is_signed_in = False
            cloud.tokens.revoke_all()

    with world(tmp_path, on_asked=sign_out) as around:
        write_recording(tmp_path / "in" / "noise.wav", 400)
        arguments = around.arguments(GRPC, "--input", tmp_path / "in", "--requests_in_flight", 4)
        done = run_command(*arguments, timeout_s=60, **around.environment)
        assert around.storage.names("staging") == []
        answered = sum(len(arrival["clips"]) for arrival in around.arrivals) - 5
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "gcloud auth application-default login" in line
    files = (tmp_path / "rows-checkpoint").rglob("*.rows")
    stored = [row for path in files for _, row in read_all(path.read_bytes()) if isinstance(row, EmbeddingRow)]
    assert 0 < answered - 4 * 4 <= len(stored) <= answered


def test_a_token_service_in_trouble_is_waited_for(tmp_path: Path) -> None:
    def trouble(cloud: GoogleCloud, token: str, count: int) -> None:
        if count == 10:
            cloud.tokens.revoke_all()
            cloud.tokens.fail_next(2, 503)

    with world(tmp_path, on_asked=trouble) as around:
        write_recording(tmp_path / "in" / "noise.wav", 100)
        summary = succeed(*around.arguments(REST, "--input", tmp_path / "in"), **around.environment)
        failed = around.cloud.tokens.requests
    assert (summary["embedded"], summary["failed"]) == (100, 0)
    assert failed["refresh"] + failed["exchange"] <= 4 + 2 + 2


def test_missing_credentials_are_found_before_anything_is_sent(tmp_path: Path) -> None:
    with world(tmp_path) as around:
        write_recording(tmp_path / "in" / "noise.wav", 8)
        missing = {**around.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "nothing.json")}
        done = run_command(*around.arguments(GRPC, "--input", tmp_path / "in"), timeout_s=60, **missing)
        assert not (tmp_path / "arrivals").exists() or not around.arrivals
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "gcloud auth application-default login" in line
    assert "Traceback" not in done.stderr
