"""Runs that are killed again and again: in the end the rows of an undisturbed run, and hardly a clip sent twice.

KILLS says how often (default 2; what is documented was measured with 20). The recordings are the real ones where they are
at hand, else synthesised.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.recordings import write_recordings
from endpoint.probe import probe_clips
from rows.checkpoint import read_all
from rows.model import EmbeddingRow
from tests.audio.gcs import storage_server
from tests.e2e.running import REPOSITORY, assert_same_rows, embeddings, recordings, run_command, summary_of
from tests.recordings import SHARED_AUDIO
from tests.transforms.samples import write_wav

KILLS = int(os.environ.get("KILLS", "2"))
MANY = KILLS > 3
IN_FLIGHT = {"disk": 4, "bucket": 4, "two workers": 2} if MANY else {"disk": 16, "bucket": 16, "two workers": 6}
"""Requests of each process: slow enough that so many kills come before the end."""
LATENCY_MS = 300
FLUSH_S, FLUSH_ROWS = 5.0, 256
PROBE = {clip_digest(clip) for clip in probe_clips()}
WITHIN_S = 120


@dataclass
class Run:
    """How the command is run: always the same, until it ends well."""

    local: LocalEndpoint
    arrivals: Path
    prefix: Path
    arguments: tuple[object, ...]
    environment: dict[str, str]
    in_flight: int = 16

    @property
    def command(self) -> list[str]:
        where = ("--endpoint", self.local.endpoint_name, "--endpoint_host", self.local.host)
        flags = (*where, "--output", self.prefix, "--output_format", "parquet", "--requests_in_flight", self.in_flight)
        return list(map(str, (*flags, *self.arguments)))

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *self.command],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def arrived(self) -> Counter[str]:
        """Digests of the clips that have arrived at the endpoint, the probe's left out."""
        clips: Counter[str] = Counter()
        for line in self.arrivals.read_text().splitlines():
            clips.update(digest for digest in json.loads(line)["clips"] if digest not in PROBE)
        return clips

    def stored(self) -> int:
        """Clips with an embedding in the checkpoint."""
        files = Path(f"{self.prefix}-checkpoint").rglob("*.rows")
        rows = (row for path in files for _, row in read_all(path.read_bytes()))
        return len({row.clip_id for row in rows if isinstance(row, EmbeddingRow)})


def settled(run: Run) -> int:
    """How many clips have arrived, once no more do: worker processes notice the end of their parent a little later."""
    before = -1
    while (now := run.arrived().total()) != before:
        before = now
        time.sleep(1.0)
    return now


def killed_after_some_progress(run: Run, chance: random.Random) -> None:
    """Starts the command, and kills it at a random moment after it has stored rows and before it is done."""
    before = run.stored()
    process = run.start()
    deadline = time.monotonic() + WITHIN_S
    try:
        while run.stored() == before:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.1)
        time.sleep(chance.uniform(0.0, 1.5))
        assert process.poll() is None, "it ended before it was killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run.stored() > before


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Some ten minutes of short recordings, and one that is cut into segments."""
    if SHARED_AUDIO is not None and MANY:
        return SHARED_AUDIO / "health", SHARED_AUDIO / "long"
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder)
    for number in range(40 * KILLS):
        write_wav(folder / f"noise-{number}.wav", 11.3, seed=number)
    write_wav(folder / "long.wav", 920.0, seed=1000)
    return (folder,)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[LocalEndpoint, Path]]:
    log = tmp_path / "arrivals"
    with start_local_endpoint(LATENCY_MS, log) as local:
        yield local, log


WAYS = ["disk", "bucket", "two workers"] if MANY else ["two workers"]
"""By default only the last: kills of runs in one process, and of runs with checkpoints in buckets, are in other modules, too."""


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    way: str, folders: tuple[Path, ...], endpoint: tuple[LocalEndpoint, Path], tmp_path: Path
) -> None:
    local, log = endpoint
    environment: dict[str, str] = {}
    inputs: tuple[object, ...] = folders
    more: tuple[object, ...] = ()
    if way == "two workers":
        more = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    (tmp_path / "storage").mkdir()
    with storage_server(tmp_path / "storage") as server:
        if way == "bucket":
            server.make_bucket("clinic")
            for folder in folders:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        server.upload("clinic", str(path.relative_to(folder.parent)), path.read_bytes())
            inputs, environment = ("gs://clinic",), {"STORAGE_EMULATOR_HOST": server.address}
        arguments = ("--input", *inputs, *more)
        undisturbed = Run(local, log, tmp_path / "undisturbed", arguments, environment, IN_FLIGHT[way])
        done = run_command(*undisturbed.command, timeout_s=1800, **environment)
        assert done.returncode == 0, done.stderr
        needed = undisturbed.arrived()

        killed = Run(local, log, tmp_path / "killed", arguments, environment, IN_FLIGHT[way])
        chance = random.Random(way)
        lost_bound = 0
        arrived_before, stored_before = needed.total(), 0
        for _ in range(KILLS):
            killed_after_some_progress(killed, chance)
            arrived, stored = settled(killed), killed.stored()
            lost = (arrived - arrived_before) - (stored - stored_before)
            workers = 2 if way == "two workers" else 1
            rate = IN_FLIGHT[way] * 4 * 1000 / LATENCY_MS
            assert lost <= workers * (IN_FLIGHT[way] * 4 + rate * (FLUSH_S + 1)), (
                "what was in flight, and not yet flushed"
            )
            lost_bound += lost
            arrived_before, stored_before = arrived, stored
        done = run_command(*killed.command, timeout_s=1800, **environment)
        assert done.returncode == 0, done.stderr

    summary = summary_of(killed.prefix)
    assert summary["embedded"] == needed.total()
    assert summary["reused"] == stored_before
    again = killed.arrived()
    again.subtract(needed)
    extra = again - needed
    assert not needed - again, "each clip that is needed has arrived once more"
    assert extra.total() <= lost_bound, "nothing that was stored was sent again"
    print(
        f"{way}: {needed.total()} clips, {KILLS} kills, {extra.total()} sent twice, {lost_bound} in flight or unflushed"
    )
    assert_same_rows(embeddings(killed.prefix), embeddings(undisturbed.prefix))
    assert recordings(killed.prefix) == recordings(undisturbed.prefix)


def test_a_second_run_is_refused_while_the_first_is_at_work_and_gets_in_once_it_is_dead(
    folders: tuple[Path, ...], endpoint: tuple[LocalEndpoint, Path], tmp_path: Path
) -> None:
    local, log = endpoint
    run = Run(local, log, tmp_path / "r", ("--input", *folders), {})
    first = run.start()
    try:
        lease = tmp_path / "r-checkpoint" / "lease.json"
        deadline = time.monotonic() + WITHIN_S
        while not (lease.is_file() and lease.read_text()):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        holder = json.loads(lease.read_text())
        second = run_command(*run.command)
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert f"run {holder['run_id']} (process {first.pid} on " in second.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    third = run_command(*run.command, "--limit", 3)
    assert third.returncode == 0, third.stderr
