import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.window import CLIP_SAMPLES, Piece, Tail, Window

L = CLIP_SAMPLES


def reference(n: int, hop: int, tail: str, min_audio: int, ended_early: bool) -> list[tuple[int, int, bool]]:
    """The rules over the whole recording at once: (start, samples of audio, is a clip)."""
    starts = list(range(0, n, hop))
    reaching = [place for place, start in enumerate(starts) if start + L >= n]
    starts = starts[: reaching[0] + 1] if reaching else starts
    places = []
    for place, start in enumerate(starts):
        audio = min(L, n - start)
        if audio == L:
            places.append((start, L, True))
        elif ended_early:
            continue
        elif tail == "drop":
            places.append((start, audio, False))
        elif tail == "shift" and n >= L:
            places.append((n - L, L, True))
        else:
            places.append((0 if tail == "shift" else start, audio, place == 0 or audio >= min_audio))
    return places


def cut(samples: np.ndarray, sizes: list[int], window: Window, ended_early: bool = False) -> list[Piece]:
    pieces = []
    at = 0
    for size in [*sizes, len(samples)]:
        pieces += window.push(samples[at : at + size], settled=at + size)
        at += size
    return [*pieces, *window.finish(ended_early=ended_early)]


@given(
    n=st.integers(0, 4 * L),
    hop=st.integers(1500, 3 * L),
    tail=st.sampled_from(["pad", "shift", "drop"]),
    min_audio=st.integers(0, L),
    ended_early=st.booleans(),
    sizes=st.lists(st.integers(1, 2 * L), max_size=6),
)
def test_pieces_are_those_of_the_rules_whatever_the_block_sizes(
    n: int, hop: int, tail: Tail, min_audio: int, ended_early: bool, sizes: list[int]
) -> None:
    samples = np.arange(1, n + 1, dtype=np.float32)
    pieces = cut(samples, sizes, Window(hop, tail, min_audio), ended_early)
    expected = reference(n, hop, tail, min_audio, ended_early)
    assert [(piece.start, piece.audio, piece.samples is not None) for piece in pieces] == expected
    assert [piece.clip_index for piece in pieces] == list(range(len(pieces)))
    for piece in pieces:
        if piece.samples is not None:
            padded = np.zeros(L, np.float32)
            padded[: piece.audio] = samples[piece.start : piece.start + piece.audio]
            np.testing.assert_array_equal(piece.samples, padded)


@pytest.mark.parametrize(
    ("n", "hop", "tail", "expected"),
    [
        (80_000, L, "pad", [(0, L), (L, L), (2 * L, 16_000)]),
        (80_000, L, "shift", [(0, L), (L, L), (48_000, L)]),
        (64_000, L, "pad", [(0, L), (L, L)]),
        (64_001, L, "pad", [(0, L), (L, L), (2 * L, 1)]),
        (64_000, 16_000, "pad", [(0, L), (16_000, L), (L, L)]),
        (64_000, 24_000, "pad", [(0, L), (24_000, L), (48_000, 16_000)]),
        (50_000, 3 * L, "pad", [(0, L)]),
        (50_000, 3 * L, "shift", [(0, L)]),
        (7, L, "shift", [(0, 7)]),
        (0, L, "pad", []),
    ],
)
def test_where_the_last_clip_is(n: int, hop: int, tail: Tail, expected: list[tuple[int, int]]) -> None:
    pieces = cut(np.ones(n, np.float32), [], Window(hop, tail))
    assert [(piece.start, piece.audio) for piece in pieces] == expected


def test_pieces_have_memory_of_their_own() -> None:
    samples = np.ones(L + 10, np.float32)
    first, second = cut(samples, [], Window(5, "shift"))[:2]
    assert first.samples is not None
    assert second.samples is not None
    first.samples[:] = 7
    assert second.samples.max() == 1
    assert first.samples.flags.owndata
    assert first.samples.flags.c_contiguous


def test_unsettled_samples_are_kept_back() -> None:
    window = Window(L)
    assert list(window.push(np.ones(L, np.float32), settled=L - 1)) == []
    assert [piece.start for piece in window.push(np.ones(1, np.float32), settled=L)] == [0]


@pytest.mark.parametrize("tail", ["pad", "shift", "drop"])
def test_what_is_held_does_not_grow_with_the_recording(tail: Tail) -> None:
    window = Window(10 * L, tail)
    block = np.ones(L, np.float32)
    for n in range(1, 60):
        list(window.push(block, settled=n * L))
    assert window._held.nbytes <= 4 * L * block.itemsize
