"""Cut or whole, a recording gives the same clips."""

import io
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.clips import Clip, ClipSettings, ClipStream, FailedClip, SkippedClip, open_clips
from audio.recording import Recording, Segment, Take
from audio.segments import cut
from audio.stretches import STRETCH_S
from tests.audio.makers import encode, fmt, int16, noise, riff, sound_file, wav

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 12_345, 7_919, 1_000)
KINDS = (
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
)
STRETCH = 3


def recording(data: bytes) -> Recording:
    return Recording("/in/a.wav", "1-1", len(data))


def segments(
    data: bytes, takes: tuple[Take, ...], chosen: ClipSettings, stretch_s: int = STRETCH
) -> tuple[Segment, ...]:
    return cut(recording(data), io.BytesIO(data), takes, chosen, min_bytes=0, stretch_s=stretch_s)


def described(result: Any, takes: tuple[Take, ...]) -> tuple[Any, ...]:
    """All there is to know of a result; which takes want it by value, as segments number theirs by themselves."""
    wanted = tuple(sorted((str(takes[take]), index) for take, index in result.wanted))
    rest: tuple[Any, ...]
    match result:
        case Clip():
            rest = (
                result.audio_start, result.audio_stop, result.samples.tobytes(), result.rms_dbfs, result.peak_dbfs
            )  # fmt: skip
        case SkippedClip():
            rest = (result.reason,)
        case FailedClip():
            rest = (result.code,)
    return type(result).__name__, result.start_sample, result.channel, result.limits, wanted, *rest


def failed(stream: ClipStream, takes: tuple[Take, ...]) -> list[tuple[Take, str]]:
    return [(takes[take], code) for take, code, _ in stream.failed_takes]


def check_cut(
    data: bytes, takes: tuple[Take, ...], chosen: ClipSettings, stretch_s: int = STRETCH
) -> tuple[Segment, ...]:
    """Assert that the segments' clips are those of the whole; return the segments."""
    whole = open_clips(io.BytesIO(data), chosen, takes, stretch_s=stretch_s)
    expected = [described(result, takes) for result in whole]
    assert whole.error is None
    found, duration_s = [], 0.0
    lost: list[tuple[Take, str]] = []
    parts = segments(data, takes, chosen, stretch_s)
    for part in parts:
        stream = open_clips(io.BytesIO(data), chosen, part.takes, part.start_s, part.stop_s, stretch_s=stretch_s)
        found += [described(result, part.takes) for result in stream]
        assert stream.error is None
        assert stream.info is not None
        duration_s += stream.info.duration_s or 0
        lost += failed(stream, part.takes)
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [row[1:3] for row in expected] == sorted(
        (row[1:3] for row in expected), key=lambda place: (place[0], -1 if place[1] == "mean" else int(place[1]))
    )
    assert sorted(lost, key=str) == sorted(failed(whole, takes), key=str)
    assert whole.info is not None
    if any(take.stop is None for take in takes):
        assert duration_s == pytest.approx(whole.info.duration_s)
    return parts


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rate_hz=st.sampled_from(RATES_HZ),
    frames=st.floats(0.01, 16.5),
    channels=st.integers(1, 3),
    channel=st.sampled_from(["mean", "each", "0"]),
    hop_s=st.sampled_from([0.1, 0.5, 1.7, 2.0, 2.5, 7.0]),
    tail=st.sampled_from(["pad", "shift", "drop"]),
    bad=st.lists(st.floats(0, 16.5), max_size=2),
)
def test_the_whole_recording(
    kind: tuple[str, str],
    rate_hz: int,
    frames: float,
    channels: int,
    channel: str,
    hop_s: float,
    tail: Any,
    bad: list[float],
) -> None:
    samples = noise(max(1, round(frames * rate_hz)), channels)
    for place in bad if kind[1] == "FLOAT" else ():
        samples[int(place * rate_hz) : int(place * rate_hz) + 1] = np.nan
    data = sound_file(samples, rate_hz, *kind)
    if len(samples) * 16_000 < rate_hz:
        return
    parts = check_cut(data, (Take(channel),), ClipSettings(hop_s=hop_s, tail=tail))
    count = -(-len(samples) // (STRETCH * rate_hz))
    is_last_short = len(samples) < ((count - 1) * STRETCH + 5) * rate_hz
    assert len(parts) == max(1, count - is_last_short)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rate_hz=st.sampled_from(RATES_HZ),
    length_s=st.floats(6, 20),
    events=st.lists(
        st.tuples(st.sampled_from(["mean", "each", "0", "1"]), st.integers(0, 22 * 16), st.integers(0, 9 * 16)),
        max_size=12,
    ),
    with_whole=st.booleans(),
    hop_s=st.sampled_from([0.5, 2.0, 2.5]),
    tail=st.sampled_from(["pad", "shift", "drop"]),
    context=st.sampled_from(["audio", "zeros"]),
)
def test_events(
    kind: tuple[str, str],
    rate_hz: int,
    length_s: float,
    events: list[tuple[str, int, int]],
    with_whole: bool,
    hop_s: float,
    tail: Any,
    context: Any,
) -> None:
    data = sound_file(noise(round(length_s * rate_hz)), rate_hz, *kind)
    takes = {Take(channel, start * 1_000, (start + length) * 1_000) for channel, start, length in events}
    takes |= {Take("mean")} if with_whole or not takes else set()
    check_cut(data, tuple(sorted(takes, key=str)), ClipSettings(hop_s=hop_s, tail=tail, event_context=context))


@pytest.mark.parametrize(("rate_hz", "kind"), [(11_025, "WAV"), (8_000, "FLAC")])
def test_at_the_real_length(rate_hz: int, kind: str) -> None:
    samples = noise(round(1000.5 * rate_hz))
    data = sound_file(samples, rate_hz, kind, "PCM_16")
    parts = check_cut(data, (Take("mean"),), ClipSettings(hop_s=1.7, tail="shift"), STRETCH_S)
    assert [(part.start_s, part.stop_s) for part in parts] == [(0, 300), (300, 600), (600, 900), (900, None)]


@pytest.mark.parametrize("rate_hz", [7_919, 8_000, 44_100, 96_000])
def test_samples_are_those_of_each_stretch_resampled_by_itself(rate_hz: int) -> None:
    samples = int16(noise(round(10.4 * rate_hz)))
    mono = samples[:, 0] / np.float32(32_768)
    stretches = []
    for start_s in range(0, 11, STRETCH):
        begin_s = max(0, start_s - 1)
        made = soxr.resample(mono[begin_s * rate_hz : (start_s + STRETCH + 1) * rate_hz], rate_hz, 16_000, "HQ")
        stretches.append(made[(start_s - begin_s) * 16_000 :][: STRETCH * 16_000])
    expected = np.concatenate(stretches)
    data = wav(samples / 32_767, rate_hz)
    clips = list(open_clips(io.BytesIO(data), ClipSettings(min_audio_s=0), stretch_s=STRETCH))
    joined = np.concatenate([clip.samples[: clip.audio_samples] for clip in clips if isinstance(clip, Clip)])
    np.testing.assert_array_equal(joined, expected)
    whole = soxr.resample(mono, rate_hz, 16_000, "HQ")
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_what_is_not_needed_is_not_decoded() -> None:
    data = sound_file(noise(30 * 8_000), 8_000, "WAV", "PCM_16")
    takes = (Take("mean", 10 * 16_000, 11 * 16_000), Take("mean", 22 * 16_000, 23 * 16_000))
    parts = segments(data, takes, ClipSettings())
    assert [(part.start_s, part.stop_s, part.takes) for part in parts] == [(9, 12, takes[:1]), (21, 24, takes[1:])]
    file = CountingFile(data)
    stream = open_clips(file, ClipSettings(), parts[1].takes, 21, 24, stretch_s=STRETCH)
    assert len(list(stream)) == 1
    assert file.seen_bytes < 2 * 8_000 * 10


def test_a_header_is_read_without_the_samples() -> None:
    for kind, most in (("WAV", 10_000), ("FLAC", 300_000)):
        data = sound_file(noise(600 * 8_000), 8_000, kind, "PCM_16")
        file = CountingFile(data)
        parts = cut(recording(data), file, (Take("mean"),), ClipSettings(), min_bytes=0)
        assert len(parts) == 2
        assert file.seen_bytes < most


class CountingFile(io.BytesIO):
    """Counts what is read of it."""

    seen_bytes = 0

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self.seen_bytes += size
        return size

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.seen_bytes += len(data)
        return data


SAMPLES = noise(20 * 8_000)
FLAC = sound_file(SAMPLES, 8_000, "FLAC")


def flac_of_length(frames: int) -> bytes:
    data = bytearray(FLAC)
    data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36 | frames).to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"not audio at all" * 100,
        wav(SAMPLES, 8_000)[:-5],
        wav(SAMPLES, 8_000, data_size=0),
        wav(SAMPLES, 8_000, data_size=0xFFFF_FFFF),
        wav(SAMPLES, 8_000, data_size=2 * 20 * 8_000 + 10),
        FLAC[: len(FLAC) * 6 // 10],
        flac_of_length(0),
        flac_of_length((1 << 36) - 1),
        flac_of_length(30 * 8_000),
        riff(fmt(0), (b"data", bytes(400_000))),
        riff(fmt(8_000, 200), (b"data", bytes(400_000))),
        sound_file(SAMPLES, 8_000, "WAV", "IMA_ADPCM"),
        sound_file(SAMPLES, 8_000, "AIFF"),
        sound_file(SAMPLES, 8_000, "OGG"),
        sound_file(SAMPLES, 8_000, "MP3"),
        encode(SAMPLES, 8_000, "matroska", "flac"),
    ],
)
def test_what_cannot_be_entered_exactly_is_one_segment(data: bytes) -> None:
    takes = (Take("mean"), Take("mean", 5, 1_000))
    assert segments(data, takes, ClipSettings()) == (Segment(recording(data), takes),)


def test_only_large_recordings_are_cut() -> None:
    data = wav(noise(20 * 8_000), 8_000)
    for min_bytes, count in ((len(data), 1), (len(data) - 1, 6)):
        file = io.BytesIO(data)
        assert (
            len(cut(recording(data), file, (Take("mean"),), ClipSettings(), min_bytes=min_bytes, stretch_s=3)) == count
        )


def test_a_file_that_cannot_be_read_is_one_segment() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is gone")

    data = wav(noise(20 * 8_000), 8_000)
    takes = (Take("mean"),)
    assert cut(recording(data), Broken(data), takes, ClipSettings(), min_bytes=0) == (Segment(recording(data), takes),)


def test_takes_of_no_channel_or_beyond_the_end_are_in_one_segment_each() -> None:
    data = wav(noise(20 * 8_000), 8_000)
    beyond, elsewhere = Take("0", 20 * 16_000, 21 * 16_000), Take("7")
    first, *middle, last = segments(data, (Take("mean"), beyond, elsewhere), ClipSettings())
    assert first.takes == (elsewhere, Take("mean"))
    assert last.takes == (beyond, Take("mean"))
    assert {part.takes for part in middle} == {(Take("mean"),)}
    assert segments(data, (elsewhere,), ClipSettings()) == (Segment(recording(data), (elsewhere,)),)
    (only,) = segments(data, (beyond,), ClipSettings())
    assert (only.start_s, only.stop_s, only.takes) == (15, None, (beyond,))


def cut_in_three(data: bytes, **chosen: Any) -> list[ClipStream]:
    """A recording of 20 s in segments of 6 s: streams that are at their ends."""
    streams = []
    for start_s, stop_s in ((0, 6), (6, 12), (12, None)):
        stream = open_clips(io.BytesIO(data), ClipSettings(**chosen), None, start_s, stop_s, stretch_s=6)
        streams.append(stream)
    return streams


def clips_of(stream: ClipStream) -> dict[int, bytes]:
    return {result.start_sample: result.samples.tobytes() for result in stream if isinstance(result, Clip)}


def test_flac_that_is_damaged_inside() -> None:
    data = bytearray(FLAC)
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    whole = open_clips(io.BytesIO(bytes(data)), ClipSettings(), stretch_s=6)
    expected = clips_of(whole)
    assert whole.error is not None
    assert whole.info is not None
    assert len(segments(bytes(data), (Take("mean"),), ClipSettings())) == 6
    found: dict[int, bytes] = {}
    streams = cut_in_three(bytes(data))
    for stream in streams:
        found |= clips_of(stream)
    assert found == expected
    assert [stream.error.code if stream.error else None for stream in streams] == [None, "damaged", None]
    # libsndfile gives up a block of 4 s.
    assert whole.error_s == pytest.approx(10, abs=4)
    assert streams[1].error_s == pytest.approx(10, abs=4)
    assert [stream.info.gaps for stream in streams if stream.info] == [0, 1, 0]


@pytest.mark.parametrize("seed", range(12))
def test_flac_that_is_damaged_anywhere(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(FLAC)
    for place in random.integers(1_000, len(data) - 1_000, random.integers(1, 4)):
        data[place : place + 200] = random.bytes(200)
    whole = open_clips(io.BytesIO(bytes(data)), ClipSettings(), stretch_s=6)
    expected = clips_of(whole)
    found: dict[int, bytes] = {}
    streams = cut_in_three(bytes(data))
    for stream in streams:
        found |= clips_of(stream)
    assert found == expected
    assert any(stream.error is not None for stream in streams) == (whole.error is not None)
    assert whole.info is not None
    assert sum(stream.info.duration_s or 0 for stream in streams if stream.info) == whole.info.duration_s
    assert sum(stream.info.gaps for stream in streams if stream.info) == whole.info.gaps


def test_flac_by_another_encoder() -> None:
    data = encode(noise(14 * 44_100, 2), 44_100, "flac", "flac")
    assert len(check_cut(data, (Take("each"), Take("mean", 90_000, 170_000)), ClipSettings(hop_s=0.7))) == 4


def test_flac_that_ends_early_in_segments_that_trusted_its_header() -> None:
    data = FLAC[: len(FLAC) * 6 // 10]
    whole = open_clips(io.BytesIO(data), ClipSettings(), stretch_s=6)
    expected = clips_of(whole)
    found: dict[int, bytes] = {}
    streams = cut_in_three(data)
    for stream in streams:
        found |= clips_of(stream)
    assert found == expected
    assert streams[0].error is None
    assert streams[2].error is not None
    assert streams[2].error.code == "truncated"


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_storage_that_fails_is_told_as_such(kind: str) -> None:
    class Failing(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            if self.tell() > 100_000:
                raise OSError("the disk is gone")
            return super().readinto(buffer)

    data = sound_file(noise(20 * 8_000), 8_000, kind, "PCM_16")
    stream = open_clips(Failing(data), ClipSettings(), start_s=12, stretch_s=6)
    assert list(stream) == []
    assert stream.error is not None
    assert stream.error.code == "storage_error"


def test_a_part_beyond_the_end() -> None:
    stream = open_clips(io.BytesIO(wav(noise(20 * 8_000), 8_000)), ClipSettings(), start_s=30, stretch_s=6)
    assert list(stream) == []
    assert stream.error is not None
    assert (stream.error.code, stream.error_s) == ("truncated", 20)
    assert "before 30 s" in stream.error.message


def test_a_part_that_begins_where_no_stretch_does_is_refused() -> None:
    with pytest.raises(ValueError, match="start_s is 10; expected a multiple of 300"):
        open_clips(io.BytesIO(FLAC), ClipSettings(), start_s=10)
