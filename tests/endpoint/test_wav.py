"""WAV files of clips are what other readers expect, and lose nothing of what came from 16 bits."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.wav import encode_wav

SEEDS = st.integers(0, 2**32 - 1)


def samples_of(data: bytes) -> np.ndarray:
    """As the standard library reads them."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (
            16000,
            1,
            2,
            32000,
        )
        return np.frombuffer(file.readframes(32000), "<i2")


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_what_came_from_16_bits_comes_out_as_it_was(seed: int) -> None:
    steps = np.random.default_rng(seed).integers(-32768, 32768, 32000).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, steps, 16000, format="WAV", subtype="PCM_16")
    file.seek(0)
    samples, _ = soundfile.read(file, dtype="float32")
    clip = encode_wav(samples)
    assert (samples_of(clip.data) == steps).all()
    assert clip.clipped_samples == 0
    # soundfile's header is the canonical one too.
    assert clip.data == file.getvalue()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, scale=st.sampled_from([1e-6, 1e-3, 0.3, 1.0, 3.0, 1e30, 3e38]))
def test_other_samples_become_the_nearest_step_and_those_beyond_the_last_are_counted(seed: int, scale: float) -> None:
    samples = (np.random.default_rng(seed).uniform(-1, 1, 32000) * scale).astype(np.float32)
    clip = encode_wav(samples)
    exact = samples.astype(np.float64) * 32768
    rounded = np.array([round(value) for value in exact.tolist()], object)  # Python rounds exactly, halves to even
    assert (samples_of(clip.data) == np.array([min(32767, max(-32768, value)) for value in rounded])).all()
    assert clip.clipped_samples == sum(not -32768 <= value <= 32767 for value in rounded)


def test_a_file_has_64044_bytes_and_shows_none_of_them() -> None:
    clip = encode_wav(np.full(32000, 0.734375, np.float32))
    assert len(clip.data) == 64_044
    assert "data" not in repr(clip)


def test_full_scale_is_one_step_less_than_one() -> None:
    samples = np.zeros(32000, np.float32)
    samples[:4] = 1.0, -1.0, np.inf, -np.inf
    clip = encode_wav(samples)
    assert samples_of(clip.data)[:4].tolist() == [32767, -32768, 32767, -32768]
    assert clip.clipped_samples == 3


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(31999, np.float32),
        np.zeros(32000),
        np.zeros((32000, 1), np.float32),
        np.full(32000, np.nan, np.float32),
    ],
)
def test_what_is_no_clip_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected float32 of shape \(32000,\)|not numbers"):
        encode_wav(samples)
