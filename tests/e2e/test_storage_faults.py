"""Everything on Cloud Storage, which fails, loses answers, is slow, or ends with the run: the rows are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
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
from tests.e2e.running import REPOSITORY, assert_same_rows, embeddings, failures, recordings, summary_of

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
        given = (*where, *places, "--output_format", "parquet", *more)
        return [sys.executable, "-m", "pipeline", *map(str, given)]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "STORAGE_EMULATOR_HOST": self.storage.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

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
            (to / found.rpartition("/")[2]).write_bytes(self.storage.content(bucket, found)[0])
        return to / name.rpartition("/")[2]

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
