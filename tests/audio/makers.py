"""Recordings that the tests make: bytes of every kind, whole, odd and broken."""

import io
import struct
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile

from audio.clips import AudioInfo, Clip, ClipSettings, ClipStream, open_clips

Samples = npt.NDArray[Any]

RATE_HZ = 16_000
FRAME = 1_024


def noise(frames: int, channels: int = 1, level: float = 0.1, seed: int = 0) -> npt.NDArray[np.float32]:
    """Noise of shape (frames, channels)."""
    made = level * np.random.default_rng(seed).standard_normal((frames, channels))
    return np.clip(made, -0.99, 0.99).astype(np.float32)


def int16(samples: Samples) -> npt.NDArray[np.int16]:
    return np.round(samples * 32767).astype(np.int16)


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """A RIFF/WAVE file of these chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body) if size is None else size) + b"WAVE" + body


def fmt(rate_hz: int = RATE_HZ, channels: int = 1, bits: int = 16, tag: int = 1) -> tuple[bytes, bytes]:
    frame = channels * bits // 8 & 0xFFFF
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame & 0xFFFFFFFF, frame, bits)


def wav(samples: Samples, rate_hz: int = RATE_HZ, data_size: int | None = None) -> bytes:
    """A 16-bit WAV file of `samples` (frames, channels) of full scale 1.0, whose header claims `data_size` bytes."""
    data = int16(samples).astype("<i2").tobytes()
    made = riff(fmt(rate_hz, samples.shape[1]), (b"data", data))
    at = made.index(b"data") + 4
    return made if data_size is None else made[:at] + struct.pack("<I", data_size) + made[at + 4 :]


def sound_file(
    samples: Samples, rate_hz: int, kind: str, subtype: str | None = None, endian: str | None = None
) -> bytes:
    """A file by libsndfile, written in blocks: one call for a long Ogg can crash libsndfile 1.2.2."""
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate_hz, samples.shape[1], subtype, endian, kind) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return out.getvalue()


def encode(
    samples: Samples, rate_hz: int, container: str, codec: str, muxing: dict[str, str] | None = None, **options: str
) -> bytes:
    """A file by FFmpeg."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with tempfile.NamedTemporaryFile() as out:
        with av.open(out.name, "w", format=container, options=muxing or {}) as file:
            stream = file.add_stream(codec, rate=rate_hz, layout=layout)
            stream.options = {"strict": "experimental", **options}
            formats = stream.codec_context.codec.audio_formats
            convert = av.AudioResampler(formats[0].name if formats else "fltp", layout, rate_hz)
            for start in range(0, len(samples), FRAME):
                part = np.ascontiguousarray(samples[start : start + FRAME].T, np.float32)
                frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
                frame.sample_rate, frame.pts = rate_hz, start
                for converted in convert.resample(frame):
                    file.mux(stream.encode(converted))
            file.mux(stream.encode(None))
        return Path(out.name).read_bytes()


def amr(*frames: bytes) -> bytes:
    return b"#!AMR\n" + b"".join(frames)


def amr_speech(seed: int = 0) -> bytes:
    """One AMR frame of 20 ms at 12.2 kbit/s, of arbitrary speech parameters."""
    return b"\x3c" + np.random.default_rng(seed).bytes(31)


AMR_COMFORT_NOISE = b"\x44" + bytes(5)
AMR_NO_DATA = b"\x7c"


class Embedded:
    """All that came out of a recording."""

    def __init__(self, data: bytes, **settings: Any) -> None:
        self.stream: ClipStream = open_clips(io.BytesIO(data), ClipSettings(**settings))
        self.results = list(self.stream)
        self.clips = [result for result in self.results if isinstance(result, Clip)]

    @property
    def info(self) -> AudioInfo:
        assert self.stream.info is not None
        return self.stream.info

    @property
    def code(self) -> str | None:
        return self.stream.error.code if self.stream.error else None

    @property
    def message(self) -> str:
        return self.stream.error.message if self.stream.error else ""

    def joined(self) -> npt.NDArray[np.float32]:
        """The audio of clips that follow each other without overlap."""
        return np.concatenate([clip.samples[: clip.audio_samples] for clip in self.clips])
