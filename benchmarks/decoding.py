"""What decoding in processes of their own costs, beside decoding in this one: CPU a clip, wall time, start and memory.

CPU is that of this process and its decoding processes together, all held to one core: cores that share their caches slow each
other down, which says nothing about the work. Wall time is measured with all cores. Both ways take turns, each turn gives a
ratio, and their median counts: what else the machine does slows both down. Both keep the memory that they free, as a run's
processes do.

Run as `python -m benchmarks.decoding [--short]`; exits with 1 if decoding processes cost more CPU than is allowed.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from audio.clips import ClipSettings
from audio.decoders import Decoders, Decoding
from audio.fetch import local_version
from audio.heap import keep_freed_memory
from audio.recording import Recording, Segment
from benchmarks.command import RATE_HZ, write_files
from benchmarks.peak_memory import write_long

ALLOWED = 1.25
"""Of decoding alone; of a whole clip's CPU, which benchmarks.whole_command measures, that is far less."""
ALLOWED_MB = 60
AHEAD = 4
FILES = 40
CLIP_US = 1200
"""About the CPU of a whole clip, from file to row; see benchmarks.whole_command."""

Source = Callable[[Segment], bytes | BinaryIO | None]


class Turn(NamedTuple):
    cpu_us: float
    """A clip."""
    wall_s: float


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="half a minute instead of two")
    turns = 14 if parser.parse_args().short else 50
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root / "wav", FILES)
        write_mp3(root / "mp3")
        (root / "long").mkdir()
        write_long(root / "long" / "long.wav", minutes=2)
        wav, mp3, long = segments(root / "wav"), segments(root / "mp3"), segments(root / "long")
        ratios = [
            compare("WAV, opened by the process", wav, lambda _: None, turns),
            compare("WAV, bytes of the parent", wav, lambda s: Path(s.recording.uri).read_bytes(), turns),
            compare("MP3, opened by the process", mp3, lambda _: None, turns),
            compare(
                "long, a file of the parent", long, lambda s: io.BytesIO(Path(s.recording.uri).read_bytes()), turns
            ),
        ]
        start_s, start_cpu_s, pss_mb = start(wav)
    print(
        f"start: {1000 * start_s:.0f} ms until the first clip, {1000 * start_cpu_s:.0f} ms of CPU; {pss_mb:.0f} MB (PSS)"
    )
    worst = max(ratios[0], ratios[2])
    passed = worst <= ALLOWED and pss_mb <= ALLOWED_MB
    print(
        f"{'PASS' if passed else 'FAIL'}: {worst:.2f} times the CPU of decoding in this process, "
        f"allowed {ALLOWED}; a process takes {pss_mb:.0f} MB, allowed {ALLOWED_MB}"
    )
    return 0 if passed else 1


def segments(folder: Path) -> list[Segment]:
    """Each file of the folder, whole."""
    paths = sorted(folder.iterdir())
    return [Segment(Recording(str(path), local_version(path.stat()), path.stat().st_size)) for path in paths]


def write_mp3(folder: Path) -> None:
    """Writes 5 s, 44.1 kHz, mono MP3 files of noise."""
    folder.mkdir()
    for seed in range(20):
        samples = (0.1 * np.random.default_rng(seed).standard_normal((1, int(5 * RATE_HZ)))).astype(np.float32)
        with av.open(str(folder / f"{seed:02d}.mp3"), "w") as file:
            stream = file.add_stream("libmp3lame", rate=RATE_HZ, layout="mono")
            for at in range(0, samples.shape[1], 1152):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1152]), "fltp", "mono")
                frame.sample_rate, frame.pts = RATE_HZ, at
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    sources = sorted(folder.iterdir())
    for number in range(len(sources), FILES):
        (folder / f"link-{number:03d}.mp3").hardlink_to(sources[number % len(sources)])


def compare(name: str, wanted: Sequence[Segment], source: Source, turns: int) -> float:
    """Prints how one process compares in CPU, and one for each core in wall time; the ratio of CPU."""
    cores = os.sched_getaffinity(0)
    settings = ClipSettings()
    with Decoders(settings, 0) as here:
        os.sched_setaffinity(0, {max(cores)})
        with Decoders(settings, 1) as one:
            pairs = take_turns(here, one, wanted, source, turns)
        os.sched_setaffinity(0, cores)
        with Decoders(settings, len(cores)) as many:
            spread = take_turns(here, many, wanted, source, turns)
    here_us = statistics.median(one.cpu_us for one, _ in pairs)
    ratio = statistics.median(other.cpu_us / one.cpu_us for one, other in pairs)
    wall = statistics.median(other.wall_s / one.wall_s for one, other in spread)
    more_us = (ratio - 1) * here_us
    print(
        f"{name:<28} CPU a clip: {here_us:4.0f} us here, {ratio:.2f} times that in a process: {more_us:.0f} us more, "
        f"{more_us / CLIP_US:.0%} of a whole clip's; wall with {len(cores)} processes: {wall:.2f} times",
        flush=True,
    )
    return ratio


def take_turns(
    here: Decoders, there: Decoders, wanted: Sequence[Segment], source: Source, turns: int
) -> list[tuple[Turn, Turn]]:
    """Decodes all files in this process, then all in others, again and again; the first time does not count."""
    pairs = [(decode_all(here, wanted, source), decode_all(there, wanted, source)) for _ in range(turns + 1)]
    return pairs[1:]


def decode_all(pool: Decoders, wanted: Sequence[Segment], source: Source) -> Turn:
    """Decodes all files, some ahead."""
    cpu_s, started_s, clips = cpu(pool), time.perf_counter(), 0
    ahead: deque[Decoding] = deque()
    for segment in wanted:
        ahead.append(pool.decode(segment, source(segment)))
        if len(ahead) == AHEAD:
            clips += sum(1 for _ in ahead.popleft())
    for decoding in ahead:
        clips += sum(1 for _ in decoding)
    return Turn(1e6 * (cpu(pool) - cpu_s) / clips, time.perf_counter() - started_s)


def cpu(pool: Decoders) -> float:
    """Seconds of CPU that this process and those of the pool have used."""
    used_ns = [int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pool.pids]
    return time.process_time() + sum(used_ns) / 1e9


def start(wanted: Sequence[Segment]) -> tuple[float, float, float]:
    """Seconds and CPU seconds until a new process has given its first clip, and its memory in MB."""
    with Decoders(ClipSettings(), 1) as pool:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        decoding = pool.decode(wanted[0])
        next(decoding)
        took_s, used_s = time.perf_counter() - started_s, cpu(pool) - cpu_s
        list(decoding)
        for segment in wanted:
            list(pool.decode(segment))
        rollup = Path(f"/proc/{pool.pids[0]}/smaps_rollup").read_text()
    pss_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return took_s, used_s, pss_kb / 1000


if __name__ == "__main__":
    sys.exit(main())
