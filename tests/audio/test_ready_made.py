import io
import struct
from collections.abc import Callable

import numpy as np
import pytest

from audio.clips import Clip, ClipSettings, open_clips
from audio.ready_made import may_be_ready_made, ready_made
from audio.recording import Recording
from tests.audio.makers import encode, fmt, noise, riff, sound_file, wav

URI = "gs://coughs/a/b.wav"
CLIP = noise(32_000)


def recording(data: bytes, uri: str = URI) -> Recording:
    return Recording(uri, "17", len(data))


def clips(data: bytes, settings: ClipSettings | None = None) -> list[Clip]:
    return [item for item in open_clips(io.BytesIO(data), settings or ClipSettings()) if isinstance(item, Clip)]


def held_clips(data: bytes, settings: ClipSettings | None = None, uri: str = URI) -> list[bool]:
    """Of each clip that the recording gives, whether its own object holds it."""
    found = ready_made(recording(data, uri), io.BytesIO(data))
    return [found is not None and found.holds(clip) for clip in clips(data, settings)]


def pcm(frames: int) -> tuple[bytes, bytes]:
    return b"data", (noise(frames, seed=frames)[:, 0] * 32767).astype("<i2").tobytes()


def test_an_object_that_is_a_clip_is_found_with_its_name() -> None:
    data = wav(CLIP)
    assert len(data) == 64_044
    found = ready_made(recording(data), io.BytesIO(data))
    assert found is not None
    assert (found.bucket, found.name) == ("coughs", "a/b.wav")
    assert held_clips(data) == [True]


def test_neither_samples_nor_metadata_show_in_its_repr() -> None:
    data = wav(CLIP)
    assert repr(ready_made(recording(data), io.BytesIO(data))) == "ReadyMade(bucket='coughs', name='a/b.wav')"


@pytest.mark.parametrize(
    "data",
    [
        riff(fmt(), (b"LIST", b"INFOISFT\x04\0\0\0Lavf"), pcm(32_000)),
        riff((b"bext", b"x" * 603), fmt(), pcm(32_000), (b"id3 ", b"y" * 301)),
        sound_file(CLIP, 16_000, "WAV", "PCM_16"),
        encode(CLIP, 16_000, "wav", "pcm_s16le"),
    ],
    ids=["list", "broadcast", "libsndfile", "ffmpeg"],
)
def test_other_chunks_do_no_harm(data: bytes) -> None:
    assert held_clips(data) == [True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: wav(noise(31_999)),
        lambda: wav(noise(32_001)),
        lambda: wav(noise(64_000)),
        lambda: wav(noise(16_000, 2)),
        lambda: wav(noise(32_000, 2)),
        lambda: wav(CLIP, rate_hz=16_001),
        lambda: wav(CLIP, rate_hz=8_000),
        lambda: wav(CLIP, data_size=0xFFFF_FFFF),
        lambda: wav(CLIP, data_size=63_998),
        lambda: riff(fmt(), pcm(32_000), size=0xFFFF_FFFF),
        lambda: riff(fmt(), pcm(32_000), size=30_000),
        lambda: riff(fmt(bits=8), (b"data", bytes(64_000))),
        lambda: riff(fmt(tag=0xFFFE), pcm(32_000)),
        lambda: riff(pcm(32_000), fmt()),
        lambda: riff(fmt(), pcm(16_000), pcm(16_000)),
        lambda: riff(fmt(), (b"LIST", bytes(70_000)), pcm(32_000)),
        lambda: b"RIFX" + wav(CLIP)[4:],
        lambda: wav(CLIP)[:-1],
        lambda: bytes(64_044),
        lambda: b"RIFF" + struct.pack("<I", 64_036) + b"WAVE" + bytes(64_032),
        lambda: sound_file(CLIP, 16_000, "WAVEX", "PCM_16"),
        lambda: sound_file(CLIP, 16_000, "RF64", "PCM_16"),
        lambda: sound_file(CLIP, 16_000, "AIFF", "PCM_16"),
        lambda: sound_file(CLIP, 16_000, "W64", "PCM_16"),
        lambda: sound_file(CLIP, 16_000, "WAV", "PCM_24"),
        lambda: sound_file(CLIP, 16_000, "WAV", "PCM_16", "BIG"),
        lambda: sound_file(CLIP, 16_000, "FLAC", "PCM_16"),
    ],
)
def test_everything_else_is_to_be_staged(make: Callable[[], bytes]) -> None:
    assert ready_made(recording(make()), io.BytesIO(make())) is None


def test_local_files_are_to_be_staged() -> None:
    data = wav(CLIP)
    assert ready_made(recording(data, "/data/a.wav"), io.BytesIO(data)) is None
    assert not may_be_ready_made(recording(data, "/data/a.wav"))


@pytest.mark.parametrize("settings", [ClipSettings(hop_s=1.0), ClipSettings(channel="0"), ClipSettings(tail="shift")])
def test_whatever_the_settings_the_object_holds_its_one_clip(settings: ClipSettings) -> None:
    assert held_clips(wav(CLIP), settings) == [True]


def test_a_clip_of_other_samples_is_not_held() -> None:
    found = ready_made(recording(wav(CLIP)), io.BytesIO(wav(CLIP)))
    (other,) = clips(wav(noise(32_000, seed=1)))
    assert found is not None
    assert not found.holds(other)


def test_a_padded_clip_is_not_held_though_its_samples_are_the_same() -> None:
    quiet = np.concatenate([noise(20_000), np.zeros((12_000, 1), np.float32)])
    found = ready_made(recording(wav(quiet)), io.BytesIO(wav(quiet)))
    (padded,) = clips(wav(quiet[:20_000]))
    (whole,) = clips(wav(quiet))
    assert found is not None
    assert np.array_equal(padded.samples, whole.samples)
    assert found.holds(whole)
    assert not found.holds(padded)


def test_the_file_is_left_as_it_was() -> None:
    file = io.BytesIO(wav(CLIP))
    file.seek(7)
    assert ready_made(recording(wav(CLIP)), file) is not None
    assert file.tell() == 7


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("read")


@pytest.mark.parametrize("size", [0, 64_043, 200_000, 1 << 40])
def test_what_cannot_be_a_clip_by_its_size_is_not_even_read(size: int) -> None:
    assert ready_made(Recording(URI, "1", size), Unreadable()) is None


def test_objects_that_are_other_than_listed_are_to_be_staged() -> None:
    longer = wav(noise(100_000))
    assert ready_made(Recording(URI, "1", 64_044), io.BytesIO(longer)) is None
