"""Lines of a batch job: bytes a clip, and CPU to write a clip and to read an answer, beside the `json` module and orjson.

Written are clips of the real recordings beside the checkout, spread over all of them, or synthesised ones where there are
none. What this project writes and reads includes the digest by which a clip is known again; what it is compared with does
not. Answers are read as they are likely to come: with the numbers as they were written, as Python writes them again, and as
Python writes them after they have been float32. All ways take turns, and of each the best round counts, as in `timeit`.

Run as `python -m benchmarks.job_lines [--short]`; exits with 1 if lines are larger, or their CPU is more, than is allowed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from audio.clip import Clip
from audio.clips import ClipSettings
from audio.decoders import Decoders
from audio.errors import AudioError
from audio.fetch import local_version
from audio.recording import Recording, Segment
from benchmarks.encoders import cpu_ms
from endpoint.job_lines import LineWriter, read_answer
from tests.recordings import SHARED_AUDIO, health_recordings

EXPECTED_WRITE_RATIO = 15
EXPECTED_READ_RATIO = 4
ALLOWED_BYTES = 0.6
"""Of what `json.dumps` writes."""


class Way(NamedTuple):
    what: str
    do: Callable[[Any], Any]
    items: Sequence[Any]


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some seconds instead of half a minute")
    wanted, rounds = (40, 3) if parser.parse_args().short else (150, 6)
    clips, source = some_clips(wanted)
    research, garden = LineWriter("research"), LineWriter("model_garden")
    lines = [research.line(clip).data for clip in clips]

    ways = [
        Way("json.dumps of the samples", lambda clip: json.dumps(clip.tolist()).encode(), clips),
        Way("json.dumps of samples rounded to six decimals", dump_rounded, clips),
        Way("orjson.dumps of samples rounded to six decimals", orjson_rounded, clips),
        Way("LineWriter, with digest", lambda clip: research.line(clip).data, clips),
        Way("LineWriter for Model Garden, with digest", lambda clip: garden.line(clip).data, clips),
    ]
    print(f"{len(clips)} clips of {source}; best of {rounds} rounds")
    print(f"{'writing a clip':<62}{'bytes':>9}{'CPU ms':>9}{'ratio':>9}")
    written_ms = measure(ways, rounds)
    sizes = [sum(len(way.do(clip)) for clip in clips) / len(clips) for way in ways]
    for way, size, milliseconds in zip(ways, sizes, written_ms, strict=True):
        print(f"{way.what:<62}{size:>9.0f}{milliseconds:>9.3f}{written_ms[0] / milliseconds:>9.1f}")

    print(f"{'reading an answer':<62}{'bytes':>9}{'CPU ms':>9}{'ratio':>9}")
    worst = float("inf")
    embedding = np.random.default_rng(0).normal(0, 1, 512).astype(np.float32).tolist()
    for rendering, instances in renderings(lines).items():
        answers = [b'{"instance": %b, "prediction": %b}\n' % (i, json.dumps(embedding).encode()) for i in instances]
        ways = [
            Way(f"{rendering}: json.loads and np.array", load_json, answers),
            Way(f"{rendering}: orjson.loads and np.array", load_orjson, answers),
            Way(f"{rendering}: read_answer, with digest", read_answer, answers),
        ]
        read_ms = measure(ways, rounds)
        size = sum(map(len, answers)) / len(answers)
        for way, milliseconds in zip(ways, read_ms, strict=True):
            print(f"{way.what:<62}{size:>9.0f}{milliseconds:>9.3f}{read_ms[0] / milliseconds:>9.1f}")
        worst = min(worst, read_ms[0] / read_ms[-1])

    ratio, share = written_ms[0] / written_ms[3], sizes[3] / sizes[0]
    passed = ratio > EXPECTED_WRITE_RATIO and worst > EXPECTED_READ_RATIO and share < ALLOWED_BYTES
    print(
        f"{'PASS' if passed else 'FAIL'}: {share:.2f} of the bytes of json.dumps, allowed {ALLOWED_BYTES}; {ratio:.0f} times "
        f"less CPU to write, expected more than {EXPECTED_WRITE_RATIO}; {worst:.1f} times less to read, expected more "
        f"than {EXPECTED_READ_RATIO}"
    )
    return 0 if passed else 1


def measure(ways: Sequence[Way], rounds: int) -> list[float]:
    """CPU ms for each item."""
    turns = [[cpu_ms(partial(each, way), 1) / len(way.items) for way in ways] for _ in range(rounds)]
    return [min(milliseconds) for milliseconds in zip(*turns, strict=True)]


def each(way: Way) -> None:
    for item in way.items:
        way.do(item)


def dump_rounded(clip: np.ndarray) -> bytes:
    return json.dumps([round(sample, 6) for sample in clip.tolist()], separators=(",", ":")).encode()


def orjson_rounded(clip: np.ndarray) -> bytes:
    return orjson.dumps(np.round(clip.astype(np.float64), 6), option=orjson.OPT_SERIALIZE_NUMPY)


def load_json(line: bytes) -> tuple[np.ndarray, np.ndarray]:
    answer = json.loads(line)
    return np.array(answer["instance"]), np.array(answer["prediction"], np.float32)


def load_orjson(line: bytes) -> tuple[np.ndarray, np.ndarray]:
    answer = orjson.loads(line)
    return np.array(answer["instance"]), np.array(answer["prediction"], np.float32)


def renderings(lines: Sequence[bytes]) -> dict[str, list[bytes]]:
    """How a service may write the instances again."""
    numbers = [json.loads(line) for line in lines]
    return {
        "as written": [line.strip() for line in lines],
        "by Python": [json.dumps(values).encode() for values in numbers],
        "by Python, from float32": [json.dumps(np.array(values, np.float32).tolist()).encode() for values in numbers],
    }


def some_clips(wanted: int) -> tuple[list[np.ndarray], str]:
    """So many clips, and what they are."""
    if SHARED_AUDIO is None:
        return [synthesised(seed) for seed in range(wanted)], "synthesised coughs"
    paths = health_recordings()
    clips: list[np.ndarray] = []
    with Decoders(ClipSettings(), 0) as decoders:
        for path in paths[:: max(1, len(paths) // wanted)]:
            recording = Recording(str(path), local_version(path.stat()), path.stat().st_size)
            try:
                found = [clip for clip in decoders.decode(Segment(recording)) if isinstance(clip, Clip)]
            except AudioError:
                continue
            # Each time another one of those that a recording has: the last is often padded, the others never.
            if found:
                clips.append(np.array(found[len(clips) % len(found)].samples))
    return clips[:wanted], "real recordings"


def synthesised(seed: int) -> np.ndarray:
    """A cough of 16 bits in a quiet room, one in four padded."""
    rng = np.random.default_rng(seed)
    envelope = 0.3 * np.exp(-np.arange(32000) / 4000) + 0.001
    clip = np.clip(rng.normal(0, 1, 32000) * envelope, -1, 1)
    clip[20000 if seed % 4 == 0 else 32000 :] = 0
    return (np.rint(clip * 32767) / 32768).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
