"""The two resamplers side by side: speed, pass band, aliases, delay, size, import time, memory, and the embeddings of the same recordings.

It needs TensorFlow: `make bench-resamplers ARGS="[--short] [FOLDER]"` runs it in the environment that has it. FOLDER holds the
recordings that are embedded; without it they are synthesised. Exits with 1 if one of what docs/dependencies.md says is not so: that soxr is
faster, has the wider pass band and lets less through beyond it, and that both give clips that belong to the same places.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from audio.resample import Resampler, ResamplerName
from audio.stretches import SAMPLE_RATE_HZ
from benchmarks.command import REPOSITORY
from emulator.recordings import write_recordings
from tests.audio.late_filter import lateness
from tests.e2e.running import embeddings, succeed

RATES_HZ = (8_000, 11_025, 22_050, 44_100, 48_000)
RATE_HZ = 48_000
NYQUIST_HZ = SAMPLE_RATE_HZ // 2
SILENT_DBFS = -120
MODULES = {"soxr": ("soxr",), "tensorflow_io": ("tensorflow", "tensorflow_io")}

_Samples = npt.NDArray[np.float32]


class Quality(NamedTuple):
    speed: dict[tuple[int, float], float]
    """Seconds of audio per CPU second, by a recording's rate and length in seconds."""
    flat_hz: float
    """Up to here no tone loses more than 0.1 dB."""
    half_power_hz: float
    """Here tones lose 3 dB."""
    alias_at_hz: dict[int, float]
    """Level of what tones of so many Hz or more leave below 8 kHz, at most: dB of the tone."""
    delay: dict[int, float]
    """By the rate: 16 kHz samples by which an impulse comes late."""


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer tones and turns")
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args()
    found = {name: measure(name, short=given.short) for name in get_args(ResamplerName)}
    soxr, tfio = found["soxr"], found["tensorflow_io"]
    for name, quality in found.items():
        print(f"{name}:")
        for (rate_hz, length_s), speed in quality.speed.items():
            print(f"  {speed:,.0f} s of audio per CPU second, recordings of {length_s:g} s, {rate_hz:,} Hz")
        print(f"  pass band: 0.1 dB down at {quality.flat_hz:,.0f} Hz, 3 dB at {quality.half_power_hz:,.0f} Hz")
        for at, level in quality.alias_at_hz.items():
            print(f"  aliases of tones from {at:,} Hz on: {level:.0f} dB at most")
        late = ", ".join(f"{delay:+.2f} from {rate:,} Hz" for rate, delay in quality.delay.items())
        print(f"  an impulse is late by {late} (16 kHz samples)")
        print(f"  {installed_mb(name):,.0f} MB on disk; {starting(name)}")
    ratios = [soxr.speed[what] / tfio.speed[what] for what in soxr.speed]
    print(f"soxr is {min(ratios):.0f} to {max(ratios):.0f} times as fast")
    raw = ", ".join(f"{raw_delay(rate):.2f} from {rate:,} Hz" for rate in RATES_HZ)
    print(f"tfio.audio.resample itself is late by {raw}")
    lowest = compare_embeddings(given.folder)
    is_so = (
        min(ratios) > 1
        and soxr.flat_hz > tfio.flat_hz
        and all(soxr.alias_at_hz[at] < tfio.alias_at_hz[at] for at in soxr.alias_at_hz)
        and all(abs(delay) <= 0.51 for quality in found.values() for delay in quality.delay.values())
        and lowest > 0.95
    )
    print("PASS" if is_so else "FAIL")
    return 0 if is_so else 1


def resample(name: ResamplerName, samples: _Samples, rate_hz: int) -> _Samples:
    """As the pipeline does."""
    resampler = Resampler(rate_hz, resampler=name)
    return np.concatenate([resampler.push(samples, may_be_bad=False), resampler.finish(may_be_bad=False)])


def measure(name: ResamplerName, *, short: bool) -> Quality:
    """What is measured in this process."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(60 * RATE_HZ, np.float32)
    turns = 3 if short else 10
    speed = {
        (rate_hz, length_s): length_s
        / cheapest(lambda: resample(name, noise[: int(length_s * rate_hz)], rate_hz), turns)  # noqa: B023
        for rate_hz in (44_100, RATE_HZ)
        for length_s in (1.0, 60.0)
    }
    step = 40 if short else 10
    gains = {hz: level(name, hz) for hz in range(step, NYQUIST_HZ, step)}
    flat = max(hz for hz in gains if all(gains[other] >= -0.1 for other in gains if other <= hz))
    half = max(hz for hz in gains if gains[hz] >= -3)
    aliases = {
        start: max(level(name, hz) for hz in range(start, RATE_HZ // 2, step)) for start in (8_000, 9_000, 10_000)
    }
    delays = {rate_hz: lateness(partial(resample, name, rate_hz=rate_hz), rate_hz) for rate_hz in RATES_HZ}
    return Quality(speed, flat, half, aliases, delays)


def cheapest(work: Callable[[], Any], turns: int) -> float:
    """CPU seconds of the cheapest of some turns, after a first one."""
    work()
    spent = []
    for _ in range(turns):
        before_s = time.process_time()
        work()
        spent.append(time.process_time() - before_s)
    return min(spent)


def level(name: ResamplerName, hz: float) -> float:
    """The level of what is left of a tone: dB of the tone; its ends, where it begins and stops, left out."""
    tone = np.sin(2 * np.pi * hz / RATE_HZ * np.arange(RATE_HZ // 2)).astype(np.float32)
    output = resample(name, tone, RATE_HZ)[2_000:-2_000].astype(np.float64)
    return float(10 * np.log10(max(float(np.mean(output**2)) / 0.5, 1e-20)))


def raw_delay(rate_hz: int) -> float:
    """Of the op itself."""
    import tensorflow_io

    return lateness(lambda samples: tensorflow_io.audio.resample(samples, rate_hz, SAMPLE_RATE_HZ).numpy(), rate_hz)


def installed_mb(name: ResamplerName) -> float:
    """What its packages take up on disk, with those that it brings."""
    packages = {"soxr"} if name == "soxr" else locked("requirements-tfio.txt") - locked("requirements-dev.lock")
    files = [Path(str(file.locate())) for package in packages for file in metadata.distribution(package).files or ()]
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def locked(file: str) -> set[str]:
    """The packages that a lock file names."""
    lines = (REPOSITORY / file).read_text().splitlines()
    return {line.partition("==")[0] for line in lines if line[:1].isalpha()}


def starting(name: ResamplerName) -> str:
    """What importing it takes in a new Python, and what that then takes up; numpy is there already."""
    script = (
        "import time, numpy; at = time.perf_counter(); "
        f"import {', '.join(MODULES[name])}; spent = time.perf_counter() - at; "
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]; "
        "print(f'import {1000 * spent:,.0f} ms, {int(peak) / 1024:.0f} MB of memory')"
    )
    said = ""
    for _ in range(2):  # the first one reads it from disk
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return said.strip()


def compare_embeddings(folder: Path | None) -> float:
    """Runs the command with both over the same recordings; the lowest cosine similarity of a clip's two embeddings."""
    with tempfile.TemporaryDirectory() as own:
        root = Path(own)
        if folder is None:
            folder = root / "recordings"
            write_recordings(folder)
        rows: dict[str, dict[tuple[str, str, float, float], dict[str, Any]]] = {}
        for name in ("soxr", "tensorflow_io"):
            prefix = root / name
            options = ("--endpoint", "local", "--input", folder, "--output", prefix, "--output_format", "parquet")
            succeed(*options, "--resampler", name)
            rows[name] = {
                (row["recording_uri"], row["channel"], row["start_s"], row["end_s"]): row
                for row in embeddings(prefix).values()
            }
    ours, theirs = rows["soxr"], rows["tensorflow_io"]
    if ours.keys() != theirs.keys():
        raise SystemExit(f"FAIL: {len(ours.keys() ^ theirs.keys())} clips are at places of one resampler only")
    resampled = [key for key, row in ours.items() if row["source_rate_hz"] != SAMPLE_RATE_HZ]
    heard = [key for key in resampled if ours[key]["rms_dbfs"] > SILENT_DBFS]
    similar = np.array([cosine(ours[key]["embedding"], theirs[key]["embedding"]) for key in heard])
    rates = sorted({ours[key]["source_rate_hz"] for key in resampled})
    print(
        f"embeddings of {len(similar)} resampled clips ({', '.join(f'{rate:,}' for rate in rates)} Hz), by the stand-in: cosine similarity "
        f"{np.median(similar):.6f} in the middle, {np.quantile(similar, 0.05):.6f} or more for 95 %, {similar.min():.6f} at least"
    )
    print(
        f"  {len(resampled) - len(heard)} clips below {SILENT_DBFS} dBFS are left out: they hold silence, or rounding"
    )
    passed = ours.keys() - set(resampled)
    same = sum(np.array_equal(ours[key]["embedding"], theirs[key]["embedding"]) for key in passed)
    print(f"  of {len(passed)} clips that had 16 kHz, {same} have the very same embedding")
    return float(similar.min())


def cosine(one: _Samples, other: _Samples) -> float:
    """1 for the same direction."""
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


if __name__ == "__main__":
    sys.exit(main())
