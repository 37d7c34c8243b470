"""Places on Cloud Storage that are not there, or not to be used: one line that names the option, before anything is sent."""

import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from audio import fetch
from emulator.process import LocalEndpoint, start_local_endpoint
from pipeline.command import DONE, FAILED, WRONG_USAGE, main
from rows import objects
from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.storage import proxied_storage
from tests.pipeline.commands import whole
from tests.transforms.samples import write_wav

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
PROOF = r"[0-9a-f]{32}\.tmp"


class World(NamedTuple):
    storage: StorageServer
    proxy: FaultProxy
    local: LocalEndpoint
    arrivals: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "storage").mkdir()
    with proxied_storage(folder / "storage") as (storage, proxy):
        for bucket in ("clinic", "results"):
            storage.make_bucket(bucket)
        write_wav(folder / "a.wav", 1.0)
        storage.upload("clinic", "a.wav", (folder / "a.wav").read_bytes())
        storage.upload("clinic", "labels.csv", b"uri\na.wav\n")
        arrivals = folder / "arrivals"
        with start_local_endpoint(0, arrivals, options=[f"--storage_host={storage.address}"]) as local:
            yield World(storage, proxy, local, arrivals)


@pytest.fixture
def world(running: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    running.proxy.clear()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.storage.address)
    monkeypatch.setattr(fetch, "_client", None)
    yield running
    running.proxy.clear()
    for name in running.storage.names("results"):
        running.storage.delete("results", name)
    if fetch._client is not None:
        fetch._client.close()
    gc.collect()


def arguments(world: World, tmp_path: Path, option: str, place: str) -> list[str]:
    """A command line with one place on Cloud Storage."""
    given: dict[str, str | None] = {"endpoint": world.local.endpoint_name, "endpoint_host": world.local.host}
    given[option] = place
    if option == "manifest":
        given["input"] = None
    if option == "staging_location":
        given |= {"send": "uris", "endpoint": world.local.uri_endpoint}
    return whole(tmp_path, **given)


def said(capsys: pytest.CaptureFixture[str], status: int, *statuses: int) -> str:
    """The one line that the command says."""
    assert status in statuses
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert "injected" not in lines[0]
    return lines[0]


PLACES = [
    ("input", "gs://none-such/in"),
    ("manifest", "gs://none-such/labels.csv"),
    ("output", "gs://none-such/out/r"),
    ("checkpoint", "gs://none-such/ck"),
    ("staging_location", "gs://none-such/st"),
]


@pytest.mark.parametrize(("option", "place"), PLACES)
def test_a_bucket_that_is_not_there(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, place: str
) -> None:
    line = said(capsys, main(arguments(world, tmp_path, option, place)), WRONG_USAGE, FAILED)
    assert f"--{option} is {place!r}: " in line
    assert re.search("there is no (such )?(bucket|object, or no such bucket)", line)
    assert not world.arrivals.exists() or not world.arrivals.read_text()


REFUSED = [
    ("input", "gs://clinic/", "GET /storage/v1/b/clinic", "storage.objects.list"),
    ("manifest", "gs://clinic/labels.csv", "GET .*labels.csv", "storage.objects.get"),
    ("output", "gs://results/out/r", "GET /storage/v1/b/results/o[?]", "storage.objects.list"),
    ("output", "gs://results/out/r", "POST /upload/storage/v1/b/results", "storage.objects.create"),
    ("output", "gs://results/out/r", "rewriteTo", "storage.objects.create, get, list"),
    ("output", "gs://results/out/r", "DELETE ", "delete"),
    ("checkpoint", "gs://results/ck", "GET /storage/v1/b/results/o[?]", "storage.objects.list"),
    ("checkpoint", "gs://results/ck", "POST /upload/storage/v1/b/results", "storage.objects.create"),
    ("staging_location", "gs://results/st", "POST /upload/storage/v1/b/results", "storage.objects.create"),
]


@pytest.mark.parametrize(("option", "place", "match", "right"), REFUSED)
def test_a_place_that_may_not_be_used(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, place: str, match: str, right: str
) -> None:
    refused = world.proxy.inject(match, status=403, times=-1)
    line = said(capsys, main(arguments(world, tmp_path, option, place)), WRONG_USAGE, FAILED)
    assert refused.hits
    assert f"--{option} is {place!r}: " in line
    assert "HTTP 403" in line
    assert f"grant {right}" in line or (right == "delete" and "and delete on" in line)
    assert not world.arrivals.exists() or not world.arrivals.read_text()


def test_a_storage_that_fails_for_too_long(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = fetch.retry_policy
    monkeypatch.setattr(objects, "retry_policy", lambda _seconds, _pause_s: policy(0.2, 0.05))
    world.proxy.inject("/b/results/", status=503, times=-1)
    place = "gs://results/out/r"
    line = said(capsys, main(arguments(world, tmp_path, "output", place)), FAILED)
    assert f"--output is {place!r}: listing 'gs://results/out/r' failed (HTTP 503, again and again): try again" in line


def test_a_bucket_whose_readers_pay(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.proxy.inject("/b/clinic/", status=400, reason="required", times=-1)
    line = said(capsys, main(arguments(world, tmp_path, "input", "gs://clinic/")), WRONG_USAGE)
    assert "--input is 'gs://clinic/': its bucket has whoever reads pay for it" in line


@pytest.mark.parametrize(("option", "place"), PLACES)
def test_without_credentials_it_is_said_at_once_what_to_do(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    place: str,
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    line = said(capsys, main(arguments(world, tmp_path, option, place)), FAILED)
    assert f"--{option} is {place!r}: No usable Google credentials were found; sign in with `gcloud auth" in line
    assert world.proxy.requests == []


def test_a_plan_reads_and_nothing_else(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.storage.upload("results", "out/r-00000-of-00001.tfrecord", b"of an earlier run")
    places = {"input": "gs://clinic", "output": "gs://results/out/r"}
    given = whole(tmp_path, endpoint=world.local.endpoint_name, endpoint_host=world.local.host, **places)
    world.proxy.clear()
    assert main([*given, "--plan", "--overwrite"]) == DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["recordings"], told["first"], told["ignored_files"]) == (1, "gs://clinic/a.wav", 1)
    assert told["output"] == "gs://results/out/r-*.tfrecord"
    assert all(line.startswith("GET ") for line in world.proxy.requests)
    line = said(capsys, main([*given, "--plan"]), WRONG_USAGE)
    assert "--output 'gs://results/out/r' exists (gs://results/out/r-00000-of-00001.tfrecord)" in line
    assert not world.arrivals.exists() or not world.arrivals.read_text()
