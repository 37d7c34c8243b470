"""Everything on Cloud Storage, which fails, loses answers, is slow, or ends with the run: the rows are those of an undisturbed run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.recordings import write_recordings
from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import Fault, FaultProxy
from tests.cloud.storage import proxied_storage
from tests.e2e.running import assert_same_rows, embeddings, failures, recordings, start_command, summary_of

PREFIX, CHECKPOINT, STAGING = "gs://results/a study #1/r", "gs://state/ck", "gs://staging/clips"
OUTPUTS = {
    "r-00000-of-00001.parquet",
    "r-recordings-00000-of-00001.parquet",
    "r-failures-00000-of-00001.jsonl",
    "r-summary.json",
}
WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@dataclass
class World:
    storage: StorageServer
    proxy: FaultProxy
    local: LocalEndpoint
    arrivals: Path
    folder: Path

    def command(self, *more: object, prefix: object = PREFIX, checkpoint: object = CHECKPOINT) -> list[str]:
        """Everything on Cloud Storage, unless it is said otherwise."""
        where = ("--endpoint", self.local.uri_endpoint, "--endpoint_host", self.local.host, "--send", "uris")
        places = ("--staging_location", STAGING, "--output", prefix, "--checkpoint", checkpoint)
        return list(map(str, (*where, *places, "--output_format", "parquet", *more)))

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        return start_command(*command, STORAGE_EMULATOR_HOST=self.storage.address)

    def succeed(self, command: list[str]) -> None:
        process = self.start(command)
        try:
            said = process.communicate(timeout=280)[1]
        finally:
            process.kill()
        assert process.returncode == 0, said
        assert "Traceback" not in said

    def fetched(self, to: Path, prefix: str = PREFIX) -> Path:
        """The prefix, in a folder on disk, of what the run wrote under `prefix`."""
        bucket, _, name = prefix.removeprefix("gs://").partition("/")
        for found in self.storage.names(bucket, f"{name}-"):
            to.mkdir(exist_ok=True)
            (to / f"r{found.removeprefix(name)}").write_bytes(self.storage.content(bucket, found)[0])
        return to / "r"

    def left(self, bucket: str) -> set[str]:
        """What is in the bucket, without the folder of outputs."""
        return {name.removeprefix("a study #1/") for name in self.storage.names(bucket)}

    def requests(self) -> int:
        """How many have arrived at the endpoint."""
        return len(self.arrivals.read_text().splitlines())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "storage").mkdir()
    with proxied_storage(folder / "storage") as (storage, proxy):
        for bucket in ("clinic", "results", "state", "staging"):
            storage.make_bucket(bucket)
        write_recordings(folder / "in")
        samples = np.random.default_rng(1).uniform(-0.5, 0.5, (13 * 44100, 2))
        soundfile.write(folder / "in" / "large.wav", samples, 44100, subtype="DOUBLE")  # 9 MB: read by ranges
        for path in sorted((folder / "in").iterdir()):
            storage.upload("clinic", f"in/{path.name}", path.read_bytes())
        # The endpoint reads what is staged directly.
        direct = f"--storage_host=http://{proxy.upstream[0]}:{proxy.upstream[1]}"
        with start_local_endpoint(0, folder / "arrivals", options=[direct]) as local:
            yield World(storage, proxy, local, folder / "arrivals", folder)


@pytest.fixture
def clean(world: World) -> Iterator[World]:
    """The world, in which no run has been."""
    world.proxy.clear()
    for bucket in ("results", "state", "staging"):
        for name in world.storage.names(bucket):
            world.storage.delete(bucket, name)
    yield world
    world.proxy.clear()


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Path:
    """The prefix of the tables of a run whose output and checkpoint are on disk."""
    prefix = world.folder / "undisturbed" / "r"
    command = world.command("--input", "gs://clinic/in", prefix=prefix, checkpoint=world.folder / "ck")
    world.succeed(command)
    return prefix


def assert_same_tables(one: Path, other: Path) -> None:
    assert_same_rows(embeddings(one), embeddings(other))
    assert recordings(one) == recordings(other)

    def told(prefix: Path) -> list[dict[str, Any]]:
        return sorted(failures(prefix), key=json.dumps)

    assert told(one) == told(other)


LOST = {"after": True, "drop": True}
SHARD = "%2F[0-9a-f]{32}"
"""The end of a shard's name before it has its own; that of the object that proves rights is another."""
NEW_RESULT = "POST /upload/storage/v1/b/results/"
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("GET /storage/v1/b/clinic/o[?].*prefix=", {"status": 503}),
    ("GET /storage/v1/b/clinic/o[?].*prefix=", {"cut": True}),
    ("GET /storage/v1/b/clinic/o/in[?]", {"status": 429, "retry_after": "1"}),
    ("GET /download/.*/clinic/o/in%2Fsynthetic.*alt=media", {"drop": True, "times": 2}),
    ("GET /download/.*/clinic/o/in%2Fsynthetic.*alt=media", {"cut": True, "times": 2}),
    ("GET /download/.*/clinic/o/in%2Flarge.*alt=media", {"cut": True}),
    ("GET /download/.*/clinic/o/in%2Flarge.*alt=media", {"status": 503}),
    ("GET /storage/v1/b/state/o[?]", {"status": 429}),
    ("GET /storage/v1/b/state/o[?]", {"drop": True}),
    ("POST /upload/storage/v1/b/state/", {**LOST, "times": 8, "chance": 0.5}),
    ("GET /download/.*/state/o/ck.*[.]rows", {"cut": True}),
    ("GET /download/.*/state/o/ck.*[.]rows", {"status": 503}),
    ("DELETE .*/state/o/ck%2Flease.json", LOST),
    ("POST /upload/storage/v1/b/staging/", {"status": 429, "times": 5, "chance": 0.2}),
    ("POST /upload/storage/v1/b/staging/", {**LOST, "times": 5, "chance": 0.2}),
    ("DELETE .*/staging/", {"status": 503, "times": 5, "chance": 0.2}),
    ("DELETE .*/staging/", {**LOST, "times": 5, "chance": 0.2}),
    ("GET /storage/v1/b/staging", {"drop": True}),
    ("GET /storage/v1/b/results/o[?]", {"delay_s": 1.0, "status": 503}),
    (NEW_RESULT, {"status": 503}),
    (f"{SHARD}/rewriteTo/b/results/", {**LOST, "times": 2}),
    (f"{SHARD}/rewriteTo/b/results/", {"status": 429}),
    (f"DELETE .*/results/.*{SHARD}", {**LOST, "times": 2}),
    ("GET /storage/v1/b/results/o/.*summary", {"drop": True}),
]


def test_whatever_fails_once_or_loses_its_answers_the_rows_are_the_same_and_nothing_else_is_left(
    clean: World, undisturbed: Path, tmp_path: Path
) -> None:
    faults = {(match, str(fault)): clean.proxy.inject(match, **fault) for match, fault in FAULTS}
    later: list[Fault] = []

    def lose_what_is_written_next() -> None:
        later.append(clean.proxy.inject(NEW_RESULT, **LOST))

    # Their names are not in the requests that upload them: a shard comes after the proof of rights, the summary after a look at it.
    clean.proxy.inject("DELETE .*/results/.*[.]tmp", call=lose_what_is_written_next)
    clean.proxy.inject("GET /storage/v1/b/results/o/.*summary", call=lose_what_is_written_next)
    clean.succeed(clean.command("--input", "gs://clinic/in", *WORKERS))
    assert not [key for key, fault in faults.items() if not fault.hits]
    assert [fault.hits for fault in later] == [1, 1]
    # The lease was written, and its answer lost.
    assert any(re.search("GET .*/state/o/ck%2Flease.json", line) for line in clean.proxy.requests)
    clean.proxy.clear()
    found = clean.fetched(tmp_path / "found")
    assert_same_tables(found, undisturbed)
    written = {name.rpartition("/")[2] for name in summary_of(found)["files"]}
    assert clean.left("results") == {*written, "r-summary.json"}
    assert len(written) > len(OUTPUTS) - 1, "each worker has written a shard"
    assert clean.left("staging") == set()
    (run,) = {name.split("/")[1] for name in clean.left("state")}
    assert all(re.fullmatch(rf"ck/{run}/(run.json|probe.json|.*/.*\.rows)", name) for name in clean.left("state"))

    # A manifest that names the same recordings, on the same checkpoint: nothing is sent but the probe.
    names = [path.name for path in sorted((clean.folder / "in").iterdir())]
    clean.storage.upload("clinic", "labels.csv", "\n".join(["uri", *(f"in/{name}" for name in names)]).encode())
    requests = clean.requests()
    more: list[tuple[str, dict[str, Any]]] = [
        ("GET /storage/v1/b/clinic/o/labels.csv", {"status": 429, "retry_after": "1"}),
        ("GET /download/.*/clinic/o/labels.csv", {"cut": True}),
        ("GET /download/.*/clinic/o/labels.csv", {"drop": True}),
        ("GET /storage/v1/b/clinic/o/in%2F", {"drop": True, "times": 3}),
        ("GET /download/.*/state/o/ck.*[.]json", {"status": 503}),
        ("GET /download/.*/state/o/ck.*[.]rows", {"drop": True, "times": 2}),
        (f"{SHARD}/rewriteTo/b/results/", {"drop": True, "times": 2}),
    ]
    faults = {(match, str(fault)): clean.proxy.inject(match, **fault) for match, fault in more}
    clean.succeed(clean.command("--manifest", "gs://clinic/labels.csv"))
    assert not [key for key, fault in faults.items() if not fault.hits]
    clean.proxy.clear()
    clean.storage.delete("clinic", "labels.csv")
    assert clean.requests() == requests + 2
    found = clean.fetched(tmp_path / "again")
    summary = summary_of(found)
    assert summary["reused"] == summary["embedded"] == len(embeddings(undisturbed))
    assert_same_rows(
        {
            clip: {k: row[k] for k in row if k not in ("manifest_row", "metadata")}
            for clip, row in embeddings(found).items()
        },
        embeddings(undisturbed),
    )
    assert clean.left("results") == OUTPUTS
    assert clean.left("staging") == set()


def test_a_run_that_is_killed_while_it_writes_its_tables_ends_the_same_when_it_is_run_again(
    clean: World, undisturbed: Path, tmp_path: Path
) -> None:
    command = clean.command("--input", "gs://clinic/in")
    running: list[subprocess.Popen[str]] = []

    def kill() -> None:
        running[-1].send_signal(signal.SIGKILL)
        running[-1].wait()

    def second(hit: list[None]) -> Callable[[], None]:
        """Lets the first request pass, that of the proof that the output may be written."""
        return lambda: kill() if hit.append(None) or len(hit) == 2 else None  # type: ignore[func-returns-value]

    moments: list[dict[str, Any]] = [
        {"match": NEW_RESULT, "times": -1, "call": second([])},
        {"match": f"{SHARD}/rewriteTo", "call": kill},
        {"match": f"{SHARD}/rewriteTo", "call": kill, "after": True},
        {"match": f"DELETE .*{SHARD}", "call": kill},
        {"match": f"DELETE .*/results/.*recordings.*{SHARD}", "call": kill, "after": True},
        {"match": "GET .*r-summary.json", "call": kill},
    ]
    for moment in moments:
        fault: Fault = clean.proxy.inject(**moment)
        running.append(clean.start(command))
        running[-1].communicate(timeout=120)
        assert running[-1].returncode == -signal.SIGKILL
        assert fault.hits
        clean.proxy.clear()
    hidden = {name for name in clean.left("results") if name.startswith(".r-")}
    assert len({name.split("/")[0] for name in hidden}) >= 3, "killed runs have left unfinished shards"
    requests = clean.requests()
    clean.succeed(command)
    assert clean.requests() == requests + 2, "all was stored when the first was killed"
    assert_same_tables(clean.fetched(tmp_path / "found"), undisturbed)
    assert clean.left("results") == OUTPUTS
    assert clean.left("staging") == set()
    assert not {name for name in clean.left("state") if "lease" in name}
    # More shards than the next run writes, which are of the same checkpoint, go; --delete_checkpoint leaves nothing.
    clean.storage.upload("results", "a study #1/r-00001-of-00002.parquet", b"of an earlier run")
    clean.storage.upload("state", "ck/notes.txt", b"the user's own")
    clean.succeed([*command, "--delete_checkpoint"])
    assert clean.left("results") == OUTPUTS
    assert clean.left("state") == {"ck/notes.txt"}
    # Without the checkpoint they are somebody's.
    refused = clean.start(command)
    assert "--output 'gs://results/a study #1/r' exists" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 2


def test_objects_that_cannot_be_read_are_failures_of_their_recordings_and_the_run_goes_on(
    clean: World, undisturbed: Path, tmp_path: Path
) -> None:
    names = ("changed", "forbidden", "gone", "kept", "large-changed", "mine", "pays")
    small = (clean.folder / "in" / "synthetic-cough-01.wav").read_bytes()
    large = (clean.folder / "in" / "large.wav").read_bytes()
    for name in names:
        clean.storage.upload("clinic", f"some/{name}.wav", large if name.startswith("large") else small)

    def reading(name: str) -> str:
        return f"GET /download/.*/some%2F{name}.wav"

    def replace(name: str, data: bytes) -> Callable[[], str]:
        return lambda: clean.storage.upload("clinic", f"some/{name}.wav", data)

    faults = [
        clean.proxy.inject(reading("changed"), call=replace("changed", small + b"\0\0")),
        clean.proxy.inject(reading("forbidden"), status=403, times=-1),
        clean.proxy.inject(reading("gone"), call=lambda: clean.storage.delete("clinic", "some/gone.wav")),
        clean.proxy.inject(reading("large-changed"), after=True, call=replace("large-changed", large + b"\0\0")),
        clean.proxy.inject("/some%2Fpays.wav", status=400, reason="required", times=-1),
    ]
    clean.succeed(clean.command("--input", "gs://clinic/some"))
    assert all(fault.hits for fault in faults)
    clean.proxy.clear()
    found = clean.fetched(tmp_path / "found")
    told = {row["recording_uri"].removeprefix("gs://clinic/some/").removesuffix(".wav"): row for row in failures(found)}
    assert {name: (row["stage"], row["code"], row["retryable"]) for name, row in told.items()} == {
        "changed": ("fetch", "changed_file", False),
        "forbidden": ("fetch", "permission_denied", True),
        "gone": ("fetch", "missing_file", False),
        "large-changed": ("fetch", "changed_file", False),
        "pays": ("fetch", "permission_denied", True),
    }
    assert "grant storage.objects.get on its bucket" in told["forbidden"]["message"]
    assert "requester pays" in told["pays"]["message"]
    assert "injected" not in str(told)
    assert {row["status"] for row in recordings(found).values()} == {"embedded", "failed"}
    assert summary_of(found)["recordings_by_status"]["embedded"] == 2
    # What changed has another version now, and what was refused may be read: all are embedded but the one that is gone.
    clean.succeed(clean.command("--input", "gs://clinic/some"))
    found = clean.fetched(tmp_path / "again")
    assert failures(found) == []
    assert {row["status"] for row in recordings(found).values()} == {"embedded"}
    assert len(recordings(found)) == len(names) - 1
    for name in clean.storage.names("clinic", "some/"):
        clean.storage.delete("clinic", name)


def test_a_bucket_may_hold_recordings_tables_checkpoint_and_staged_clips(clean: World, tmp_path: Path) -> None:
    wav = (clean.folder / "in" / "synthetic-cough-01.wav").read_bytes()
    names = ("a b.wav", "кашель #1?&%20.wav", "sub/100%.wav", "sub/[x]*.wav")
    for name in (*names, "hear-staged-20260101T000000Z-abcdef/0123.wav", "folder/"):
        clean.storage.upload("results", name, wav if name.endswith(".wav") else b"")
    prefix, checkpoint = "gs://results/out/кашель #1?%20[x]*", "gs://results/ck"
    command = clean.command("--input", "gs://results", prefix=prefix, checkpoint=checkpoint)
    command[command.index(STAGING)] = "gs://results"
    tables: set[str] = set()
    for time in range(2):
        clean.succeed(command)
        found = clean.fetched(tmp_path / str(time), prefix)
        summary = summary_of(found)
        assert set(recordings(found)) == {f"gs://results/{name}" for name in names}
        assert set(summary["ignored"]) == tables, "neither checkpoint nor what is unfinished or staged"
        tables = {f"{prefix}{path.name[1:]}" for path in found.parent.iterdir()}
        assert summary["failures_by_stage"] == {}
        assert all(name in clean.left("results") for name in names)
        assert {name for name in clean.left("results") if "hear-staged" in name} == {
            "hear-staged-20260101T000000Z-abcdef/0123.wav"
        }
