"""What is looked at before a run, and what earlier runs left staged: with a real storage server and a real endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audio import fetch
from emulator.process import LocalEndpoint, start_local_endpoint
from endpoint.errors import RunEnded
from endpoint.request_budget import SharedBudget
from endpoint.settings import EndpointSettings
from pipeline.options import parse
from pipeline.preflight import check, nothing_left_staged, remove_staged, staged_in
from pipeline.resuming import Earlier, find_earlier
from pipeline.settings import RunSettings
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import Fault, StorageProxy, storage_proxy
from tests.pipeline.commands import settings
from transforms.staging import StagingError

BUCKET = "staging"
LISTING = "^GET .*/o[?]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture(scope="module")
def local(server: StorageServer) -> Iterator[LocalEndpoint]:
    with start_local_endpoint(options=[f"--storage_host={server.address}"]) as running:
        yield running


@pytest.fixture
def proxy(server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageProxy]:
    """The server as this process's storage client reaches it."""
    with storage_proxy(server.address) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.address)
        monkeypatch.setattr(fetch, "_client", None)
        yield running
        if fetch._client is not None:
            fetch._client.close()
    for name in server.names(BUCKET):
        server.delete(BUCKET, name)


def sending_uris(tmp_path: Path, local: LocalEndpoint) -> tuple[RunSettings, EndpointSettings]:
    where = {"endpoint": local.uri_endpoint, "endpoint_host": local.host}
    run = settings(tmp_path, send="uris", staging_location=f"gs://{BUCKET}/a", **where)
    return run, run.endpoint_settings(local.uri_endpoint, local.host)


def earlier(run: RunSettings, server: StorageServer, name: str, bucket: str = BUCKET, **facts: Any) -> str:
    """Makes it look as if a run of the same checkpoint had left a clip; the object's name."""
    folder = Path(run.checkpoint) / name
    folder.mkdir(parents=True)
    run_uri = f"gs://{bucket}/a/hear-staged-{name}/"
    (folder / "run.json").write_text(json.dumps({"run_id": name, "staged": run_uri, "keep_staged": False, **facts}))
    left = f"a/hear-staged-{name}/0.wav"
    server.upload(BUCKET, left, b"x")
    return left


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("note: ") for line in lines)
    return lines


def test_what_is_staged_to_look_around_is_removed_and_nothing_is_noted(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, server: StorageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run, endpoint = sending_uris(tmp_path, local)
    found = check(run, endpoint, find_earlier(run))
    assert (found["requests"], found["difference"]) == (2, 0.0)
    assert proxy.count("^POST /upload/") == proxy.count("^DELETE ") == 1 + 4
    assert server.names(BUCKET) == []
    assert notes(capsys) == []


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"versioning": {"enabled": True}}, "object versioning"),
        ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, "soft delete keeps them for 7 days"),
        ({"retentionPolicy": {"retentionPeriod": "3600"}}, "retention policy"),
    ],
)
def test_a_bucket_that_keeps_what_is_deleted_is_warned_of(
    metadata: dict[str, Any],
    said: str,
    tmp_path: Path,
    local: LocalEndpoint,
    proxy: StorageProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.add(Fault(rf"^GET /storage/v1/b/{BUCKET}\?", 200, {"kind": "storage#bucket", "name": BUCKET, **metadata}))
    run, endpoint = sending_uris(tmp_path, local)
    check(run, endpoint, find_earlier(run))
    (note,) = notes(capsys)
    assert said in note
    assert f"gs://{BUCKET}" in note


def test_other_runs_folders_are_named_and_left_alone(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, server: StorageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.upload(BUCKET, "a/hear-staged-other/0.wav", b"x")
    run, endpoint = sending_uris(tmp_path, local)
    with nothing_left_staged(run, find_earlier(run)):
        check(run, endpoint, find_earlier(run))
    (note,) = notes(capsys)
    assert f"gs://{BUCKET}/a/hear-staged-other/" in note
    assert server.names(BUCKET) == ["a/hear-staged-other/0.wav"]


def test_a_run_that_may_not_list_runs_all_the_same(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.add(Fault(LISTING, 403))
    run, endpoint = sending_uris(tmp_path, local)
    assert check(run, endpoint, find_earlier(run))["requests"] == 2
    assert notes(capsys) == []


@pytest.mark.parametrize("line", ["^POST /upload/", "^DELETE "])
def test_without_a_right_nothing_runs(line: str, tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy) -> None:
    proxy.add(Fault(line, 403))
    with pytest.raises(StagingError, match=r"HTTP 403.*grant storage\.objects\.(create|delete)") as refused:
        check(*sending_uris(tmp_path, local), Earlier({}))
    assert "PLANTED" not in str(refused.value)
    assert proxy.count("^POST /upload/") == 1


@pytest.mark.parametrize("send", ["uris", "audio"])
def test_earlier_runs_of_the_checkpoint_are_swept_whatever_is_sent_now(
    send: str,
    tmp_path: Path,
    local: LocalEndpoint,
    proxy: StorageProxy,
    server: StorageServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = sending_uris(tmp_path, local)[0] if send == "uris" else settings(tmp_path)
    for name in ("one", "two"):
        earlier(run, server, name)
    kept = earlier(run, server, "three", keep_staged=True)
    elsewhere = "a/hear-staged-of-another-checkpoint/0.wav"
    server.upload(BUCKET, elsewhere, b"x")
    # What is no run's folder, or is not readable, is left alone.
    earlier(run, server, "four", staged=f"gs://{BUCKET}/a/")
    earlier(run, server, "five", staged=["x"])
    for name in ("one", "four", "five"):
        server.upload(BUCKET, f"a/hear-staged-{name}/1.wav", b"x")
    with nothing_left_staged(run, find_earlier(run)):
        left = server.names(BUCKET)
        if folder := staged_in(run):
            server.upload(BUCKET, f"{folder.removeprefix(f'gs://{BUCKET}/')}0.wav", b"x")
    assert left == sorted(
        [kept, elsewhere, *(f"a/hear-staged-{name}/{number}.wav" for name in ("four", "five") for number in (0, 1))]
    )
    assert server.names(BUCKET) == left  # and what the run itself left is gone
    (note,) = notes(capsys)
    assert f"gs://{BUCKET}/a/" in note


def test_what_the_run_is_to_keep_is_kept(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, server: StorageServer
) -> None:
    sends = {"send": "uris", "staging_location": f"gs://{BUCKET}/a", "endpoint": local.uri_endpoint}
    given = [f"--{name}={value}" for name, value in sends.items()]
    arguments = ["--input", str(tmp_path), "--output", str(tmp_path / "r"), f"--endpoint_host={local.host}"]
    run = parse([*arguments, *given, "--keep_staged"]).run
    assert run.staging is not None
    name = f"{run.staging.run_prefix}0.wav"
    server.upload(BUCKET, name, b"x")
    with nothing_left_staged(run, find_earlier(run)):
        pass
    assert staged_in(run) is None
    assert server.names(BUCKET) == [name]
    assert proxy.lines == []


def test_what_cannot_be_deleted_is_counted_by_folder(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, server: StorageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = sending_uris(tmp_path, local)
    folder = staged_in(run)
    assert folder is not None
    for number in range(3):
        server.upload(BUCKET, f"{folder.removeprefix(f'gs://{BUCKET}/')}{number}.wav", b"x")
    proxy.add(Fault("^DELETE ", 403))
    remove_staged(run)
    (note,) = notes(capsys)
    assert note.startswith("note: 3 staged clips could not be deleted")
    assert folder in note
    proxy.clear()
    remove_staged(run)
    assert notes(capsys) == []
    assert server.names(BUCKET) == []


def test_a_bucket_that_cannot_be_listed_is_asked_once_for_all_earlier_runs(
    tmp_path: Path, local: LocalEndpoint, proxy: StorageProxy, server: StorageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings(tmp_path)
    for number in range(5):
        earlier(run, server, f"r{number}")
    earlier(run, server, "r5", bucket="no-such-bucket")
    proxy.add(Fault(LISTING, 403, chooses=lambda line: f"/b/{BUCKET}/" in line))
    with nothing_left_staged(run, find_earlier(run)):
        pass
    assert proxy.count(LISTING) == 2  # one for each bucket
    said = notes(capsys)
    assert len(said) == 5  # a bucket that is gone has nothing left
    for number, note in enumerate(said):
        assert f"gs://{BUCKET}/a/hear-staged-r{number}/" in note


def sending_audio(
    tmp_path: Path, local: LocalEndpoint, max_requests: int, **changes: str
) -> tuple[RunSettings, EndpointSettings]:
    run = settings(tmp_path, endpoint=local.endpoint_name, endpoint_host=local.host, **changes)
    endpoint = run.endpoint_settings(local.endpoint_name, local.host)
    return run, replace(endpoint, max_requests=max_requests, run_id=run.run_id)


def test_the_probe_draws_from_the_runs_budget(tmp_path: Path, local: LocalEndpoint) -> None:
    run, endpoint = sending_audio(tmp_path, local, 5)
    assert check(run, endpoint, find_earlier(run))["requests"] == 2
    assert SharedBudget.of(endpoint).left() == 3


def test_without_a_probe_the_whole_budget_is_the_runs(tmp_path: Path, local: LocalEndpoint) -> None:
    run, endpoint = sending_audio(tmp_path, local, 5)
    assert check(replace(run, probe=False), endpoint, Earlier({}))["requests"] == 0
    assert SharedBudget.of(endpoint).left() == 5


def test_a_budget_that_is_too_small_for_the_probe_is_named(tmp_path: Path, local: LocalEndpoint) -> None:
    run, endpoint = sending_audio(tmp_path, local, 1)
    with pytest.raises(RunEnded, match=r"--max_requests 1 is too small for the probe's requests \(2"):
        check(run, endpoint, find_earlier(run))
