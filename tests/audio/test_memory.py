"""Memory is never taken by what a header claims, nor by how long a recording is."""

import io
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from audio.clips import ClipSettings, open_clips
from audio.recording import Take
from tests.audio.makers import fmt, noise, riff, sound_file, wav


def peak_bytes(data: bytes, takes: Sequence[Take] | None = None) -> int:
    list(open_clips(io.BytesIO(data[:100_000]), ClipSettings(), takes))
    tracemalloc.start()
    try:
        for _ in open_clips(io.BytesIO(data), ClipSettings(), takes):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def claims_10_gb(kind: str) -> bytes:
    """A file of about 1 kB that claims some 10 GB of samples."""
    if kind == "RF64":
        sizes = struct.pack("<QQQI", 10**10, 10**10, 5 * 10**9, 0)
        return b"RF64\xff\xff\xff\xffWAVE" + riff((b"ds64", sizes), fmt(), (b"data", bytes(1_000)))[12:]
    if kind == "W64":
        data = sound_file(noise(500), 16_000, "W64", "PCM_16")
        at = data.index(b"data") + 16
        return data[:at] + struct.pack("<Q", 10**10) + data[at + 8 :]
    if kind == "CAF":
        data = sound_file(noise(500), 16_000, "CAF", "PCM_16")
        at = data.index(b"data") + 4
        return data[:at] + struct.pack(">Q", 10**10) + data[at + 8 :]
    if kind == "FLAC":
        flac = bytearray(sound_file(noise(500), 16_000, "FLAC"))
        flac[18:26] = (int.from_bytes(flac[18:26], "big") >> 36 << 36 | 5 * 10**9).to_bytes(8, "big")
        return bytes(flac)
    if kind == "many channels":
        return riff(fmt(768_000, 64, 32, tag=3), (b"data", bytes(1_024)))
    return wav(noise(500), data_size=4_000_000_000)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "CAF", "FLAC", "many channels"])
def test_a_claim_of_10_gb_takes_no_memory(kind: str) -> None:
    assert peak_bytes(claims_10_gb(kind)) < 8 << 20


def test_a_long_recording_takes_no_more_than_a_short_one() -> None:
    short, long = (peak_bytes(wav(noise(seconds * 44_100, 2), 44_100)) for seconds in (10, 120))
    assert long < short + (1 << 20)


def test_events_hold_only_what_the_present_ones_need() -> None:
    first_and_last = [Take("mean", start, start + 8_000) for start in (0, 110 * 16_000)]
    everywhere = [Take("mean", start, start + 40_000) for start in range(0, 110 * 16_000, 8_000)]
    short, long = (peak_bytes(wav(noise(seconds * 8_000), 8_000), first_and_last) for seconds in (10, 120))
    assert long < short + (1 << 19)
    assert peak_bytes(wav(noise(120 * 8_000), 8_000), everywhere) < short + (1 << 19)


def test_half_an_hour_is_decoded_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.wav"
    frames = 1_800 * 44_100
    with path.open("wb") as file:
        file.write(riff(fmt(44_100, 2), (b"data", b""))[:-4] + struct.pack("<I", frames * 4))
        file.truncate(44 + frames * 4)
    script = (
        "import resource, sys\n"
        "from audio.clips import ClipSettings, open_clips\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    stream = open_clips(file, ClipSettings())\n"
        "    print(sum(1 for _ in stream), stream.error, used() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    clips, error, grown_kib = done.stdout.split()
    assert (clips, error) == ("900", "None")
    assert int(grown_kib) < 40_000
