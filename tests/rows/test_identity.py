import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from audio.recording import Recording, Segment, Take
from rows.identity import clip_id, fingerprint, packet_id, segment_id

TEXT = st.text(min_size=0, max_size=20)


def sha256_of_json(*parts: object) -> str:
    return hashlib.sha256(json.dumps(list(parts), separators=(",", ":")).encode()).hexdigest()


@given(TEXT, TEXT, TEXT, st.integers(0, 2**40), TEXT)
def test_a_clips_id_is_the_documented_hash(uri: str, version: str, channel: str, start: int, print_: str) -> None:
    expected = sha256_of_json("clip", uri, version, channel, start, print_)[:32]
    assert clip_id(Recording(uri, version, 7), channel, start, print_) == expected


@given(TEXT, TEXT, TEXT, st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)))
def test_a_clip_with_limits_has_them_in_its_hash(uri: str, version: str, channel: str, limits: tuple[int, int]) -> None:
    expected = sha256_of_json("clip", uri, version, channel, -5, "f", list(limits))[:32]
    assert clip_id(Recording(uri, version, 7), channel, -5, "f", limits) == expected
    assert clip_id(Recording(uri, version, 7), channel, -5, "f", None) != expected


@given(TEXT, TEXT, TEXT, st.integers(0, 10**5), st.one_of(st.none(), st.integers(0, 10**5)))
def test_a_segments_id_is_the_documented_hash(
    uri: str, version: str, choice: str, start_s: int, stop_s: int | None
) -> None:
    segment = Segment(Recording(uri, version, 7), (Take("0", 3, 5), Take("mean")), start_s, stop_s)
    takes = [["0", 3, 5], ["mean", 0, None]]
    expected = sha256_of_json("segment", uri, version, start_s, stop_s, choice, takes)[:32]
    assert segment_id(segment, choice) == expected


@given(st.tuples(TEXT, TEXT), st.tuples(TEXT, TEXT))
def test_different_recordings_have_different_segments(one: tuple[str, str], other: tuple[str, str]) -> None:
    same = segment_id(Segment(Recording(*one, 1)), "") == segment_id(Segment(Recording(*other, 2)), "")
    assert same == (one == other)


def test_parts_of_an_id_do_not_run_into_each_other() -> None:
    assert clip_id(Recording("a", "b", 1), "c", 1, "f") != clip_id(Recording("ab", "", 1), "c", 1, "f")


def test_the_fingerprint_ignores_the_order_of_settings_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": "x"}) == fingerprint({"b": "x", "a": 1})
    assert fingerprint({"a": 1, "b": "x"}) != fingerprint({"a": 1, "b": "y"})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def test_a_packets_id_is_that_of_its_set_of_segments() -> None:
    assert packet_id(["a", "b"]) == packet_id(["b", "a"])
    assert packet_id(["a", "b"]) != packet_id(["a"])
