import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.track import Track
from audio.window import CLIP_SAMPLES, NEVER

L = CLIP_SAMPLES


def track() -> Track:
    return Track("0", 16_000, 0, 300)


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
            clip = held.clip(start - 5, start, stop) if stop - start < L - 5 else held.clip(start, start, stop)
            at = 5 if stop - start < L - 5 else 0
            np.testing.assert_array_equal(clip[at : at + stop - start], np.arange(start, stop))
            assert not clip[at + stop - start :].any()


def test_clips_have_memory_of_their_own() -> None:
    held = track()
    held.push(block(0, 2 * L), 0)
    for clip in (held.clip(0, 0, L), held.clip(0, 0, 10)):
        clip[:] = 7
        assert clip.flags.owndata
        assert clip.flags.c_contiguous
    assert held.clip(0, 0, L)[1] == 1


@pytest.mark.parametrize("behind", [-10 * L, 0, L])
def test_what_is_held_does_not_grow_with_the_recording(behind: int) -> None:
    held = track()
    for n in range(60):
        held.push(block(n * L, L), n * L - behind if behind else NEVER)
    assert held._held.nbytes <= 4 * L * 4
