"""What would end a run later ends it at once: exit status 1, one line with the remedy, hardly a request, no failure rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from emulator.process import LocalEndpoint, start_local_endpoint
from rows.checkpoint import read_all
from rows.model import EmbeddingRow
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import Fault, storage_proxy
from tests.e2e.running import embeddings, run_command, summary_of

CLIPS = 40
RUN_OPTIONS = ("--output_format", "parquet")
GRPC_AND_REST = pytest.mark.parametrize("transport", ["grpc", "rest"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of `CLIPS` clips, the louder the later."""
    path = tmp_path_factory.mktemp("recordings")
    samples = np.random.default_rng(3).uniform(-0.5, 0.5, CLIPS * 32000) * np.linspace(0.01, 1, CLIPS * 32000)
    soundfile.write(path / "a.wav", samples, 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        running.make_bucket("staging")
        yield running


class Place(NamedTuple):
    """Where a run writes, and what it reads."""

    folder: Path
    prefix: Path

    @property
    def log(self) -> Path:
        return self.prefix.with_name("arrivals")

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        """All requests that have reached the endpoint."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def kept(self) -> list[EmbeddingRow]:
        """Embeddings in the checkpoint."""
        files = Path(f"{self.prefix}-checkpoint").rglob("*.rows")
        return [row for path in files for _, row in read_all(path.read_bytes()) if isinstance(row, EmbeddingRow)]


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Place:
    return Place(folder, tmp_path / "r")


def command(
    place: Place,
    local: LocalEndpoint,
    *arguments: object,
    endpoint: str | None = None,
    transport: str = "grpc",
    storage: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command against an endpoint that is there; with a storage server's address, it sends URIs."""
    options: list[object] = ["--input", place.folder, "--output", place.prefix, *RUN_OPTIONS]
    options += ["--endpoint_host", local.rest_host if transport == "rest" else local.host, "--transport", transport]
    environment = {}
    if storage is not None:
        options += ["--send", "uris", "--staging_location", "gs://staging/clips"]
        environment["STORAGE_EMULATOR_HOST"] = storage
    name = endpoint or (local.endpoint_name if storage is None else local.uri_endpoint)
    # Those given here come last, and so take the place of the same before them.
    return run_command(*options, "--endpoint", name, *arguments, **environment)


def assert_refused(done: subprocess.CompletedProcess[str], place: Place, *said: str, requests: range) -> None:
    """Exit status 1, one line of error that says all this, so many requests, and neither tables nor failure rows."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("python -m pipeline: error: ")
    for text in said:
        assert text in line
    assert len(place.arrivals) in requests
    assert place.kept == []
    assert not list(place.prefix.parent.glob("r-*.*"))


@GRPC_AND_REST
def test_clips_that_influence_each_other_are_found(place: Place, transport: str) -> None:
    with start_local_endpoint(arrivals_log=place.log, options=["--couple_batch_mates"]) as local:
        done = command(place, local, transport=transport)
    assert_refused(done, place, "--clips_per_request 1", "--no_probe", requests=range(2, 3))


def test_the_remedies_for_clips_that_influence_each_other_work(place: Place) -> None:
    with start_local_endpoint(arrivals_log=place.log, options=["--couple_batch_mates"]) as local:
        alone = command(place, local, "--clips_per_request", 1)
        assert alone.returncode == 0, alone.stderr
        sent_alone = embeddings(place.prefix)
        assert {arrival["instances"] for arrival in place.arrivals} == {1}
        unprobed = command(place, local, "--no_probe", "--fresh_checkpoint", "--overwrite")
        assert unprobed.returncode == 0, unprobed.stderr
        assert summary_of(place.prefix)["probe"] == {"requests": 0, "difference": None}
        together = embeddings(place.prefix)
    assert len(place.arrivals) == (1 + CLIPS) + CLIPS / 4
    assert together.keys() == sent_alone.keys()
    # --no_probe takes rows as they come: here, others.
    assert max(np.abs(row["embedding"] - together[k]["embedding"]).max() for k, row in sent_alone.items()) > 1e-3


def test_a_resumed_run_with_another_model_is_refused(place: Place) -> None:
    with start_local_endpoint(arrivals_log=place.log) as local:
        assert command(place, local).returncode == 0
        kept_rows = embeddings(place.prefix)
        (kept,) = Path(f"{place.prefix}-checkpoint").glob("*/probe.json")
        answer = json.loads(kept.read_text())
        # A little more than the rounding that is allowed for is another model's answer; a little less is not.
        for change, status in ((0.0009, 0), (0.0012, 1)):
            changed = [value + change if k == 300 else value for k, value in enumerate(answer["embedding"])]
            kept.write_text(json.dumps({**answer, "embedding": changed}))
            before = len(place.arrivals)
            done = command(place, local)
            assert done.returncode == status, done.stderr
        assert len(place.arrivals) == before + 2
    (line,) = done.stderr.splitlines()
    for text in (local.endpoint_name, f"{place.prefix}-checkpoint", "another --output", "--model_id"):
        assert text in line
    assert embeddings(place.prefix).keys() == kept_rows.keys()


RESEARCH, GARDEN = "research", "model_garden"


@pytest.mark.parametrize(
    ("send", "instance_format", "served", "transport"),
    [
        ("audio", RESEARCH, "uri_endpoint", "grpc"),
        ("audio", RESEARCH, "garden_endpoint", "rest"),
        ("uris", RESEARCH, "endpoint_name", "rest"),
        ("uris", RESEARCH, "garden_endpoint", "grpc"),
        ("audio", GARDEN, "endpoint_name", "grpc"),
        ("audio", GARDEN, "uri_endpoint", "rest"),
        ("uris", GARDEN, "endpoint_name", "grpc"),
        ("uris", GARDEN, "uri_endpoint", "rest"),
    ],
)
def test_an_endpoint_for_another_format_is_named(
    place: Place, storage: StorageServer, send: str, instance_format: str, served: str, transport: str
) -> None:
    with start_local_endpoint(arrivals_log=place.log, options=[f"--storage_host={storage.address}"]) as local:
        name = getattr(local, served)
        done = command(
            *(place, local, "--instance_format", instance_format),
            endpoint=name,
            transport=transport,
            storage=storage.address if send == "uris" else None,
        )
    assert_refused(done, place, name, "--instance_format", requests=range(1, 4))
    assert storage.names("staging") == []


@pytest.mark.parametrize(
    ("wrong", "transport", "probe"),
    [
        ("name", "grpc", ()),
        ("name", "rest", ("--no_probe",)),
        ("permission", "rest", ()),
        ("permission", "grpc", ("--no_probe",)),
    ],
)
def test_a_wrong_endpoint_and_a_missing_permission_are_told_at_once(
    place: Place, wrong: str, transport: str, probe: tuple[str, ...]
) -> None:
    faults = ["--faults=deny_after=0"] if wrong == "permission" else []
    with start_local_endpoint(arrivals_log=place.log, options=faults) as local:
        name = "projects/p/locations/l/endpoints/404" if wrong == "name" else local.endpoint_name
        done = command(place, local, *probe, endpoint=name, transport=transport)
    said = ("aiplatform.endpoints.predict", "PERMISSION_DENIED") if wrong == "permission" else ("does not exist",)
    assert_refused(done, place, name, *said, requests=range(1, 2))


@pytest.mark.parametrize(
    ("bucket", "fault", "said"),
    [
        ("no-such-bucket", None, "there is no such bucket"),
        ("staging", r"^POST /upload/", "storage.objects.create"),
        ("staging", r"^DELETE ", "storage.objects.delete"),
    ],
)
def test_a_staging_bucket_that_cannot_be_used_is_told_before_any_request(
    place: Place, storage: StorageServer, bucket: str, fault: str | None, said: str
) -> None:
    with storage_proxy(storage.address) as proxy, start_local_endpoint(arrivals_log=place.log) as local:
        if fault is not None:
            proxy.add(Fault(fault, 403))
        done = command(place, local, "--staging_location", f"gs://{bucket}/clips", storage=proxy.address)
        proxy.clear()
    try:
        assert "PLANTED" not in done.stderr
        # What could not be removed is named, in a line of its own.
        *notes, refusal = done.stderr.splitlines()
        assert len(notes) == len(storage.names("staging"))
        assert f"gs://{bucket}" in refusal
        assert said in refusal
        assert place.arrivals == []
        assert done.returncode == 1
    finally:
        left = storage.names("staging")
        for name in left:
            storage.delete("staging", name)


@pytest.mark.parametrize("more", [(), ("--send", "uris", "--staging_location", "gs://staging/clips")])
def test_missing_credentials_are_told_with_the_documented_remedy(
    place: Place, tmp_path: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    arguments = ("--endpoint", "research", "--input", place.folder, "--output", place.prefix, *more)
    done = run_command(*arguments, HOME=str(home), CLOUDSDK_CONFIG=str(home), NO_GCE_CHECK="true", PATH="")
    assert_refused(done, place, "gcloud auth application-default login", requests=range(1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--send", "uris"), "--staging_location"),
        (("--endpoint", "research", "--instance_format", "model_garden"), "--instance_format"),
        (("--keep_staged",), "--send uris"),
    ],
)
def test_wrong_usage_is_exit_status_2(place: Place, options: tuple[str, ...], said: str) -> None:
    done = run_command("--endpoint", "local", "--input", place.folder, "--output", place.prefix, *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert list(place.prefix.parent.iterdir()) == []


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_answers_that_were_under_way_when_permission_is_lost_are_kept(place: Place, transport: str) -> None:
    """The denial comes at once, and the answers to what was sent before it only then."""
    answered = 12
    with start_local_endpoint(300, place.log, options=[f"--faults=deny_after={1 + answered}"]) as local:
        done = command(place, local, "--clips_per_request", 1, transport=transport)
    assert done.returncode == 1
    assert "aiplatform.endpoints.predict" in done.stderr
    accepted = [arrival for arrival in place.arrivals[1:] if arrival["status"] == "OK"]
    assert len(accepted) == answered
    assert len(place.kept) == answered


@pytest.mark.parametrize(("transport", "sends_uris"), [("grpc", False), ("rest", True)])
def test_when_permission_is_lost_what_was_embedded_is_kept_and_nothing_staged(
    place: Place, storage: StorageServer, transport: str, sends_uris: bool
) -> None:
    answered = 6
    faults = [f"--faults=deny_after={2 + answered}", f"--storage_host={storage.address}"]
    with start_local_endpoint(arrivals_log=place.log, options=faults) as local:
        one_by_one = ("--requests_in_flight", 1, "--clips_per_request", 4)
        address = storage.address if sends_uris else None
        done = command(place, local, *one_by_one, transport=transport, storage=address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "aiplatform.endpoints.predict" in line
    # With URIs it may be the bucket that is denied: it is asked once more, with new tokens.
    assert [arrival["fault"] for arrival in place.arrivals[2 + answered :]] == ["deny"] * (2 if sends_uris else 1)
    assert sorted(row.clip_index for row in place.kept) == list(range(4 * answered))
    assert not list(place.prefix.parent.glob("r-*.*"))
    assert storage.names("staging") == []
