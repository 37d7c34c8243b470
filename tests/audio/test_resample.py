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


STRETCH_S = 2


def by_stretches(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """The definition: each stretch by itself, with a second of input to either side."""
    parts = []
    for start_s in range(0, len(samples) // rate_hz + 1, STRETCH_S):
        begin_s = max(0, start_s - 1)
        around = samples[begin_s * rate_hz : (start_s + STRETCH_S + 1) * rate_hz]
        made = soxr.resample(around, rate_hz, 16_000, quality="HQ") if len(around) else around
        parts.append(made[(start_s - begin_s) * 16_000 :][: STRETCH_S * 16_000])
    return np.concatenate(parts)


def stream(resampler: Resampler, samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """What a resampler gives of `samples` in blocks of these sizes, over and over."""
    parts, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        parts.append(resampler.push(samples[at : at + size].copy(), may_be_bad=True).copy())
        at += size
        turn += 1
    return np.concatenate([*parts, resampler.finish(may_be_bad=True)])


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from([*RATES_HZ[:-1], 7_919, 12_345]),
    seconds=st.one_of(st.floats(0.001, 9), st.integers(1, 9)),
    sizes=st.lists(st.integers(500, 70_000), min_size=1, max_size=4),
    start_s=st.sampled_from([0, 2, 4, 6]),
)
def test_stretches_are_resampled_by_themselves_whatever_the_blocks_and_the_start(
    rate_hz: int, seconds: float, sizes: list[int], start_s: int
) -> None:
    samples = noise(max(rate_hz // 1_000, round(rate_hz * seconds)))[:, 0]
    expected = samples if rate_hz == 16_000 else by_stretches(samples, rate_hz)
    begin = max(0, start_s - 1) * rate_hz
    streamed = stream(Resampler(rate_hz, start_s, STRETCH_S), samples[begin:], sizes) if begin < len(samples) else None
    if streamed is not None:
        np.testing.assert_array_equal(streamed, expected[start_s * 16_000 :])
    if rate_hz != 16_000:
        whole = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
        assert len(expected) == len(whole)
        np.testing.assert_allclose(expected, whole, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from([1_000, 8_000, 16_000, 44_100]),
    bad=st.lists(
        st.tuples(st.floats(3, 5), st.sampled_from([np.nan, np.inf, np.finfo(np.float32).max]), st.integers(1, 40)),
        min_size=1,
        max_size=4,
    ),
    sizes=st.lists(st.integers(500, 70_000), min_size=1, max_size=4),
)
def test_bad_samples_touch_the_same_of_a_stretch_as_of_the_whole(
    rate_hz: int, bad: list[tuple[float, float, int]], sizes: list[int]
) -> None:
    samples = noise(7 * rate_hz)[:, 0]
    for place_s, value, count in bad:
        samples[int(place_s * rate_hz) : int(place_s * rate_hz) + count] = value
    is_bad = ~np.isfinite(samples)
    whole = Resampler(rate_hz, 0, STRETCH_S)
    streamed = stream(whole, samples, [1_000])
    part = Resampler(rate_hz, 4, STRETCH_S)
    np.testing.assert_array_equal(stream(part, samples[3 * rate_hz :], sizes), streamed[4 * 16_000 :])
    assert np.isfinite(streamed).all()
    for start in range(4 * 16_000, 6 * 16_000, 333):
        assert part.touched(start, start + 100) == whole.touched(start, start + 100)
    for frame in np.flatnonzero(is_bad):
        place = int(frame) * 16_000 // rate_hz
        assert whole.touched(place, place + 1)


@pytest.mark.parametrize("bad_block", range(0, 180, 7))
def test_what_is_settled_is_not_touched_later(bad_block: int) -> None:
    samples = noise(9 * 8_000)[:, 0]
    samples[bad_block * 400] = np.nan
    resampler = Resampler(8_000, 0, STRETCH_S)
    for number in range(bad_block):
        resampler.push(samples[number * 400 : number * 400 + 400], may_be_bad=True)
    settled = resampler.settled
    assert bad_block * 800 - settled < 0.3 * 16_000
    resampler.push(samples[bad_block * 400 :], may_be_bad=True)
    assert not any(resampler.touched(place, place + 1) for place in range(settled))
    assert resampler.touched(bad_block * 800, bad_block * 800 + 1)


def test_what_is_forgotten_takes_no_memory() -> None:
    resampler = Resampler(44_100)
    for n in range(400):
        block = np.zeros(44_100 // 4, np.float32)
        block[0] = np.nan
        resampler.push(block, may_be_bad=True)
        resampler.forget(n * 4_000)
    assert len(resampler._bad._spans) < 5
