import io
import math

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.clips import Clip, ClipSettings, FailedClip, SkippedClip, Wanted, open_clips
from tests.audio.makers import Embedded, encode, int16, noise, sound_file, wav


def test_a_recording_of_5_s_is_three_clips() -> None:
    made = Embedded(wav(noise(5 * 44_100), 44_100))
    assert [(clip.wanted, clip.start_sample, clip.audio_samples) for clip in made.clips] == [
        (((0, 0),), 0, 32_000),
        (((0, 1),), 32_000, 32_000),
        (((0, 2),), 64_000, 16_000),
    ]
    last = made.clips[-1]
    assert (last.start_s, last.end_s, last.padded_s) == (4.0, 5.0, 1.0)
    assert not last.samples[16_000:].any()
    assert all(clip.samples.dtype == np.float32 and clip.samples.shape == (32_000,) for clip in made.clips)
    assert all(clip.samples.flags.owndata and clip.samples.flags.c_contiguous for clip in made.clips)
    assert made.stream.error is None
    assert made.stream.error_s is None


def test_info() -> None:
    info = Embedded(wav(noise(66_150, 2), 44_100)).info
    assert (info.duration_s, info.source_rate_hz, info.source_channels) == (1.5, 44_100, 2)
    assert (info.container, info.codec, info.decoder, info.gaps, info.gap_s) == (
        "wav",
        "pcm_s16le",
        "libsndfile",
        0,
        0.0,
    )


def test_the_source_is_known_from_the_first_clip_on() -> None:
    stream = open_clips(io.BytesIO(wav(noise(100_000), 22_050)), ClipSettings())
    with pytest.raises(RuntimeError):
        _ = stream.source
    next(stream)
    assert (stream.source.rate_hz, stream.source.channels, stream.source.codec) == (22_050, 1, "pcm_s16le")


def test_a_stream_can_be_left_early() -> None:
    file = io.BytesIO(wav(noise(200_000)))
    stream = open_clips(file, ClipSettings())
    next(stream)
    stream.close()
    assert list(stream) == []
    assert not file.closed


@settings(max_examples=25, deadline=None)
@given(
    rate_hz=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    frames=st.integers(1, 200_000),
    hop=st.sampled_from([8_000, 32_000, 40_000]),
    channels=st.integers(1, 3),
)
def test_clips_are_those_of_the_whole_resampled_at_once(rate_hz: int, frames: int, hop: int, channels: int) -> None:
    samples = int16(noise(frames, channels))
    made = Embedded(wav(samples / 32_767, rate_hz), hop_s=hop / 16_000, min_audio_s=0)
    mono = (samples / 32_768).mean(axis=1).astype(np.float32)
    whole = soxr.resample(mono, rate_hz, 16_000, quality="HQ") if rate_hz != 16_000 else mono
    assert sum(clip.audio_samples == 32_000 for clip in made.clips) == max(0, (len(whole) - 32_000) // hop + 1)
    for clip in made.clips:
        expected = whole[clip.start_sample : clip.start_sample + 32_000]
        assert clip.audio_samples == len(expected)
        np.testing.assert_allclose(clip.samples[: len(expected)], expected, atol=1e-6)


def test_levels_leave_padding_out() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(40_000) / 16_000)
    first, last = Embedded(sound_file(tone[:, None], 16_000, "WAV", "FLOAT"), min_audio_s=0).clips
    for clip in (first, last):
        assert clip.rms_dbfs == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=1e-3)
        assert clip.peak_dbfs == pytest.approx(20 * math.log10(0.5), abs=1e-3)


def test_digital_silence_is_a_clip_of_minus_infinity() -> None:
    (clip,) = Embedded(wav(np.zeros((32_000, 1)))).clips
    assert (clip.rms_dbfs, clip.peak_dbfs) == (-math.inf, -math.inf)


@pytest.mark.parametrize("level", [1e-41, 1e-30, 1e30, 3e38])
def test_levels_of_denormal_and_huge_floats(level: float) -> None:
    (clip,) = Embedded(sound_file(np.full((32_000, 1), level), 16_000, "WAV", "FLOAT")).clips
    exact = 20 * math.log10(float(np.float32(level)))
    assert clip.rms_dbfs == pytest.approx(exact, abs=0.01)
    assert clip.peak_dbfs == pytest.approx(exact, abs=0.01)


def test_floats_pass_as_they_are() -> None:
    (clip,) = Embedded(sound_file(np.full((32_000, 1), 1234.5), 16_000, "WAV", "FLOAT")).clips
    assert (clip.samples == 1234.5).all()


def test_quiet_clips_are_skipped_and_padding_does_not_make_a_clip_quiet() -> None:
    samples = np.concatenate([noise(32_000, level=0.1), noise(32_000, level=0.001), noise(10_000, level=0.1)])
    loud, quiet, tail = Embedded(wav(samples), min_rms_dbfs=-40).results
    assert isinstance(loud, Clip)
    assert quiet == SkippedClip("mean", 32_000, None, (Wanted(0, 1),), "too_quiet")
    assert isinstance(tail, Clip)


def test_short_tails_are_skipped_unless_they_are_all_there_is() -> None:
    assert Embedded(wav(noise(32_000 + 7_999))).results[1] == SkippedClip(
        "mean", 32_000, None, (Wanted(0, 1),), "too_short"
    )
    assert Embedded(wav(noise(32_000 + 8_000))).clips[1].audio_samples == 8_000
    assert [clip.audio_samples for clip in Embedded(wav(noise(1))).clips] == [1]


def test_dropped_tails_are_counted_as_too_short() -> None:
    assert Embedded(wav(noise(20_000)), tail="drop").results == [
        SkippedClip("mean", 0, None, (Wanted(0, 0),), "too_short")
    ]


def test_a_shifted_tail_ends_with_the_recording() -> None:
    samples = noise(50_000)
    last = Embedded(wav(samples), tail="shift").clips[-1]
    assert (last.wanted, last.start_sample, last.padded_s) == (((0, 1),), 18_000, 0)
    np.testing.assert_array_equal(last.samples, int16(samples)[18_000:, 0] / np.float32(32_768))


def test_channels_one_by_one_and_their_mean() -> None:
    samples = int16(noise(40_000, 3)).astype(np.float32) / 32_768
    data = sound_file(samples, 16_000, "WAV", "PCM_16")
    each = Embedded(data, channel="each", min_audio_s=0)
    assert [(clip.channel, clip.start_sample) for clip in each.clips] == [
        (channel, start) for start in (0, 32_000) for channel in ("0", "1", "2")
    ]
    for clip in each.clips:
        column = samples[clip.start_sample : clip.start_sample + 32_000, int(clip.channel)]
        np.testing.assert_array_equal(clip.samples[: len(column)], column)
    np.testing.assert_array_equal(Embedded(data, channel="1", min_audio_s=0).joined(), samples[:, 1])
    mean = Embedded(data, min_audio_s=0)
    assert {clip.channel for clip in mean.clips} == {"mean"}
    np.testing.assert_allclose(mean.joined(), samples.mean(axis=1), atol=1e-7)


def test_the_mean_of_two_channels_is_exact() -> None:
    samples = int16(noise(20_000, 2)).astype(np.float32) / 32_768
    joined = Embedded(sound_file(samples, 16_000, "WAV", "PCM_16")).joined()
    np.testing.assert_array_equal(joined, (samples[:, 0] + samples[:, 1]) * np.float32(0.5))


@pytest.mark.parametrize(("channels", "have"), [(1, "1 channel, numbered 0"), (2, "2 channels, numbered 0 to 1")])
def test_a_channel_that_does_not_exist(channels: int, have: str) -> None:
    made = Embedded(wav(noise(1_000, channels)), channel="5")
    assert made.results == []
    assert made.code == "no_such_channel"
    assert made.message.endswith(have)
    assert made.info.source_channels == channels


def test_many_channels_are_decoded_in_smaller_blocks() -> None:
    samples = noise(70_000, 64)
    made = Embedded(sound_file(samples, 16_000, "WAV", "FLOAT"), channel="63", min_audio_s=0)
    np.testing.assert_array_equal(made.joined(), samples[:, 63])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_clips_that_a_bad_sample_touches_fail(bad: float) -> None:
    samples = noise(160_000)
    samples[100_000] = bad
    results = Embedded(sound_file(samples, 16_000, "WAV", "FLOAT")).results
    assert [type(result) for result in results] == [Clip, Clip, Clip, FailedClip, Clip]
    failed = results[3]
    assert isinstance(failed, FailedClip)
    assert (failed.code, failed.channel, failed.wanted, failed.start_sample) == (
        "non_finite_samples",
        "mean",
        ((0, 3),),
        96_000,
    )


@pytest.mark.parametrize(
    ("place", "failed"), [(64_000 - 900, [1]), (64_000 - 700, [1, 2]), (64_000 + 700, [1, 2]), (64_000 + 900, [2])]
)
def test_a_bad_sample_within_50_ms_of_a_border_touches_both_clips(place: int, failed: list[int]) -> None:
    samples = noise(128_000)
    samples[place] = np.nan
    results = Embedded(sound_file(samples, 16_000, "WAV", "FLOAT")).results
    assert [result.wanted[0].clip_index for result in results if isinstance(result, FailedClip)] == failed


def test_a_bad_channel_does_not_spoil_another_but_their_mean() -> None:
    samples = noise(32_000, 2)
    samples[5, 1] = np.nan
    data = sound_file(samples, 16_000, "WAV", "FLOAT")
    assert [type(result) for result in Embedded(data, channel="each").results] == [Clip, FailedClip]
    assert [type(result) for result in Embedded(data).results] == [FailedClip]


def test_doubles_beyond_float32_are_bad_samples() -> None:
    samples = np.full((16_000, 1), 1e300)
    assert [type(result) for result in Embedded(sound_file(samples, 16_000, "WAV", "DOUBLE")).results] == [FailedClip]
    in_matroska = encode(noise(16_000), 16_000, "matroska", "pcm_f64le")
    assert Embedded(in_matroska).info.codec == "pcm_f64le"


def test_samples_are_not_shown() -> None:
    (clip,) = Embedded(wav(noise(32_000))).clips
    assert "samples=array" not in repr(clip)
    assert "audio_stop=32000" in repr(clip)


class FailingFile(io.BytesIO):
    def readinto(self, buffer: object) -> int:
        if self.tell() > 200_000:
            raise OSError("the disk is gone")
        return super().readinto(buffer)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_is_not_taken_for_a_short_one() -> None:
    stream = open_clips(FailingFile(wav(noise(400_000))), ClipSettings())
    clips = list(stream)
    assert stream.error is not None
    assert stream.error.code == "storage_error"
    assert stream.error.retryable
    assert "disk is gone" not in stream.error.message
    assert all(isinstance(clip, Clip) and clip.audio_samples == 32_000 for clip in clips)


def test_samples_go_where_the_caller_wants_them() -> None:
    sound = np.concatenate([noise(32_000), np.zeros((32_000, 1)), noise(32_000), noise(16_000)])
    places = np.full((4, 32_000), 7, np.float32)
    stream = open_clips(io.BytesIO(wav(sound)), ClipSettings(min_rms_dbfs=-60.0))
    taken = 0
    stream.new_samples = lambda: places[taken]
    kinds = []
    for result in stream:
        kinds.append(type(result))
        if isinstance(result, Clip):
            assert result.samples.base is places
            taken += 1
    assert kinds == [Clip, SkippedClip, Clip, Clip]
    expected = [clip.samples for clip in Embedded(wav(sound), min_rms_dbfs=-60.0).clips]
    np.testing.assert_array_equal(places[:3], expected)
    assert (places[3] == 7).all()
