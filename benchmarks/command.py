"""Runs the real command in a process of its own, and measures what that process used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from emulator.process import LocalEndpoint
from tests.e2e.memory import MemoryPeak

REPOSITORY = Path(__file__).resolve().parents[1]
RATE_HZ = 44100
FILE_S = 5.0
CLIPS_PER_FILE = 3


@dataclass(frozen=True)
class Usage:
    """What a run of the command used; the local endpoint's process is not in it."""

    clips: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    """Of its largest process."""
    together_mb: float
    """Of all its processes at a time, what they share counted once."""


def write_files(folder: Path, files: int) -> None:
    """Writes 5 s, 44.1 kHz, 16-bit mono WAV files: a few of noise, the others hard links to them."""
    folder.mkdir()
    sources = []
    for seed in range(min(files, 20)):
        sources.append(folder / f"source-{seed:02d}.wav")
        noise = 0.1 * np.random.default_rng(seed).standard_normal(int(FILE_S * RATE_HZ))
        soundfile.write(sources[-1], noise, RATE_HZ, subtype="PCM_16")
    for number in range(len(sources), files):
        (folder / f"link-{number:06d}.wav").hardlink_to(sources[number % len(sources)])


def measure(
    inputs: Path | str,
    local: LocalEndpoint,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    where: Sequence[str] | None = None,
) -> Usage:
    """Runs the command over `inputs` against a local endpoint that runs already; it must succeed.

    `where` are the options that say what is asked, if it is not the endpoint for audio. Its output goes to `folder`, where a
    second run goes on from the first one's checkpoint; None for one of its own.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return measure(inputs, local, options, environment, Path(own), where)
    prefix = folder / "rows"
    command = [sys.executable, "-m", "pipeline", "--input", str(inputs), "--output", str(prefix), *options]
    command += where or ["--endpoint", local.endpoint_name, "--endpoint_host", local.host]
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=nowhere, env={**os.environ, **(environment or {})})
        started = os.times().elapsed
        with MemoryPeak(process.pid, every_s=0.5) as memory:
            _, status, used = os.wait4(process.pid, 0)
        wall_s = os.times().elapsed - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the command failed with status {process.returncode}: {' '.join(command)}")
    clips = json.loads(Path(f"{prefix}-summary.json").read_text())["clips"]
    cpu_s = used.ru_utime + used.ru_stime
    return Usage(clips, cpu_s, wall_s, used.ru_maxrss / 1000, memory.together / 1e6)
