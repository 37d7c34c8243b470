"""tensorflow-io's own resampler: its samples are those of one call of the op, moved so that they are where soxr's are."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

tfio: Any = pytest.importorskip("tensorflow_io", reason="needs tensorflow-io: run make test-tensorflow")

from audio.clip import Clip  # noqa: E402
from audio.clips import ClipSettings  # noqa: E402
from audio.decoders import Decoders  # noqa: E402
from audio.fetch import local_version  # noqa: E402
from audio.recording import Recording, Segment  # noqa: E402
from audio.resample import Resampler  # noqa: E402
from audio.tensorflow_resampler import check, delay, op  # noqa: E402
from pipeline.resampling import check_resampler  # noqa: E402
from tests.audio.late_filter import lateness  # noqa: E402
from tests.audio.makers import noise, wav  # noqa: E402
from tests.audio.test_resample import stream  # noqa: E402

RATES_HZ = [1_000, 7_919, 8_000, 11_025, 12_345, 16_001, 17_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


def at_once(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """What the documentation's way gives: a call over the whole recording, in eager mode."""
    made: np.ndarray = tfio.audio.resample(samples, rate_hz, 16_000).numpy()
    return made


def streamed(samples: np.ndarray, rate_hz: int, sizes: list[int], start_s: int = 0, stretch_s: int = 300) -> np.ndarray:
    begin = max(0, start_s - 1) * rate_hz
    return stream(Resampler(rate_hz, start_s, stretch_s, "tensorflow_io"), samples[begin:], sizes)


def test_it_works_here() -> None:
    check()
    check_resampler("tensorflow_io")


@settings(max_examples=20, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    seconds=st.one_of(st.floats(0.002, 3), st.sampled_from([10, 11, 20]), st.floats(9, 21)),
    sizes=st.lists(st.integers(1_000, 300_000), min_size=1, max_size=3),
)
def test_the_samples_are_those_of_one_call_moved_by_the_delay(rate_hz: int, seconds: float, sizes: list[int]) -> None:
    samples = noise(max(2, round(rate_hz * seconds)))[:, 0]
    output = streamed(samples, rate_hz, sizes)
    whole = at_once(np.concatenate([samples, np.zeros(rate_hz, np.float32)]), rate_hz)
    assert len(output) == len(soxr.resample(samples, rate_hz, 16_000, quality="HQ"))
    np.testing.assert_array_equal(output, whole[delay(rate_hz) :][: len(output)])


@settings(max_examples=10, deadline=None)
@given(rate_hz=st.sampled_from(RATES_HZ), seconds=st.floats(4.1, 9), start_s=st.sampled_from([0, 2, 4]))
def test_any_stretch_gives_the_samples_of_the_whole(rate_hz: int, seconds: float, start_s: int) -> None:
    samples = noise(round(rate_hz * seconds))[:, 0]
    whole = streamed(samples, rate_hz, [65_536])
    np.testing.assert_array_equal(streamed(samples, rate_hz, [65_536], start_s, stretch_s=2), whole[start_s * 16_000 :])


@settings(max_examples=20, deadline=None)
@given(rate_hz=st.one_of(st.sampled_from(RATES_HZ), st.integers(1_000, 200_000)))
def test_an_impulse_is_where_it_was(rate_hz: int) -> None:
    if rate_hz == 16_000:
        return
    # By whole samples it can be moved no better.
    assert abs(lateness(lambda impulse: streamed(impulse, rate_hz, [65_536]), rate_hz)) < 0.51


@settings(max_examples=10, deadline=None)
@given(rate_hz=st.sampled_from(RATES_HZ[1:]), hz=st.floats(20, 3_000))
def test_a_tone_is_the_tone(rate_hz: int, hz: float) -> None:
    tone = np.sin(2 * np.pi * hz / rate_hz * np.arange(2 * rate_hz)).astype(np.float32)
    output = streamed(tone, rate_hz, [65_536])[200:-200]
    ours = soxr.resample(tone, rate_hz, 16_000, quality="HQ")[200:-200]
    expected = np.sin(2 * np.pi * hz / 16_000 * np.arange(32_000))[200:-200]
    moved_by_half_a_sample = 2 * np.sin(np.pi * hz / 16_000 / 2)
    assert np.abs(output - expected).max() < 1.02 * moved_by_half_a_sample + 1e-3
    assert np.abs(ours - expected).max() < 1e-5


def test_decoding_processes_and_this_one_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(noise(25 * 44_100), 44_100))
    segment = Segment(Recording(str(path), local_version(path.stat()), path.stat().st_size))
    found = []
    for processes in (0, 1):
        with Decoders(ClipSettings(resampler="tensorflow_io"), processes) as pool:
            found.append([clip.samples.copy() for clip in pool.decode(segment) if isinstance(clip, Clip)])
    assert len(found[0]) == len(found[1]) == 13
    np.testing.assert_array_equal(found[0], found[1])


def test_one_op_is_traced_once_for_each_rate() -> None:
    assert op(44_100) is op(44_100)
    assert "tensorflow_io" in sys.modules
