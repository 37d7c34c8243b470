from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.recording import Take
from audio.window import CLIP_SAMPLES, Place, Rules, Tail, Window

L = CLIP_SAMPLES
TAILS = st.sampled_from(["pad", "shift", "drop"])


def reference(first: int, stop: int, hop: int, tail: str, min_audio: int) -> list[tuple[int, bool]]:
    """The rules over [first, stop) at once: (start, is too short)."""
    n = stop - first
    starts = list(range(0, n, hop))
    reaching = [place for place, start in enumerate(starts) if start + L >= n]
    starts = starts[: reaching[0] + 1] if reaching else starts
    places = []
    for place, start in enumerate(starts):
        audio = min(L, n - start)
        if audio == L:
            places.append((start, False))
        elif tail == "drop":
            places.append((start, True))
        elif tail == "shift" and n >= L:
            places.append((n - L, False))
        else:
            places.append((0 if tail == "shift" else start, place > 0 and audio < min_audio))
    return [(first + start, too_short) for start, too_short in places]


def places(window: Window, end: int | None) -> list[Place]:
    found = []
    while (place := window.place(end)) is not None:
        found.append(place)
        window.go_on()
    return found


@given(
    n=st.integers(0, 4 * L),
    hop=st.integers(1500, 3 * L),
    tail=TAILS,
    min_audio=st.integers(0, L),
)
def test_places_in_a_recording_are_those_of_the_rules(n: int, hop: int, tail: Tail, min_audio: int) -> None:
    found = places(Window(Take("mean"), Rules(hop, tail, min_audio)), n)
    assert [(place.start, place.too_short) for place in found] == reference(0, n, hop, tail, min_audio)
    assert [place.number for place in found] == list(range(len(found)))


@given(
    first=st.integers(0, L),
    length=st.integers(L + 1, 4 * L),
    beyond=st.one_of(st.none(), st.integers(-L, L)),
    hop=st.integers(1500, 3 * L),
    tail=TAILS,
    min_audio=st.integers(0, L),
)
def test_places_in_a_long_event_are_those_of_a_recording_of_its_own(
    first: int, length: int, beyond: int | None, hop: int, tail: Tail, min_audio: int
) -> None:
    stop = first + length
    end = None if beyond is None else stop + beyond
    found = places(Window(Take("mean", first, stop), Rules(hop, tail, min_audio)), end)
    there = stop if end is None else min(stop, end)
    assert [(place.start, place.too_short) for place in found] == reference(first, there, hop, tail, min_audio)


@pytest.mark.parametrize("tail", ["pad", "shift", "drop"])
@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0, L, 0), (100, L + 100, 100), (50_000, 50_001, 34_000), (10, 20, 15 - 16_000)]
)
def test_an_event_no_longer_than_a_clip_is_centred_in_one(tail: Tail, start: int, stop: int, expected: int) -> None:
    window = Window(Take("mean", start, stop), Rules(1_000, tail, L))
    assert places(window, None) == [Place(0, expected, too_short=False)]


@pytest.mark.parametrize("stop", [100_010, 200_000, None])
def test_what_begins_where_the_recording_ends_has_no_place(stop: int | None) -> None:
    assert places(Window(Take("mean", 100_000, stop), Rules(L, "pad", 0)), 100_000) == []
    assert len(places(Window(Take("mean", 100_000, stop), Rules(L, "pad", 0)), 100_001)) == 1


@given(
    first=st.integers(0, L),
    length=st.one_of(st.none(), st.integers(0, 6 * L)),
    hop=st.integers(1500, 3 * L),
    tail=TAILS,
    skip_to=st.integers(1, 7 * L),
)
def test_skipping_gives_the_places_from_there_on(
    first: int, length: int | None, hop: int, tail: Tail, skip_to: int
) -> None:
    end = 6 * L
    take, rules = Take("mean", first, None if length is None else first + length), Rules(hop, tail, 0)
    skipping = Window(take, rules)
    skipping.skip_to(skip_to, end)
    assert places(skipping, end) == [place for place in places(Window(take, rules), end) if place.start >= skip_to]


@given(length=st.integers(0, 6 * L), hop=st.integers(1500, 3 * L), tail=TAILS)
def test_places_are_in_order(length: int, hop: int, tail: Tail) -> None:
    found = places(Window(Take("mean", 5, 5 + length), Rules(hop, tail, 0)), None)
    assert all(one.start < other.start for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("n", "hop", "tail", "expected"),
    [
        (80_000, L, "pad", [0, L, 2 * L]),
        (80_000, L, "shift", [0, L, 48_000]),
        (64_000, L, "pad", [0, L]),
        (64_001, L, "pad", [0, L, 2 * L]),
        (64_000, 16_000, "pad", [0, 16_000, L]),
        (64_000, 24_000, "pad", [0, 24_000, 48_000]),
        (50_000, 3 * L, "pad", [0]),
        (50_000, 3 * L, "shift", [0]),
        (7, L, "shift", [0]),
        (0, L, "pad", []),
    ],
)
def test_where_the_last_clip_is(n: int, hop: int, tail: Tail, expected: list[int]) -> None:
    assert [place.start for place in places(Window(Take("mean"), Rules(hop, tail, 0)), n)] == expected
