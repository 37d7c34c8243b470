"""Hours-long recordings pass through in bounded memory: of the command and all its child processes together."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from emulator.process import start_local_endpoint
from tests.audio.makers import encode, fmt, int16, noise
from tests.e2e.memory import MemoryPeak
from tests.e2e.running import REPOSITORY, recordings, summary_of

ALLOWED_BYTES = 400_000_000
WAV_RATE_HZ, WAV_S = 48_000, 10 * 3600
M4A_RATE_HZ, M4A_MINUTES = 44_100, 120
NOISE_S = 4


def test_ten_hours_of_wav_and_two_of_m4a_take_less_than_400_mb(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_wav(folder / "night.wav", [0, WAV_S // 2, WAV_S - NOISE_S])
    write_m4a(folder / "visit.m4a")
    prefix = tmp_path / "rows"
    with start_local_endpoint() as local:
        command = [sys.executable, "-m", "pipeline", "--input", str(folder), "--output", str(prefix)]
        command += ["--output_format", "parquet", "--min_rms_dbfs=-60"]
        command += ["--endpoint", local.endpoint_name, "--endpoint_host", local.host]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        with (
            subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as process,
            MemoryPeak(process.pid) as memory,
        ):
            assert process.wait(600) == 0
    rows = recordings(prefix)
    night, visit = rows[str(folder / "night.wav")], rows[str(folder / "visit.m4a")]
    assert (night["duration_s"], night["embedded"], night["clips"]) == (WAV_S, 3 * NOISE_S // 2, WAV_S // 2)
    assert abs(visit["duration_s"] - 60 * M4A_MINUTES) < 10
    assert visit["embedded"] >= M4A_MINUTES * NOISE_S // 2
    assert night["failed"] == visit["failed"] == 0
    assert summary_of(prefix)["embedded"] == night["embedded"] + visit["embedded"]
    assert memory.samples > 10
    assert len(memory.parts) > 1, "decoding is done in child processes"
    assert memory.together < ALLOWED_BYTES, {name: f"{size / 1e6:.0f} MB" for name, size in memory.parts.items()}


def write_wav(path: Path, noise_at_s: list[int]) -> None:
    """Silence, as holes in the file, with noise at these places: RF64, as it is larger than a WAV file can say."""
    data_bytes = WAV_S * WAV_RATE_HZ * 4
    frames = WAV_S * WAV_RATE_HZ
    name, format_data = fmt(WAV_RATE_HZ, 2)
    header = b"RF64\xff\xff\xff\xffWAVE"
    header += b"ds64" + struct.pack("<IQQQI", 28, data_bytes + 72, data_bytes, frames, 0)
    header += name + struct.pack("<I", len(format_data)) + format_data + b"data\xff\xff\xff\xff"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data_bytes)
        for start_s in noise_at_s:
            file.seek(len(header) + start_s * WAV_RATE_HZ * 4)
            file.write(int16(noise(NOISE_S * WAV_RATE_HZ, 2)).astype("<i2").tobytes())


def write_m4a(path: Path) -> None:
    """A minute of AAC, mostly of silence, again and again."""
    minute = np.zeros((60 * M4A_RATE_HZ, 1), np.float32)
    minute[10 * M4A_RATE_HZ : (10 + NOISE_S) * M4A_RATE_HZ] = noise(NOISE_S * M4A_RATE_HZ)
    encoded = path.with_name("minute")
    encoded.write_bytes(encode(minute, M4A_RATE_HZ, "mp4", "aac"))
    with av.open(str(encoded)) as source, av.open(str(path), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        # Without the first, which the decoder leaves out at the beginning of a file.
        packets = [(bytes(packet), packet.duration) for packet in source.demux(audio=0) if packet.size][1:]
        at = 0
        for _ in range(M4A_MINUTES):
            for data, duration in packets:
                packet = av.Packet(data)
                packet.stream, packet.pts, packet.dts, packet.duration = stream, at, at, duration
                packet.time_base = source.streams.audio[0].time_base
                target.mux(packet)
                at += duration or 0
    encoded.unlink()
