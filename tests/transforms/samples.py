"""Recordings, and rows stored in a checkpoint, to test with."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import soundfile
from apache_beam.testing.util import assert_that

from audio.clips import ClipSettings
from audio.recording import Recording, Segment, Take
from rows.checkpoint import FileBuilder, Row
from rows.identity import packet_id, segment_id
from rows.model import Receipt
from transforms.make_packets import Packet
from transforms.plan_segments import Task

RATE_HZ = 16000
"""Recordings of this rate are not resampled, so that their clips are their own samples."""


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """int16 samples."""
    return np.random.default_rng(seed).integers(-9000, 9000, round(seconds * RATE_HZ)).astype(np.int16)


def write_wav(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    """A 16-bit mono WAV file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), RATE_HZ, format="WAV", subtype="PCM_16")
    return path


def recording(path: Path) -> Recording:
    """The file as it is listed."""
    status = path.stat()
    return Recording(str(path), f"{status.st_size}-{status.st_mtime_ns}", status.st_size)


def task(of: Recording, *settled: str, clips: ClipSettings | None = None) -> Task:
    """The whole of a recording, to be decoded."""
    settings = clips or ClipSettings()
    segment = Segment(of, (Take(settings.channel),))
    return Task(segment_id(segment, settings.choice), segment, settled)


def packet(*recordings: Recording, clips: ClipSettings | None = None) -> Packet:
    """A packet of these recordings."""
    return packet_of(*(task(of, clips=clips) for of in recordings))


def packet_of(*tasks: Task) -> Packet:
    """A packet of these tasks."""
    return Packet(packet_id(task.segment_id for task in tasks), tasks)


def store(folder: Path, name: str, rows: Iterable[tuple[str, Row]]) -> list[Receipt]:
    """Writes a checkpoint file of (segment, row); its receipts."""
    builder = FileBuilder(name.partition("/")[0])
    for segment, row in rows:
        builder.add(segment, row)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(builder.data())
    return builder.receipts(name)


def keep(elements: beam.PCollection, path: Path) -> None:
    """Keeps what a collection of a pipeline holds; `kept` gives it back."""
    assert_that(elements, lambda actual: path.write_bytes(pickle.dumps(actual)), label=path.name)


def kept(path: Path) -> list[Any]:
    """What `keep` has kept."""
    return pickle.loads(path.read_bytes())
