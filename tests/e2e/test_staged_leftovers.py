"""Whatever ends a run that stages clips: nothing staged is left once the next run on its checkpoint has ended.

With KILLS in the environment, those at random moments come to runs in one process, too.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from emulator.process import LocalEndpoint, start_local_endpoint
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import Fault, StorageProxy, storage_proxy
from tests.e2e.running import assert_same_rows, embeddings, failures, start_command, summary_of

RECORDINGS, CLIPS_EACH = 4, 60
CLIPS = RECORDINGS * CLIPS_EACH
PER_REQUEST = 8
PROBE_REQUESTS, PROBE_CLIPS = 2, 4
STAGED_BEFORE = 1 + PROBE_CLIPS
"""Objects of the proof of rights and of the probe."""
INTERRUPTED = 130
SAYS_INTERRUPTED = "interrupted: what was answered is in the checkpoint; the same command goes on from there"
UPLOAD, DELETE = "^POST /upload/", "^DELETE "
Rows = dict[str, dict[str, Any]]
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    random_ = np.random.default_rng(5)
    for number in range(RECORDINGS):
        samples = random_.uniform(-0.5, 0.5, CLIPS_EACH * 32000)
        soundfile.write(path / f"{number}.wav", samples, 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        running.make_bucket("staging")
        yield running


@pytest.fixture
def proxy(storage: StorageServer) -> Iterator[StorageProxy]:
    """The storage server as runs reach it; the endpoint reads from it directly."""
    with storage_proxy(storage.address) as running:
        running.delay_s = 0.01
        yield running
    for name in storage.names("staging"):
        storage.delete("staging", name)


@dataclass
class Place:
    """An endpoint, a storage server, recordings, and the folder that runs write to."""

    local: LocalEndpoint
    log: Path
    proxy: StorageProxy
    storage: StorageServer
    folder: Path
    prefix: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def arguments(self, *more: object, prefix: Path | None = None, sends: str = "uris") -> list[str]:
        name = self.local.uri_endpoint if sends == "uris" else self.local.endpoint_name
        given: list[object] = ["--endpoint", name, "--endpoint_host", self.local.host]
        given += ["--send", sends, "--input", self.folder, "--output", prefix or self.prefix]
        given += ["--output_format", "parquet", "--requests_in_flight", 2]
        if sends == "uris":
            given += ["--staging_location", "gs://staging/clips", "--clips_per_request", PER_REQUEST]
        return [*map(str, given), *map(str, more)]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """Starts the command in a session of its own, as a terminal's job would be."""
        process = start_command(*arguments, own_session=True, STORAGE_EMULATOR_HOST=self.proxy.address)
        self.started.append(process)
        return process

    def run(self, *more: object, prefix: Path | None = None, sends: str = "uris") -> tuple[int, list[str]]:
        """Runs the command to its end: its exit status, and the lines that it says."""
        return ended(self.start(self.arguments(*more, prefix=prefix, sends=sends)))

    def succeed(self, *more: object, prefix: Path | None = None, sends: str = "uris") -> dict[str, Any]:
        status, said = self.run(*more, prefix=prefix, sends=sends)
        assert status == 0, said
        return summary_of(prefix or self.prefix)

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def staged(self) -> list[str]:
        return self.storage.names("staging")

    @property
    def staging_folders(self) -> set[str]:
        """Of the runs from which something is staged."""
        return {"gs://staging/" + name.rpartition("/")[0] + "/" for name in self.staged}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What the checkpoint's runs wrote about themselves, in the order in which they began."""
        found = [json.loads(path.read_text()) for path in Path(f"{self.prefix}-checkpoint").glob("*/run.json")]
        return sorted(found, key=lambda run: run["run_id"])


@contextmanager
def at(
    storage: StorageServer,
    proxy: StorageProxy,
    folder: Path,
    tmp_path: Path,
    *,
    latency_ms: float = 0,
    faults: str = "",
) -> Iterator[Place]:
    options = [f"--storage_host={storage.address}", *([f"--faults={faults}"] if faults else [])]
    log = tmp_path / "arrivals"
    with start_local_endpoint(latency_ms, log, options=options) as local:
        place = Place(local, log, proxy, storage, folder, tmp_path / "r")
        try:
            yield place
        finally:
            for process in place.started:
                if process.returncode is None:  # a test has failed
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()


def ended(process: subprocess.Popen[str], timeout_s: float = 100) -> tuple[int, list[str]]:
    """Waits for the command; its exit status and the lines on its standard error."""
    try:
        _, said = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return process.returncode, said.splitlines()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """What is waited for must happen before the command ends."""
    deadline_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline_s
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(storage: StorageServer, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of a run that nothing happened to."""
    with (
        storage_proxy(storage.address) as proxy,
        at(storage, proxy, folder, tmp_path_factory.mktemp("undisturbed")) as place,
    ):
        summary = place.succeed()
        assert (summary["embedded"], summary["failed"], summary["staged_clips"]) == (CLIPS, 0, CLIPS)
        assert place.staged == []
        assert proxy.count(UPLOAD) == proxy.count(DELETE) == CLIPS + STAGED_BEFORE
        rows = embeddings(place.prefix)
    assert len(rows) == CLIPS
    return rows


def in_its_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """As a terminal sends Ctrl-C: to the command and to all processes that it has started."""
    os.killpg(process.pid, number)


def alone(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)


Kill = tuple[str, Callable[[subprocess.Popen[str], signal.Signals], None], tuple[signal.Signals, ...]]
KILLS: tuple[Kill, ...] = (
    ("SIGTERM", alone, (signal.SIGTERM,)),
    ("SIGINT", in_its_group, (signal.SIGINT,)),
    ("SIGINT twice", alone, (signal.SIGINT, signal.SIGINT)),
    ("SIGKILL", alone, (signal.SIGKILL,)),
)


@pytest.mark.parametrize("processes", [(), TWO_PROCESSES] if os.environ.get("KILLS") else [TWO_PROCESSES])
def test_after_kills_at_random_moments_the_next_run_leaves_nothing_and_has_all_rows(
    processes: tuple[str, ...],
    storage: StorageServer,
    proxy: StorageProxy,
    folder: Path,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    moments = random.Random(len(processes))
    with at(storage, proxy, folder, tmp_path, latency_ms=300) as place:
        for name, kill, signals in KILLS:
            arrivals, uploads = len(place.arrivals), proxy.count(UPLOAD)
            needed = PROBE_REQUESTS + moments.randrange(1, 5)
            process = place.start(place.arguments(*processes))
            wait_until(lambda a=arrivals, n=needed: len(place.arrivals) >= a + n, process)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.15))
            assert process.poll() is None
            at_work = place.runs[-1]["staged"]
            for number in signals:
                kill(process, number)
                time.sleep(0.02)
            status, said = ended(process)
            # It came after progress, and before the end.
            assert proxy.count(UPLOAD) >= uploads + STAGED_BEFORE + PER_REQUEST, name
            assert not place.prefix.with_name("r-summary.json").exists()
            if signals == (signal.SIGKILL,):
                assert status == -signal.SIGKILL
                assert place.staging_folders == {at_work}
                continue
            assert status == INTERRUPTED, (name, said)
            assert len([line for line in said if SAYS_INTERRUPTED in line]) == 1, said
            assert "Traceback" not in "\n".join(said), name
            if len(signals) == 1:
                # Uploads of killed workers may arrive after their sweep: those are the next run's.
                assert processes or place.staged == [], name
            else:
                assert place.staging_folders <= {at_work}
        left = place.staged
        summary = place.succeed(*processes)
        assert left
        assert place.staged == []
    assert (summary["embedded"], summary["failed"]) == (CLIPS, 0)
    assert failures(place.prefix) == []
    assert_same_rows(embeddings(place.prefix), undisturbed)


def test_runs_of_other_checkpoints_at_the_same_staging_location_are_not_disturbed(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path, undisturbed: Rows
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with at(storage, proxy, folder, tmp_path, latency_ms=600) as place:
        killed = place.start(place.arguments(prefix=second))
        wait_until(lambda: len(place.arrivals) > PROBE_REQUESTS, killed)
        killed.send_signal(signal.SIGKILL)
        ended(killed)
        left = set(place.staged)
        at_work = place.start(place.arguments(prefix=first))
        wait_until(lambda: len(set(place.staged) - left) > STAGED_BEFORE, at_work)
        # It stands still with clips staged until the other one has looked for leftovers, which it does before it probes.
        at_work.send_signal(signal.SIGSTOP)
        time.sleep(1)  # what it had sent by then has arrived
        arrivals = len(place.arrivals)
        beside = place.start(place.arguments(prefix=second))
        wait_until(lambda: len(place.arrivals) > arrivals + 2, beside)
        assert left.isdisjoint(place.staged)
        assert at_work.poll() is None
        at_work.send_signal(signal.SIGCONT)
        with ThreadPoolExecutor() as pool:
            (status, _), (other_status, other_said) = pool.map(ended, (at_work, beside))
        assert (status, other_status) == (0, 0)
        assert place.staged == []
    (run_file,) = Path(f"{first}-checkpoint").glob("*/run.json")
    (note,) = [line for line in other_said if line.startswith("note: ")]
    assert json.loads(run_file.read_text())["staged"] in note
    assert "other runs" in note
    for prefix in (first, second):
        summary = summary_of(prefix)
        assert (summary["embedded"], summary["failed"], summary["retries"]) == (CLIPS, 0, 0)
        assert failures(prefix) == []
        assert_same_rows(embeddings(prefix), undisturbed)


@pytest.mark.parametrize("processes", [(), TWO_PROCESSES], ids=["one process", "two processes"])
def test_when_permission_is_lost_nothing_is_left_and_a_later_run_has_all_rows(
    processes: tuple[str, ...],
    storage: StorageServer,
    proxy: StorageProxy,
    folder: Path,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    with at(storage, proxy, folder, tmp_path, latency_ms=50, faults=f"deny_after={PROBE_REQUESTS + 4}") as place:
        status, said = place.run(*processes, "--limit", 2)
        assert status == 1, said
        assert "aiplatform.endpoints.predict" in said[-1]
        assert "Traceback" not in "\n".join(said)
        assert proxy.count(UPLOAD) > STAGED_BEFORE + 4 * PER_REQUEST
        assert place.staged == []
    with at(storage, proxy, folder, tmp_path) as place:
        summary = place.succeed("--limit", 2)
        assert place.staged == []
    assert (summary["embedded"], summary["failed"]) == (2 * CLIPS_EACH, 0)
    rows = embeddings(place.prefix)
    assert_same_rows(rows, {clip_id: undisturbed[clip_id] for clip_id in rows})


def test_when_the_endpoint_dies_nothing_is_left_and_a_later_run_has_all_rows(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path, undisturbed: Rows
) -> None:
    # So slow that twenty requests are left when it dies: that many in a row must fail until that ends the run.
    with at(storage, proxy, folder, tmp_path, latency_ms=1500) as place:
        process = place.start(place.arguments("--max_attempts", 1))
        wait_until(lambda: len(place.arrivals) >= PROBE_REQUESTS + 4, process)
        place.local.stop()
        status, said = ended(process)
        assert "Traceback" not in "\n".join(said)
        assert place.staged == []
    assert status == 1
    assert "has stopped answering" in said[-1]
    assert not list(tmp_path.glob("r-*.parquet"))
    with at(storage, proxy, folder, tmp_path) as place:
        assert place.succeed()["failed"] == 0
        assert place.staged == []
    assert_same_rows(embeddings(place.prefix), undisturbed)


def test_a_storage_server_in_trouble_costs_no_row_and_leaves_nothing(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path, undisturbed: Rows
) -> None:
    unlucky = random.Random(7)
    unavailable, cut, answer_lost = (Fault("/b/staging", 503), Fault("/b/staging"), Fault("/b/staging", after=True))
    for fault in (unavailable, cut, answer_lost):
        proxy.add(replace(fault, chooses=lambda _line: unlucky.random() < 0.05))
    with at(storage, proxy, folder, tmp_path) as place:
        summary = place.succeed("--limit", 1)
        assert place.staged == []
    assert (summary["embedded"], summary["failed"], summary["staged_clips"]) == (CLIPS_EACH, 0, CLIPS_EACH)
    # About one request in seven was in trouble, and sent again.
    assert proxy.count(UPLOAD) >= CLIPS_EACH + STAGED_BEFORE + 3
    assert proxy.count(DELETE) >= CLIPS_EACH + STAGED_BEFORE + 3
    rows = embeddings(place.prefix)
    assert_same_rows(rows, {clip_id: undisturbed[clip_id] for clip_id in rows})


def test_what_cannot_be_deleted_is_told_and_the_next_run_removes_it(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path
) -> None:
    with at(storage, proxy, folder, tmp_path) as place:
        # Rights to delete are proved at the start: they are lost after that.
        forbidden = itertools.chain([False] * (STAGED_BEFORE + 20), itertools.repeat(True))
        proxy.add(Fault(DELETE, 403, chooses=lambda _line: next(forbidden)))
        status, said = place.run("--limit", 1)
        proxy.clear()
        assert status == 0
        left = place.staged
        assert len(left) == CLIPS_EACH - 20
        (at_work,) = place.staging_folders
        (note,) = said
        assert note.startswith("note: ")
        assert str(len(left)) in note
        assert at_work in note
        # Whatever the next run sends: rows are not asked for here.
        assert place.succeed("--limit", 1, sends="audio")["failed"] == 0
        assert place.staged == []
    assert "PLANTED" not in note


def test_what_was_to_be_kept_is_kept_when_the_run_is_interrupted_and_by_later_runs(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path
) -> None:
    with at(storage, proxy, folder, tmp_path, latency_ms=400) as place:
        process = place.start(place.arguments("--limit", 1, "--keep_staged"))
        wait_until(lambda: len(place.arrivals) > PROBE_REQUESTS + 1, process)
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == INTERRUPTED
        kept = place.staged
        assert place.staging_folders == {place.runs[-1]["staged"]}
        assert len(kept) >= PROBE_CLIPS + PER_REQUEST
        assert place.succeed("--limit", 1)["embedded"] == CLIPS_EACH
        assert place.staged == kept


def test_a_second_signal_ends_the_cleaning_up_at_once(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path
) -> None:
    with at(storage, proxy, folder, tmp_path, latency_ms=400) as place:
        process = place.start(place.arguments())
        wait_until(lambda: len(place.arrivals) >= PROBE_REQUESTS + 3, process)
        proxy.add(Fault(DELETE, 503))  # what would be tried again for a minute
        process.send_signal(signal.SIGINT)
        failing = proxy.count(DELETE)
        wait_until(lambda: proxy.count(DELETE) > failing + 4, process)
        process.send_signal(signal.SIGINT)
        status, said = ended(process)
        proxy.clear()
        assert status == INTERRUPTED
        (line,) = filter(None, said)
        assert SAYS_INTERRUPTED in line
        (at_work,) = place.staging_folders
        assert at_work in line


def test_before_the_run_has_begun_a_signal_leaves_nothing_either(
    storage: StorageServer, proxy: StorageProxy, folder: Path, tmp_path: Path
) -> None:
    with at(storage, proxy, folder, tmp_path, latency_ms=1500) as place:
        process = place.start(place.arguments())
        wait_until(lambda: proxy.count(UPLOAD) == STAGED_BEFORE and bool(place.staged), process)
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
        assert status == INTERRUPTED
        (line,) = said
        assert SAYS_INTERRUPTED in line
        assert place.staged == []
        assert len(place.arrivals) <= 1
