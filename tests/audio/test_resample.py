import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.resample import Resampler
from tests.audio.makers import noise

RATES_HZ = (1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 768_000)


def resample(
    samples: np.ndarray, rate_hz: int, sizes: list[int], may_be_bad: bool = True
) -> tuple[np.ndarray, Resampler]:
    resampler = Resampler(rate_hz)
    parts, at = [], 0
    for size in [*sizes, len(samples)]:
        if at < len(samples):
            parts.append(resampler.push(samples[at : at + size].copy(), may_be_bad=may_be_bad).copy())
        at += size
    parts.append(resampler.finish(may_be_bad=may_be_bad))
    return np.concatenate(parts), resampler


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    seconds=st.floats(0.0001, 2),
    sizes=st.lists(st.integers(1, 70_000), max_size=8),
)
def test_blocks_of_any_size_give_the_samples_of_one_call(rate_hz: int, seconds: float, sizes: list[int]) -> None:
    samples = noise(max(1, round(rate_hz * seconds)))[:, 0]
    streamed, _ = resample(samples, rate_hz, sizes)
    np.testing.assert_array_equal(streamed, soxr.resample(samples, rate_hz, 16_000, quality="HQ"))


def test_16_khz_passes_as_it_is() -> None:
    samples = noise(5_000)[:, 0]
    np.testing.assert_array_equal(resample(samples, 16_000, [1_000])[0], samples)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_bad_samples_become_zeros_and_are_known_by_place(rate_hz: int, bad: float) -> None:
    samples = noise(3 * rate_hz)[:, 0]
    clean = samples.copy()
    samples[rate_hz : rate_hz + 10] = bad
    clean[rate_hz : rate_hz + 10] = 0
    streamed, resampler = resample(samples, rate_hz, [rate_hz + 3])
    np.testing.assert_array_equal(streamed, soxr.resample(clean, rate_hz, 16_000) if rate_hz != 16_000 else clean)
    assert not resampler.touched(0, 15_000)
    assert resampler.touched(0, 16_000)
    assert resampler.touched(16_000, 16_001)
    assert not resampler.touched(17_000, 48_000)


@pytest.mark.parametrize("rate_hz", [1_000, 8_000, 44_100, 192_000])
def test_nothing_audible_of_a_bad_sample_is_outside_of_what_it_is_said_to_touch(rate_hz: int) -> None:
    with_click = np.zeros(3 * rate_hz, np.float32)
    with_click[rate_hz] = 1
    response = np.abs(soxr.resample(with_click, rate_hz, 16_000))
    with_click[rate_hz] = np.nan
    _, resampler = resample(with_click, rate_hz, [])
    touched = np.flatnonzero(response > 1e-5 * response.max())
    assert resampler.touched(int(touched[0]), int(touched[0]) + 1)
    assert resampler.touched(int(touched[-1]), int(touched[-1]) + 1)


def test_samples_that_overflow_in_the_filter_are_bad() -> None:
    samples = np.zeros(44_100 * 4, np.float32)
    samples[44_100 * 2 : 44_100 * 2 + 100] = np.finfo(np.float32).max
    streamed, resampler = resample(samples, 44_100, [65_536, 65_536])
    assert np.isfinite(streamed).all()
    assert not resampler.touched(0, 24_000)
    assert resampler.touched(31_000, 33_000)
    assert not resampler.touched(48_000, 64_000)
