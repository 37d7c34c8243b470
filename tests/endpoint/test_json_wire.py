"""Samples as JSON: valid, close enough, and always small enough for four clips; answers that are not JSON."""

from __future__ import annotations

import itertools
import json
import threading
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.codec import make_codec
from endpoint.errors import BadAnswer
from endpoint.items import ClipObject
from tests.endpoint import official

ODD = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 5e-8, -5e-8, 4.9999e-8, 1e-7, -1e-7, 0.99999994, 1.0, -1.0, 9.999999],
    np.float32,
)
BELOW_TEN = float(np.nextafter(np.float32(10), np.float32(0)))


def no_token(item: ClipObject) -> str:
    raise AssertionError(f"{item} needs no token")


def encode(clips: list[np.ndarray]) -> bytes:
    codec = make_codec("rest", "research", "audio", official.NAME)
    codec.check(clips)
    request = codec.prepare(clips).request(range(len(clips)), no_token)
    # The last instance has no comma after it.
    assert len(request) == codec.envelope_bytes + sum(codec.instance_bytes(clip, 0) for clip in clips) - 1
    return request


def clip_of_kind(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(0, 0.1, 32000).astype(np.float32)
    if kind == "loud":
        return rng.uniform(-BELOW_TEN, BELOW_TEN, 32000).astype(np.float32)
    if kind == "quiet":
        return (rng.normal(0, 1, 32000) * 10.0 ** rng.uniform(-9, 0, 32000)).astype(np.float32)
    if kind == "denormal":
        return rng.integers(0, 2**23, 32000, np.uint32).view(np.float32)
    return rng.choice(np.concatenate([ODD, [BELOW_TEN, -BELOW_TEN]]).astype(np.float32), 32000)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["normal", "loud", "quiet", "denormal", "odd"]), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_samples_are_rounded_to_seven_decimals(kinds: list[str], seed: int) -> None:
    clips = [clip_of_kind(kind, seed + position) for position, kind in enumerate(kinds)]
    data = encode(clips)
    body = json.loads(data)
    assert orjson.loads(data) == body
    for instance, clip in zip(body["instances"], clips, strict=True):
        # Seven decimals of the exact value, halves to even, as Python's own formatting rounds.
        assert instance == [float(f"{sample:.7f}") for sample in clip.tolist()]
        assert np.abs(np.array(instance) - clip.astype(np.float64)).max() <= 5.0000001e-8


def test_every_digit_in_every_place() -> None:
    # All upper halves with all lower halves' digits in turn: 0.0000000 to 9.9999xxx.
    lower = np.random.default_rng(1).integers(0, 10_000, 20_000)
    tenmillionths = np.concatenate(
        [np.arange(10_000) * 10_000 + lower[:10_000], np.arange(10_000), np.zeros(12_000, int)]
    )
    clip = (tenmillionths / 1e7).astype(np.float32)
    for signed in (clip, -clip):
        text = encode([signed])
        numbers = json.loads(text, parse_float=Decimal)["instances"][0]
        exact = [Decimal(sample).quantize(Decimal("1e-7")) for sample in signed.tolist()]
        assert numbers == exact


def test_four_clips_always_fit_into_a_megabyte_and_a_half() -> None:
    for kind in ("normal", "loud", "quiet", "denormal", "odd"):
        # design.md 3.3: 1,408,023 bytes at worst
        assert len(encode([clip_of_kind(kind, seed) for seed in range(4)])) == 1_408_023


@pytest.mark.parametrize("magnitude", [10.0, -10.0, 123.456, 32768.0, 3.4028235e38])
def test_larger_samples_are_written_as_they_are(magnitude: float) -> None:
    large, normal = clip_of_kind("normal", 1), clip_of_kind("normal", 2)
    large[31999] = magnitude
    data = encode([normal, large, normal])
    instances = json.loads(data)["instances"]
    assert orjson.loads(data)["instances"] == instances
    assert (np.array(instances[1]).astype(np.float32) == large).all()
    assert np.abs(np.array([instances[0], instances[2]]) - normal).max() <= 5.0000001e-8


def test_samples_that_are_not_finite_cost_their_clip_and_no_other() -> None:
    bad, good = clip_of_kind("normal", 1), clip_of_kind("normal", 2)
    bad[:3] = np.nan, np.inf, -np.inf
    instances = json.loads(encode([bad, good]))["instances"]
    assert instances[0][:4] == [None, None, None, pytest.approx(float(bad[3]))]
    assert None not in instances[1]


def test_clips_may_be_strided_views() -> None:
    for scale in (0.1, 100.0):
        stereo = (np.random.default_rng(3).normal(size=(32000, 2)) * scale).astype(np.float32)
        assert encode([stereo[:, 1]]) == encode([stereo[:, 1].copy()])


def test_parts_and_later_requests_hold_nothing_of_others() -> None:
    codec = make_codec("rest", "research", "audio", official.NAME)
    clips = [clip_of_kind(kind, 5) for kind in ("normal", "odd", "loud", "quiet")]
    clips[2] *= 100
    payload = codec.prepare(clips)
    codec.prepare([np.zeros(32000, np.float32)] * 4)
    assert payload.request(range(4), no_token) == encode(clips)
    for size in range(1, 4):
        for positions in itertools.combinations(range(4), size):
            part = payload.request(positions, no_token)
            assert part == encode([clips[position] for position in positions])


def test_threads_do_not_share_memory() -> None:
    codec = make_codec("rest", "research", "audio", official.NAME)
    clips = [clip_of_kind("normal", seed) for seed in range(4)]
    expected = [encode([clip]) for clip in clips]
    wrong: list[int] = []

    def encode_often(position: int) -> None:
        for _ in range(50):
            if codec.prepare([clips[position]]).request([0], no_token) != expected[position]:
                wrong.append(position)

    threads = [threading.Thread(target=encode_often, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


ROW = ",".join(["0.5"] * 512)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>SECRET</html>", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 2000, "not JSON"),
        (b'{"predictions": [', "not JSON"),
        (b'{"predictions": [[NaN]]}', "not JSON"),
        (b"[]", "not an object with a list of predictions"),
        (b'"SECRET"', "not an object with a list of predictions"),
        (b'{"predictions": {"SECRET": 1}}', "not an object with a list of predictions"),
        (b'{"predictions": null}', "not an object with a list of predictions"),
        (b"{}", "0 predictions for 1 instances"),
        (b'{"error": {"message": "SECRET"}}', "0 predictions for 1 instances"),
        (b'{"predictions": ["SECRET"]}', "prediction 0 of 1 is not a list of 512 numbers"),
        (b'{"predictions": [null]}', "prediction 0 of 1 is not a list of 512 numbers"),
        (b'{"predictions": [{"embedding": [%b]}]}' % ROW.encode(), "not a list of 512 numbers"),
        (b'{"predictions": [[%b,1]]}' % ROW.encode(), "not a list of 512 numbers"),
        (b'{"predictions": [[%b]]}' % ROW.replace("0.5", '"0.5"', 1).encode(), "not a list of 512 numbers"),
        (b'{"predictions": [[%b]]}' % ROW.replace("0.5", "true", 1).encode(), "not a list of 512 numbers"),
        (b'{"predictions": [[%b]]}' % ROW.replace("0.5", "null", 1).encode(), "not a list of 512 numbers"),
        (b'{"predictions": [[%b]]}' % ROW.replace("0.5", "1e39", 1).encode(), "not finite float32"),
        (b'{"predictions": [[%b]], "deployedModelId": 7}' % ROW.encode(), "by something else than a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_answer_is_refused_in_our_own_words(body: bytes, reason: str) -> None:
    with pytest.raises(BadAnswer, match=reason) as caught:
        make_codec("rest", "research", "audio", official.NAME).read(body, 1)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_whole_numbers_are_numbers_and_a_model_without_a_name_has_none() -> None:
    body = b'{"predictions": [[%b]], "model": "m", "modelVersionId": "1"}' % ROW.replace("0.5", "-3", 1).encode()
    predictions = make_codec("rest", "research", "audio", official.NAME).read(body, 1)
    assert predictions.embeddings[0, :2].tolist() == [-3.0, 0.5]
    assert predictions.deployed_model_id == ""


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_answer(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        make_codec("rest", "research", "audio", official.NAME).read(data, 1)
