import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.track import Track
from audio.window import CLIP_SAMPLES, NEVER

L = CLIP_SAMPLES


def track() -> Track:
    return Track("0", 16_000, 0, 300, "soxr")


def clip_of(held: Track, start: int, audio_start: int, audio_stop: int) -> np.ndarray:
    """A clip in memory that held something else before."""
    clip = np.full(L, 7, np.float32)
    held.copy_clip(clip, start, audio_start, audio_stop)
    return clip


def block(first: int, size: int) -> np.ndarray:
    """A ramp, so that each sample tells its place."""
    return np.arange(first, first + size, dtype=np.float32)[:, None]


@given(
    sizes=st.lists(st.integers(1, 2 * L), min_size=1, max_size=8),
    steps=st.lists(st.integers(0, 3 * L), min_size=1, max_size=8),
)
def test_a_clip_is_what_stands_there_however_much_was_let_go(sizes: list[int], steps: list[int]) -> None:
    held, end, needed_from = track(), 0, 0
    for size, step in zip(sizes, steps, strict=False):
        needed_from += step
        held.push(block(end, size), needed_from)
        end += size
        assert held.end == end
        start, stop = needed_from, min(needed_from + L, end)
        if start < stop:
            clip = clip_of(held, start - 5 if stop - start < L - 5 else start, start, stop)
            at = 5 if stop - start < L - 5 else 0
            np.testing.assert_array_equal(clip[at : at + stop - start], np.arange(start, stop))
            assert not clip[:at].any()
            assert not clip[at + stop - start :].any()


@pytest.mark.parametrize("behind", [-10 * L, 0, L])
def test_what_is_held_does_not_grow_with_the_recording(behind: int) -> None:
    held = track()
    for n in range(60):
        held.push(block(n * L, L), n * L - behind if behind else NEVER)
    assert held._held.nbytes <= 4 * L * 4
