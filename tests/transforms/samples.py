"""Recordings, and rows stored in a checkpoint, to test with."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from audio.clips import ClipSettings
from audio.recording import Recording, Segment
from rows.checkpoint import FileBuilder, Row
from rows.identity import packet_id, segment_id
from rows.model import Receipt
from transforms.make_packets import Packet

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


def packet(*recordings: Recording) -> Packet:
    """A packet of these recordings."""
    segments = tuple(map(Segment, recordings))
    return Packet(packet_id(segment_id(segment, "") for segment in segments), segments)


def segment_of(of: Recording, clips: ClipSettings | None = None) -> str:
    """The identity of the segment that is the whole recording."""
    return segment_id(Segment(of), (clips or ClipSettings()).choice)


def store(folder: Path, name: str, rows: Iterable[tuple[str, Row]]) -> list[Receipt]:
    """Writes a checkpoint file of (segment, row); its receipts."""
    builder = FileBuilder()
    for segment, row in rows:
        builder.add(segment, row)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(builder.data())
    return builder.receipts(name)
