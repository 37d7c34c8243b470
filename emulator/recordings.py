"""Writes the sample recordings: synthesised coughs and breaths in the formats that phones and clinics use.

`python -m emulator.recordings FOLDER`. Every name says that the sound is synthetic; one file is silent and one damaged,
and their names say so. A file that is there already and would not change is left alone, so that a second run of the
pipeline finds the same recordings.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from emulator.ogg import with_serial_number
from emulator.sounds import Samples, breathing, coughing, night, silence


@dataclass(frozen=True)
class Sample:
    """One sample recording, as it is to be written.

    Attributes:
        name: the file's name; its extension says what encodes it.
        rate_hz: sample rate of the sound and the file.
        duration_s: length of the sound.
        sound: synthesises it: (rate_hz, duration_s, random) to float64 (n,).
        codec: soundfile's subtype, or FFmpeg's encoder for what soundfile cannot write the same way twice.
        channels: 2 for the same sound from a source on the left.
        kept: the share of the file's bytes that is written; less than 1 for a damaged one.
    """

    name: str
    rate_hz: int
    duration_s: float
    sound: Callable[[int, float, np.random.Generator], Samples]
    codec: str
    channels: int = 1
    kept: float = 1.0

    @property
    def with_ffmpeg(self) -> bool:
        """Whether PyAV is needed to write it."""
        return self.codec.islower()


SAMPLES = (
    Sample("synthetic-cough-01.wav", 44100, 0.8, coughing, "PCM_16"),
    Sample("synthetic-cough-02.wav", 48000, 2.6, coughing, "PCM_24", channels=2),
    Sample("synthetic-cough-03.flac", 44100, 5.0, coughing, "PCM_16"),
    Sample("synthetic-cough-04.mp3", 48000, 4.2, coughing, "MPEG_LAYER_III"),
    Sample("synthetic-cough-05.m4a", 44100, 3.5, coughing, "aac"),
    Sample("synthetic-cough-06.webm", 48000, 6.0, coughing, "libopus"),
    Sample("synthetic-cough-07.3gp", 8000, 7.3, coughing, "libopencore_amrnb"),
    Sample("synthetic-breath-01.wav", 16000, 8.0, breathing, "pcm_f32le"),
    Sample("synthetic-breath-02.ogg", 44100, 12.0, breathing, "VORBIS"),
    Sample("synthetic-breath-03.mp3", 44100, 9.5, breathing, "MPEG_LAYER_III"),
    Sample("synthetic-night-01.flac", 16000, 30.0, night, "PCM_16"),
    Sample("synthetic-cough-cut-short.wav", 44100, 5.0, coughing, "PCM_16", kept=0.66),
    Sample("synthetic-silence.wav", 16000, 4.0, silence, "PCM_16"),
)
"""All of them, in the order in which they are written; each one's place is its random seed."""

_MUXERS = {".m4a": "ipod", ".webm": "webm", ".3gp": "3gp", ".wav": "wav"}
_BLOCK_SAMPLES = 4096


def write_recordings(folder: Path) -> dict[str, str]:
    """Writes all sample recordings into `folder`, which is created where it is missing.

    Returns:
        What became of each name: "written", "unchanged", or "left out: ..." for a format whose encoder is missing.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcome = {}
    for seed, sample in enumerate(SAMPLES):
        try:
            data = encoded(sample, seed)
        except _NoEncoderError as error:
            outcome[sample.name] = f"left out: {error}"
            continue
        path = folder / sample.name
        if path.is_file() and path.read_bytes() == data:
            outcome[sample.name] = "unchanged"
        else:
            path.write_bytes(data)
            outcome[sample.name] = "written"
    return outcome


def encoded(sample: Sample, seed: int) -> bytes:
    """The bytes of one sample recording's file."""
    mono = sample.sound(sample.rate_hz, sample.duration_s, np.random.default_rng(seed))
    gains = (1.0,) if sample.channels == 1 else (1.0, 0.6)
    frames = np.stack([gain * mono for gain in gains], axis=1)
    data = _with_ffmpeg(sample, frames) if sample.with_ffmpeg else _with_soundfile(sample, frames)
    return data[: round(sample.kept * len(data))]


class _NoEncoderError(Exception):
    """PyAV, or the encoder in it, is not installed."""


def _with_soundfile(sample: Sample, frames: Samples) -> bytes:
    file = io.BytesIO()
    kind = Path(sample.name).suffix[1:].upper()
    with soundfile.SoundFile(file, "w", sample.rate_hz, sample.channels, sample.codec, format=kind) as writer:
        for start in range(0, len(frames), _BLOCK_SAMPLES):
            writer.write(frames[start : start + _BLOCK_SAMPLES])
    return with_serial_number(file.getvalue(), 1) if kind == "OGG" else file.getvalue()


def _with_ffmpeg(sample: Sample, frames: Samples) -> bytes:
    try:
        import av
        from av.codec import Codec
    except ImportError:
        raise _NoEncoderError("PyAV is not installed") from None
    try:
        Codec(sample.codec, "w")
    except av.codec.codec.UnknownCodecError:
        raise _NoEncoderError(f"this FFmpeg has no encoder {sample.codec}") from None
    file = io.BytesIO()
    muxer = _MUXERS[Path(sample.name).suffix]
    # Without "bitexact" the muxers write their version and random identifiers.
    with av.open(file, "w", format=muxer, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(sample.codec, rate=sample.rate_hz, options={"flags": "+bitexact"})
        stream.layout = "mono" if sample.channels == 1 else "stereo"
        samples = np.ascontiguousarray(frames.T, np.float32)
        for start in range(0, len(frames), _BLOCK_SAMPLES):
            block = np.ascontiguousarray(samples[:, start : start + _BLOCK_SAMPLES])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.layout.name)
            frame.sample_rate = sample.rate_hz
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m emulator.recordings",
        description="Writes synthesised sample recordings: coughs and breaths in several formats.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write them; created if missing")
    folder = parser.parse_args(argv).folder
    try:
        outcome = write_recordings(folder)
    except OSError as error:
        print(f"the sample recordings cannot be written to {folder}: {error.strerror}", file=sys.stderr)
        return 1
    counts = {word: sum(o == word for o in outcome.values()) for word in ("written", "unchanged")}
    print(f"{counts['written']} synthesised recordings written to {folder}, {counts['unchanged']} there already")
    for name, what in outcome.items():
        if what.startswith("left out"):
            print(f"  {name} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
