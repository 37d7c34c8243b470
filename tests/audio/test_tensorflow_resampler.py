"""How the op's calls become a stream, against a filter that is late as the op is; tests/tensorflow has the op itself."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import tensorflow_resampler
from audio.clip import Clip
from audio.clips import ClipSettings, open_clips
from audio.resample import Resampler
from audio.tensorflow_resampler import ResamplerUnusable, TensorFlowStream, check, delay
from tests.audio.late_filter import Resample, late_filter, lateness
from tests.audio.makers import noise
from tests.audio.test_resample import stream

RATES_HZ = [1_000, 7_919, 8_000, 11_025, 12_345, 16_001, 17_000, 22_050, 44_100]


@pytest.fixture
def _late_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_resampler, "op", late_filter)


@pytest.mark.parametrize(
    ("rate_hz", "samples"),
    [(8_000, 64), (11_025, 46), (12_000, 43), (22_050, 32), (24_000, 32), (44_100, 32), (48_000, 32), (96_000, 32)],
)
def test_the_delay_is_the_measured_one(rate_hz: int, samples: int) -> None:
    assert delay(rate_hz) == samples


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_delay_is_that_of_half_the_filter_for_other_rates(rate_hz: int) -> None:
    assert abs(lateness(late_filter(rate_hz), rate_hz) - delay(rate_hz)) < 0.51


def streamed(stream: TensorFlowStream, samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """What comes of blocks of these sizes, over and over, in a buffer that is used again."""
    buffer = np.empty(max(sizes), np.float32)
    parts, at, turn = [], 0, 0
    while at < len(samples):
        block = samples[at : at + sizes[turn % len(sizes)]]
        buffer[: len(block)] = block
        parts.append(stream.resample_chunk(buffer[: len(block)]))
        at += len(block)
        turn += 1
    buffer[:] = np.nan
    return np.concatenate([*parts, stream.resample_chunk(np.empty(0, np.float32), last=True)])


def moved(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """One call over the whole, with zeros after it, and without what comes before the recording's beginning."""
    whole = late_filter(rate_hz)(np.concatenate([samples, np.zeros(rate_hz, np.float32)]))
    count = len(soxr.resample(samples, rate_hz, 16_000, quality="HQ"))
    return whole[delay(rate_hz) :][:count]


@settings(max_examples=12, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    seconds=st.one_of(st.floats(0.002, 1), st.integers(1, 8), st.floats(1, 8)),
    sizes=st.lists(st.integers(1_000, 100_000), min_size=1, max_size=3),
)
def test_a_stream_is_one_call_over_the_whole_moved_by_the_delay(rate_hz: int, seconds: float, sizes: list[int]) -> None:
    samples = noise(max(2, round(rate_hz * seconds)))[:, 0]
    calls: list[int] = []

    def counted(frames: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        return late_filter(rate_hz)(frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_resampler, "_CALL_S", 2)
        output = streamed(TensorFlowStream(rate_hz, counted), samples, sizes)
    np.testing.assert_array_equal(output, moved(samples, rate_hz))
    assert max(calls) <= 3.1 * rate_hz
    assert sum(calls) <= 1.5 * len(samples) + 2 * rate_hz


@pytest.mark.usefixtures("_late_op")
@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100])
@pytest.mark.parametrize("start_s", [0, 2, 4])
def test_any_stretch_gives_the_samples_of_the_whole(rate_hz: int, start_s: int) -> None:
    samples = noise(round(5.3 * rate_hz))[:, 0]
    begin = max(0, start_s - 1) * rate_hz
    output = stream(Resampler(rate_hz, start_s, 2, "tensorflow_io"), samples[begin:], [3_333])
    np.testing.assert_array_equal(output, moved(samples, rate_hz)[start_s * 16_000 :])


@pytest.mark.usefixtures("_late_op")
def test_clips_are_made_with_it_where_it_is_asked_for() -> None:
    samples = noise(5 * 48_000)[:, 0]
    file = io.BytesIO()
    soundfile.write(file, samples, 48_000, format="WAV", subtype="FLOAT")
    stream = open_clips(file, ClipSettings(resampler="tensorflow_io"))
    clips = [clip for clip in stream if isinstance(clip, Clip)]
    expected = np.concatenate([moved(samples, 48_000), np.zeros(16_000, np.float32)])
    assert [clip.start_s for clip in clips] == [0, 2, 4]
    np.testing.assert_array_equal(np.concatenate([clip.samples for clip in clips]), expected)


@pytest.mark.usefixtures("_late_op")
def test_recordings_of_16_khz_pass_as_they_are() -> None:
    samples = noise(1_000)[:, 0]
    resampler = Resampler(16_000, resampler="tensorflow_io")
    np.testing.assert_array_equal(resampler.push(samples.copy(), may_be_bad=False), samples)


@pytest.mark.usefixtures("_late_op")
def test_an_op_that_works_passes_the_check() -> None:
    check()


def _earlier(rate_hz: int) -> Resample:
    return lambda samples: np.roll(late_filter(rate_hz)(samples), -1)


def _quieter(rate_hz: int) -> Resample:
    return lambda samples: 0.99 * late_filter(rate_hz)(samples)


def _shorter(rate_hz: int) -> Resample:
    return lambda samples: late_filter(rate_hz)(samples)[:-1_000]


def _bad(rate_hz: int) -> Resample:
    return lambda samples: np.full_like(late_filter(rate_hz)(samples), np.nan)


@pytest.mark.parametrize("other", [_earlier, _quieter, _shorter, _bad])
def test_an_op_that_does_something_else_does_not(other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_resampler, "op", other)
    with pytest.raises(ResamplerUnusable, match=r"another than with tensorflow-io 0\.37\.1 \(tensorflow-io "):
        check()


def test_an_op_that_fails_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(rate_hz: int) -> Resample:
        def fail(samples: np.ndarray) -> np.ndarray:
            raise NotImplementedError("unable to open file: libtensorflow_io.so, from paths: ['/somewhere']")

        return fail

    monkeypatch.setattr(tensorflow_resampler, "op", failing)
    with pytest.raises(ResamplerUnusable, match="a tone cannot be resampled: NotImplementedError"):
        check()


@pytest.fixture
def _nothing_imported() -> Iterator[None]:
    tensorflow_resampler._libraries.cache_clear()
    tensorflow_resampler.op.cache_clear()
    yield
    tensorflow_resampler._libraries.cache_clear()
    tensorflow_resampler.op.cache_clear()


@pytest.mark.usefixtures("_nothing_imported")
def test_without_the_packages_it_says_which_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(
        ResamplerUnusable, match=r"tensorflow.*\(tensorflow-io not installed and tensorflow not installed"
    ):
        check()
