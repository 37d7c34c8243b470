"""Clips of annotated events, against slices of the whole recording resampled at once."""

import io
from typing import Any, NamedTuple

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.clips import CLIP_SAMPLES, Clip, ClipSettings, ClipStream, FailedClip, SkippedClip, Wanted, open_clips
from audio.recording import Take
from tests.audio.makers import int16, noise, sound_file, wav

L = CLIP_SAMPLES
SAMPLES = int16(noise(100_000))
DATA = wav(SAMPLES / 32_767)
WHOLE = SAMPLES[:, 0] / np.float32(32_768)


def opened(data: bytes, *takes: Take, **chosen: Any) -> ClipStream:
    return open_clips(io.BytesIO(data), ClipSettings(**chosen), takes)


def only(data: bytes, take: Take, **chosen: Any) -> Clip:
    (clip,) = opened(data, take, **chosen)
    assert isinstance(clip, Clip)
    return clip


def event(start: int, stop: int, channel: str = "mean") -> Take:
    return Take(channel, start, stop)


def test_a_short_event_is_in_the_middle_of_its_clip() -> None:
    clip = only(DATA, event(40_000, 44_000))
    assert (clip.start_sample, clip.audio_start, clip.audio_stop) == (26_000, 26_000, 58_000)
    assert (clip.limits, clip.wanted, clip.channel) == (None, (Wanted(0, 0),), "mean")
    assert (clip.start_s, clip.end_s, clip.padded_s) == (1.625, 3.625, 0)
    np.testing.assert_array_equal(clip.samples, WHOLE[26_000:58_000])


def test_a_short_event_among_zeros() -> None:
    clip = only(DATA, event(40_000, 44_000), event_context="zeros")
    assert (clip.start_sample, clip.limits) == (26_000, (40_000, 44_000))
    assert (clip.start_s, clip.end_s, clip.padded_s) == (2.5, 2.75, 1.75)
    np.testing.assert_array_equal(clip.samples[14_000:18_000], WHOLE[40_000:44_000])
    assert not clip.samples[:14_000].any()
    assert not clip.samples[18_000:].any()
    assert clip.rms_dbfs == pytest.approx(10 * np.log10(np.mean(WHOLE[40_000:44_000] ** 2)), abs=1e-3)


@pytest.mark.parametrize("context", ["audio", "zeros"])
def test_an_event_of_exactly_a_clip(context: str) -> None:
    clip = only(DATA, event(5_000, 37_000), event_context=context)
    assert (clip.start_sample, clip.limits, clip.padded_s) == (5_000, None, 0)
    np.testing.assert_array_equal(clip.samples, WHOLE[5_000:37_000])


def test_beyond_the_recordings_borders_are_zeros() -> None:
    clip = only(DATA, event(1_000, 2_000))
    assert (clip.start_sample, clip.audio_start, clip.audio_stop) == (-14_500, 0, 17_500)
    assert not clip.samples[:14_500].any()
    np.testing.assert_array_equal(clip.samples[14_500:], WHOLE[:17_500])
    clip = only(DATA, event(99_000, 99_001))
    assert (clip.start_sample, clip.audio_start, clip.audio_stop) == (83_000, 83_000, 100_000)
    np.testing.assert_array_equal(clip.samples[:17_000], WHOLE[83_000:])
    assert not clip.samples[17_000:].any()


def test_limits_are_told_only_where_audio_is_cut_away() -> None:
    assert only(DATA, event(0, 100_000), event_context="zeros", hop_s=100).limits is None
    tiny = wav(SAMPLES[:1_000] / 32_767)
    assert only(tiny, event(0, 1_000), event_context="zeros").limits is None
    assert only(tiny, event(0, 2_000), event_context="zeros").limits is None
    assert only(tiny, event(0, 999), event_context="zeros").limits == (0, 999)


def test_a_long_event_goes_on_with_the_audio_after_it() -> None:
    first, last = opened(DATA, event(10_000, 60_000))
    assert isinstance(last, Clip)
    assert (first.start_sample, last.start_sample, last.limits, last.padded_s) == (10_000, 42_000, None, 0)
    np.testing.assert_array_equal(last.samples, WHOLE[42_000:74_000])


def test_a_long_event_among_zeros_is_padded() -> None:
    first, last = opened(DATA, event(10_000, 60_000), event_context="zeros")
    assert isinstance(last, Clip)
    assert (first.limits, last.limits, last.padded_s) == (None, (42_000, 60_000), 14_000 / 16_000)
    np.testing.assert_array_equal(last.samples[:18_000], WHOLE[42_000:60_000])
    assert not last.samples[18_000:].any()


@pytest.mark.parametrize("context", ["audio", "zeros"])
def test_the_tail_of_a_long_event(context: str) -> None:
    short_tail = event(10_000, 10_000 + L + 7_999)
    skipped = SkippedClip("mean", 10_000 + L, None, (Wanted(0, 1),), "too_short")
    limits = None if context == "audio" else (10_000 + L, 10_000 + L + 7_999)
    for chosen in ({}, {"tail": "drop"}):
        results = list(opened(DATA, short_tail, event_context=context, **chosen))
        assert results[1] == SkippedClip(skipped.channel, skipped.start_sample, limits, skipped.wanted, "too_short")
    _, last = opened(DATA, short_tail, tail="shift", event_context=context)
    assert isinstance(last, Clip)
    assert (last.start_sample, last.limits) == (17_999, None)


def test_takes_that_want_the_same_clip_share_it() -> None:
    takes = (Take("0"), Take("mean"), event(0, L), event(L, 2 * L), event(L, 70_000), event(40_000, 56_000))
    results = [(result.channel, result.start_sample, result.wanted) for result in opened(DATA, *takes)]
    assert results == [
        ("mean", 0, ((1, 0), (2, 0))),
        ("0", 0, ((0, 0),)),
        ("mean", L, ((1, 1), (3, 0), (4, 0), (5, 0))),
        ("0", L, ((0, 1),)),
        ("mean", 2 * L, ((1, 2),)),
        ("mean", 2 * L, ((4, 1),)),
        ("0", 2 * L, ((0, 2),)),
        ("mean", 3 * L, ((1, 3),)),
        ("0", 3 * L, ((0, 3),)),
    ]


def test_a_place_that_is_too_short_for_one_take_is_a_clip_for_another() -> None:
    results = [result for result in opened(DATA, Take("mean"), event(0, 2 * L + 5)) if result.start_sample == 2 * L]
    assert [(type(result), result.wanted) for result in results] == [
        (Clip, ((0, 2),)),
        (SkippedClip, ((1, 2),)),
    ]


def test_events_that_begin_at_or_after_the_end() -> None:
    takes = (event(99_999, 200_000), event(100_000, 100_001), event(150_000, 300_000), Take("mean"))
    stream = opened(DATA, *takes, min_audio_s=0)
    assert [result.wanted for result in stream] == [((3, 0),), ((3, 1),), ((3, 2),), ((3, 3),), ((0, 0),)]
    assert [(failed.take, failed.code) for failed in stream.failed_takes] == [
        (1, "event_beyond_end"),
        (2, "event_beyond_end"),
    ]
    assert stream.failed_takes[0].message.startswith("the event begins at 6.250 s, and the recording ends at 6.250 s")
    assert stream.error is None


def test_channels_that_are_not_there() -> None:
    stream = opened(DATA, event(5, 10, "3"), event(5, 10), Take("1"))
    assert [result.wanted for result in stream] == [((1, 0),)]
    assert [(failed.take, failed.code) for failed in stream.failed_takes] == [
        (0, "no_such_channel"),
        (2, "no_such_channel"),
    ]
    assert stream.error is None
    stream = opened(DATA, event(5, 10, "3"))
    assert list(stream) == []
    assert [failed.code for failed in stream.failed_takes] == ["no_such_channel"]
    assert (stream.error, stream.info and stream.info.duration_s) == (None, 6.25)
    stream = opened(DATA, Take("3"))
    assert list(stream) == []
    assert (stream.failed_takes, stream.error and stream.error.code) == ([], "no_such_channel")


def test_no_takes_give_no_clips_but_what_the_recording_is() -> None:
    stream = opened(DATA)
    assert list(stream) == []
    assert (stream.error, stream.info and stream.info.duration_s) == (None, 6.25)


def test_of_a_recording_that_ends_early_whole_clips_are_left() -> None:
    cut = DATA[:-100_000]
    stream = opened(cut, event(1_000, 2_000), event(49_000, 49_010), event(60_000, 61_000), event(0, 90_000))
    assert [(result.start_sample, result.wanted) for result in stream] == [(-14_500, ((0, 0),)), (0, ((3, 0),))]
    assert stream.error is not None
    assert (stream.error.code, stream.failed_takes) == ("truncated", [])


def test_bad_samples_fail_the_events_whose_audio_they_touch() -> None:
    samples = SAMPLES / np.float32(32_768)
    samples[50_000] = np.nan
    data = sound_file(samples, 16_000, "WAV", "FLOAT")
    near = event(40_000, 44_000)
    (failed,) = opened(data, near)
    assert isinstance(failed, FailedClip)
    assert isinstance(only(data, near, event_context="zeros"), Clip)


def test_thousands_of_events() -> None:
    data = wav(noise(60 * 16_000))
    takes = [event(start, start + length) for start in range(0, 960_000, 400) for length in (100, 40_000)]
    stream = opened(data, *takes)
    assert sum(len(result.wanted) for result in stream) == 2_400 + 2_400 + 2_320
    assert stream.failed_takes == []


class Expected(NamedTuple):
    start: int
    index: int
    audio_start: int
    audio_stop: int
    limits: tuple[int, int] | None
    skipped: bool


def expected_of(take: Take, n: int, chosen: ClipSettings) -> list[Expected]:
    """The rules, for one take of a recording of `n` samples."""
    first, stop = take.start, n if take.stop is None else take.stop
    if first >= n:
        return []
    if take.stop is not None and stop - first <= L:
        places = [((first + stop) // 2 - L // 2, False)]
    else:
        stop = min(stop, n)
        places = []
        for start in range(first, stop, chosen.hop_samples):
            lacking = start + L - stop
            if lacking > 0 and chosen.tail == "shift":
                start = max(first, stop - L)
            too_little = stop - start < chosen.min_audio_s * 16_000 and bool(places)
            short = stop - start < L and (chosen.tail == "drop" or too_little)
            places.append((start, short))
            if lacking >= 0:
                break
    found = []
    for index, (start, short) in enumerate(places):
        real = (max(start, 0), min(start + L, n))
        audio = real
        if chosen.event_context == "zeros" and take.stop is not None:
            audio = (max(real[0], first), min(real[1], take.stop))
        found.append(Expected(start, index, *audio, None if audio == real else audio, short or audio[0] == audio[1]))
    return found


@settings(max_examples=50, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 16_000, 22_050]),
    seconds=st.floats(0.5, 8),
    events=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 90)), min_size=1, max_size=10),
    with_whole=st.booleans(),
    hop_s=st.sampled_from([0.5, 2.0, 2.5]),
    tail=st.sampled_from(["pad", "shift", "drop"]),
    context=st.sampled_from(["audio", "zeros"]),
)
def test_clips_are_slices_of_the_whole(
    rate_hz: int,
    seconds: float,
    events: list[tuple[int, int]],
    with_whole: bool,
    hop_s: float,
    tail: Any,
    context: Any,
) -> None:
    samples = int16(noise(round(seconds * rate_hz)))
    mono = samples[:, 0] / np.float32(32_768)
    whole = mono if rate_hz == 16_000 else soxr.resample(mono, rate_hz, 16_000, "HQ")
    takes = [event(start * 1_000, (start + length) * 1_000) for start, length in events]
    takes += [Take("mean")] if with_whole else []
    chosen = ClipSettings(hop_s=hop_s, tail=tail, event_context=context)
    stream = open_clips(io.BytesIO(wav(samples / 32_767, rate_hz)), chosen, takes)
    expected: dict[tuple[int, Any, bool], list[Wanted]] = {}
    audio: dict[tuple[int, Any, bool], tuple[int, int]] = {}
    for number, take in enumerate(takes):
        for place in expected_of(take, len(whole), chosen):
            key = (place.start, place.limits, place.skipped)
            expected.setdefault(key, []).append(Wanted(number, place.index))
            audio[key] = (place.audio_start, place.audio_stop)
    found = {}
    starts = []
    for result in stream:
        assert isinstance(result, Clip | SkippedClip)
        key = (result.start_sample, result.limits, isinstance(result, SkippedClip))
        assert key not in found
        found[key] = list(result.wanted)
        starts.append(result.start_sample)
        if isinstance(result, Clip):
            first, stop = audio[key]
            assert (result.audio_start, result.audio_stop) == (first, stop)
            padded = np.zeros(L, np.float32)
            padded[first - result.start_sample : stop - result.start_sample] = whole[first:stop]
            np.testing.assert_array_equal(result.samples, padded)
    assert found == expected
    assert starts == sorted(starts)
    beyond = [number for number, take in enumerate(takes) if take.start >= len(whole)]
    assert [failed.take for failed in stream.failed_takes] == beyond
