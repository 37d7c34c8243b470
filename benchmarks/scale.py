"""Time a clip and memory of the command at ten times the recordings, and the time of a finished run that is repeated.

The recordings are one-second WAV files, a clip each: hard links to a few, a thousand in a folder. Of the time, that of
a run over one file is taken off: the start is the same for all.

Run as `python -m benchmarks.scale [--short]`; exits with 1 if time a clip or memory grows by more than is allowed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.command import Usage, measure
from emulator.process import start_local_endpoint

ALLOWED_TIME = 1.15
ALLOWED_MB = 150
ALLOWED_REPEATED = 0.25
PER_FOLDER = 1000
SOURCES = 20
RATE_HZ = 16000


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="2,000 and 20,000 files instead of 10,000 and 100,000")
    parser.add_argument("--files", type=int, metavar="N", help="N and ten times N instead")
    options = parser.parse_args()
    few = options.files or (2000 if options.short else 10000)
    with tempfile.TemporaryDirectory() as folder, start_local_endpoint() as local:
        write_seconds(Path(folder) / "one", 1)
        start = min((measure(Path(folder) / "one", local) for _ in range(3)), key=lambda run: run.wall_s)
        runs: list[Usage] = []
        for files in (few, 10 * few):
            inputs, output = Path(folder) / f"files-{files}", Path(folder) / f"rows-{files}"
            output.mkdir()
            write_seconds(inputs, files)
            # The second time, there is nothing to send.
            runs += [measure(inputs, local, folder=output) for _ in range(2)]
    return 0 if report(start, runs) else 1


def write_seconds(folder: Path, files: int) -> None:
    """Writes one-second, 16 kHz, 16-bit mono WAV files, a few of noise, the others hard links to them."""
    folder.mkdir()
    sources = []
    for seed in range(SOURCES):
        sources.append(folder.with_name(f"{folder.name}-source-{seed:02d}.wav"))
        soundfile.write(
            sources[-1], 0.1 * np.random.default_rng(seed).standard_normal(RATE_HZ), RATE_HZ, subtype="PCM_16"
        )
    for number in range(files):
        below = folder / f"{number // PER_FOLDER:04d}"
        if number % PER_FOLDER == 0:
            below.mkdir()
        (below / f"{number:07d}.wav").hardlink_to(sources[number % SOURCES])


def report(start: Usage, runs: list[Usage]) -> bool:
    """Prints the figures and their ratios; whether all are as they should be."""
    print(f"{'one-second files':<30}{'clips':>8}{'s':>8}{'ms a clip':>11}{'CPU ms a clip':>15}{'MB together':>13}")
    print(f"{'the start: one file':<30}{start.clips:>8}{start.wall_s:>8.1f}{'':>11}{'':>15}{start.together_mb:>13.0f}")
    for name, run in zip(("the command", "once more", "the command", "once more"), runs, strict=True):
        each = f"{_each_ms(start, run):>11.2f}{_cpu_ms(start, run):>15.2f}"
        print(f"{name:<30}{run.clips:>8}{run.wall_s:>8.1f}{each}{run.together_mb:>13.0f}")
    few, _, many, again = runs
    slower = _each_ms(start, many) / _each_ms(start, few)
    more_cpu = _cpu_ms(start, many) / _cpu_ms(start, few)
    more_mb = many.together_mb - few.together_mb
    repeated = again.wall_s / many.wall_s
    checks = (
        (
            slower <= ALLOWED_TIME,
            f"{slower:.2f} times the time a clip at ten times the clips, allowed {ALLOWED_TIME} ({more_cpu:.2f} of CPU)",
        ),
        (
            more_mb <= ALLOWED_MB,
            f"{more_mb:+.0f} MB ({many.together_mb / few.together_mb:.2f} times), allowed {ALLOWED_MB} MB",
        ),
        (
            repeated <= ALLOWED_REPEATED,
            f"a finished run again takes {repeated:.2f} of the first, allowed {ALLOWED_REPEATED} "
            f"({again.cpu_s / many.cpu_s:.2f} of CPU)",
        ),
    )
    for passed, text in checks:
        print(f"{'PASS' if passed else 'FAIL'}: {text}")
    return all(passed for passed, _ in checks)


def _each_ms(start: Usage, run: Usage) -> float:
    return 1000 * (run.wall_s - start.wall_s) / run.clips


def _cpu_ms(start: Usage, run: Usage) -> float:
    return 1000 * (run.cpu_s - start.cpu_s) / run.clips


if __name__ == "__main__":
    sys.exit(main())
