"""A local endpoint that many runs of one test module ask, and what arrives at it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from endpoint.probe import probe_clips
from tests.e2e.running import run_command, start_command, summary_of

_PROBE = {clip_digest(clip) for clip in probe_clips()}
WITHIN_S = 60


@dataclass
class Arrived:
    """Requests that have arrived at the endpoint."""

    requests: int
    """All of them, the probe's included."""
    clips: Counter[str]
    """Digests of their clips and those of jobs that have ended, those of the probe left out."""
    jobs: list[str]
    """Batch prediction jobs that were made."""

    @property
    def only_probe(self) -> bool:
        return not self.clips


@dataclass
class Served:
    """A running endpoint."""

    local: LocalEndpoint
    log: Path
    _seen: int = field(default=0)

    @property
    def where(self) -> tuple[str, ...]:
        return ("--endpoint", self.local.endpoint_name, "--endpoint_host", self.local.host)

    def arrived(self) -> Arrived:
        """What has arrived since the last call."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        new, self._seen = lines[self._seen :], len(lines)
        return Arrived(
            sum("job_event" not in line for line in new),
            Counter(digest for line in new for digest in line["clips"] if digest not in _PROBE),
            [line["job"] for line in new if line.get("job_event") == "created" and line["job"] is not None],
        )

    def run(self, *arguments: object, **environment: str) -> tuple[dict[str, Any], Arrived]:
        """Runs the command, which must succeed; its summary, and what has arrived since the last look."""
        done = self.command(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return summary_of(prefix_in(arguments)), self.arrived()

    def command(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the command against the endpoint."""
        return run_command(*self.where, "--output_format", "parquet", *arguments, timeout_s=200, **environment)

    def refused(self, *arguments: object, status: int, said: Sequence[str], **environment: str) -> str:
        """Runs the command, which must end with this status and one line that says all of `said`; nothing may arrive."""
        done = self.command(*arguments, **environment)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
        for text in said:
            assert text in done.stderr
        assert self.arrived().requests == 0
        return done.stderr

    def interrupt(
        self, number: signal.Signals, when: Callable[[], bool], *arguments: object, **environment: str
    ) -> tuple[int, str, list[int]]:
        """Starts the command and sends it a signal once `when` holds; its status, its errors, and its child processes."""
        process = start_command(*self.where, "--output_format", "parquet", *arguments, **environment)
        deadline = time.monotonic() + WITHIN_S
        while not when():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = descendants(process.pid)
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN_S)
        return process.returncode, said, started


def prefix_in(arguments: Sequence[object]) -> Path:
    """The output's prefix among a command's arguments."""
    return Path(str(arguments[list(map(str, arguments)).index("--output") + 1]))


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    parents = dict(zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True))
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def are_gone(pids: Sequence[int]) -> bool:
    """Whether processes have ended, or end within some seconds."""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def digests(samples: np.ndarray, starts: Sequence[int] | None = None) -> list[str]:
    """Digests of the 2 s clips of an int16 recording of 16 kHz: one after the other, the last padded, or those at `starts`."""
    if starts is None:
        starts = range(0, len(samples), 32000)
    return [clip_digest(cut(samples, start)) for start in starts]


def cut(samples: np.ndarray, start: int) -> np.ndarray:
    """The clip that begins at `start`, float32; zeros where the recording has no samples."""
    clip = np.zeros(32000, np.float32)
    low, high = max(start, 0), min(start + 32000, len(samples))
    clip[low - start : high - start] = samples[low:high] / np.float32(32768)
    return clip


@contextmanager
def served(folder: Path, latency_ms: float = 0, *options: str) -> Iterator[Served]:
    """Runs an endpoint that logs in `folder`."""
    log = folder / "arrivals"
    log.touch()
    with start_local_endpoint(latency_ms, log, options=options) as local:
        yield Served(local, log)
