"""Audio for research endpoints over gRPC: the same messages as the official classes write, and no other answer passes."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.codec import make_codec
from endpoint.errors import BadAnswer
from endpoint.items import CLIP_SAMPLES, ClipObject
from endpoint.predictions import EMBEDDING_WIDTH, Predictions
from endpoint.proto_answer import read_embeddings
from tests.endpoint import official

ODD_FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38, 0.1, np.pi, np.inf, -np.inf],
    np.float32,
)
SEEDS = st.integers(0, 2**32 - 1)


def no_token(item: ClipObject) -> str:
    raise AssertionError(f"{item} needs no token")


def encode(endpoint: str, clips: list[np.ndarray]) -> bytes:
    codec = make_codec("grpc", "research", "audio", endpoint)
    codec.check(clips)
    return codec.prepare(clips).request(range(len(clips)), no_token)


def clip_of_kind(kind: str, seed: int) -> np.ndarray:
    """32000 samples; `bits` are arbitrary float32 bit patterns but NaN, so all magnitudes and signs occur."""
    rng = np.random.default_rng(seed)
    if kind == "silent":
        return np.zeros(CLIP_SAMPLES, np.float32)
    if kind == "normal":
        return rng.normal(0, 0.1, CLIP_SAMPLES).astype(np.float32)
    if kind == "denormal":
        return rng.integers(0, 2**23, CLIP_SAMPLES, np.uint32).view(np.float32)
    if kind == "odd":
        return rng.choice(ODD_FLOATS, CLIP_SAMPLES)
    bits = rng.integers(0, 2**32, CLIP_SAMPLES, np.uint32).view(np.float32)
    return np.where(np.isnan(bits), np.float32(0.5), bits)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["silent", "normal", "denormal", "odd", "bits"]), min_size=1, max_size=5),
    seed=SEEDS,
    endpoint=st.text(st.characters(codec="utf-8"), min_size=1, max_size=300),
)
def test_requests_parse_to_the_message_that_the_official_classes_build(
    kinds: list[str], seed: int, endpoint: str
) -> None:
    clips = [clip_of_kind(kind, seed + position) for position, kind in enumerate(kinds)]
    data = encode(endpoint, clips)
    expected = official.request_message(endpoint, clips)
    assert official.parse_request(data) == expected
    # Equal messages may differ in the sign of zero; equal bytes do not.
    assert data == expected.SerializeToString(deterministic=True)


def test_a_template_keeps_nothing_of_the_request_before() -> None:
    codec = make_codec("grpc", "research", "audio", official.NAME)
    loud, silent = clip_of_kind("normal", 1), clip_of_kind("silent", 1)
    first = codec.prepare([loud, loud])
    second = codec.prepare([silent])
    for payload, clips in ((first, [loud, loud]), (second, [silent])):
        expected = official.request_message(official.NAME, clips).SerializeToString()
        assert payload.request(range(len(clips)), no_token) == expected


@pytest.mark.parametrize("endpoint", ["e", official.NAME, "é" * 200])
def test_parts_of_a_request_are_what_their_clips_alone_encode_to(endpoint: str) -> None:
    clips = [clip_of_kind("bits", seed) for seed in range(4)]
    payload = make_codec("grpc", "research", "audio", endpoint).prepare(clips)
    for size in range(1, 5):
        for positions in itertools.combinations(range(4), size):
            part = payload.request(positions, no_token)
            assert part == encode(endpoint, [clips[position] for position in positions])


def test_a_whole_request_is_not_copied() -> None:
    payload = make_codec("grpc", "research", "audio", "e").prepare([clip_of_kind("normal", 1)] * 4)
    assert payload.request(range(4), no_token) is payload.request([0, 1, 2, 3], no_token)


def test_four_clips_take_the_documented_size() -> None:
    # design.md 2.3 counts without the endpoint's field: two bytes and its name
    size = len(encode(official.NAME, [clip_of_kind("normal", 1)] * 4))
    assert 1_408_016 <= size < 1_500_000


def test_clips_may_be_strided_views() -> None:
    stereo = np.random.default_rng(3).normal(size=(CLIP_SAMPLES, 2)).astype(np.float32)
    assert encode("e", [stereo[:, 1]]) == encode("e", [stereo[:, 1].copy()])


def test_threads_do_not_share_a_template() -> None:
    clips = [clip_of_kind("normal", seed) for seed in range(4)]
    expected = [official.request_message("e", [clip]).SerializeToString() for clip in clips]
    codec = make_codec("grpc", "research", "audio", "e")
    wrong: list[int] = []

    def encode_often(position: int) -> None:
        for _ in range(100):
            if codec.prepare([clips[position]]).request([0], no_token) != expected[position]:
                wrong.append(position)

    threads = [threading.Thread(target=encode_often, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "clips",
    [
        [],
        [np.zeros(CLIP_SAMPLES - 1, np.float32)],
        [np.zeros(CLIP_SAMPLES, np.float32), np.zeros(CLIP_SAMPLES, np.float64)],
        [np.zeros((1, CLIP_SAMPLES), np.float32)],
    ],
)
def test_what_is_no_clip_is_not_encoded(clips: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"expected float32 of shape \(32000,\)|at least one clip"):
        encode("e", clips)


def embeddings_for(clips: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (clips, EMBEDDING_WIDTH)).astype(np.float32)


def decode_officially(data: bytes, clips: int) -> Predictions | None:
    """What an answer holds according to the official classes, or None if it is not one embedding a clip."""
    try:
        message = official.parse_response(data)
    except DecodeError:
        return None
    rows = []
    for prediction in message.predictions:
        values = prediction.list_value.values
        if len(values) != EMBEDDING_WIDTH or any(value.WhichOneof("kind") != "number_value" for value in values):
            return None
        rows.append([value.number_value for value in values])
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.array(rows, np.float64).astype(np.float32)
    if len(rows) != clips or not np.isfinite(array).all():
        return None
    return Predictions(array, message.deployed_model_id)


def assert_decodes_as_officially(data: bytes, clips: int) -> None:
    expected = decode_officially(data, clips)
    if expected is None:
        with pytest.raises(BadAnswer):
            read_embeddings(data, clips)
        return
    decoded = read_embeddings(data, clips)
    assert decoded.deployed_model_id == expected.deployed_model_id
    assert decoded.embeddings.dtype == np.float32
    assert decoded.embeddings.tobytes() == expected.embeddings.tobytes()


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(1, 6), seed=SEEDS, model=st.text(st.characters(codec="utf-8"), max_size=200))
def test_answers_decode_as_the_official_classes_read_them(clips: int, seed: int, model: str) -> None:
    embeddings = embeddings_for(clips, seed)
    decoded = read_embeddings(official.response_bytes(embeddings, model), clips)
    assert (decoded.embeddings == embeddings).all()
    assert decoded.deployed_model_id == model


def test_an_answer_with_all_its_fields_decodes() -> None:
    message = official.response_message(embeddings_for(4))
    message.model = "projects/p/locations/l/models/1"
    message.model_version_id = "3"
    message.model_display_name = "hear"
    message.metadata.struct_value["latency"] = 0.2
    assert_decodes_as_officially(message.SerializeToString(), 4)


@pytest.fixture(scope="module")
def answer() -> bytes:
    return official.response_bytes(embeddings_for(2), "model-1")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_changed_byte_gives_what_the_official_classes_read_or_no_answer(answer: bytes, data: st.DataObject) -> None:
    # Positions are drawn from both ends too, where headers and the model's id are.
    end = len(answer) - 1
    position = data.draw(
        st.integers(0, end) | st.integers(0, 40) | st.integers(end - 12, end) | st.integers(5630, 5660)
    )
    value = data.draw(st.integers(0, 255))
    assert_decodes_as_officially(answer[:position] + bytes([value]) + answer[position + 1 :], 2)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_cut_and_inserted_bytes_give_what_the_official_classes_read_or_no_answer(
    answer: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(answer)))
    stop = data.draw(st.integers(start, min(len(answer), start + 30)) | st.just(len(answer)))
    assert_decodes_as_officially(answer[:start] + data.draw(st.binary(max_size=12)) + answer[stop:], 2)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_answer(data: bytes) -> None:
    assert_decodes_as_officially(data, 1)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_fields_in_another_order_unknown_fields_and_long_lengths_fall_back_to_the_official_parser() -> None:
    embeddings = embeddings_for(2)
    first, second = (official.response_bytes([row], "") for row in embeddings)
    model = official.response_bytes([], "m")
    unknown = b"\xfa\x06\x03abc"  # field 111
    # The same lengths, written with one byte more than needed.
    body = second[3:]
    padded = b"\x0a" + bytes([len(body) & 127 | 128, len(body) >> 7 | 128, 0]) + body
    for data in (
        model + first + second,
        first + model + second,
        unknown + first + second + unknown + model,
        first + padded + model,
        first + second + model + model,
    ):
        decoded = read_embeddings(data, 2)
        assert (decoded.embeddings == embeddings).all()
        assert decoded.deployed_model_id == "m"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_canonical_predictions_and_others_in_any_order_keep_their_places(data: st.DataObject) -> None:
    pieces, embeddings = [], embeddings_for(6)
    for row in embeddings:
        whole = official.response_bytes([row], "")
        body = whole[3:]
        padded = b"\x0a" + bytes([len(body) & 127 | 128, len(body) >> 7 | 128, 0]) + body
        pieces += [data.draw(st.sampled_from([whole, whole, padded, b"\xfa\x06\x03abc" + whole]))]
    decoded = read_embeddings(b"".join(pieces), 6)
    assert (decoded.embeddings == embeddings).all()
    assert decoded.embeddings.base is None


def test_a_list_in_two_pieces_is_merged_as_protobuf_prescribes() -> None:
    numbers = embeddings_for(1)[0]
    value = b"".join(
        b"\x32" + varint(11 * len(piece)) + b"".join(b"\x0a\x09\x11" + np.float64(x).tobytes() for x in piece)
        for piece in (numbers[:200], numbers[200:])
    )
    data = b"\x0a" + varint(len(value)) + value
    assert (read_embeddings(data, 1).embeddings[0] == numbers).all()
    assert_decodes_as_officially(data, 1)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_another_number_of_predictions_is_a_bad_answer(count: int) -> None:
    with pytest.raises(BadAnswer, match=f"{count} predictions for 4 instances"):
        read_embeddings(official.response_bytes(embeddings_for(count)), 4)


@pytest.mark.parametrize("width", [0, 511, 513])
def test_another_width_is_a_bad_answer(width: int) -> None:
    rows = [np.zeros(EMBEDDING_WIDTH), np.zeros(width)]
    with pytest.raises(BadAnswer, match="prediction 1 of 2 is not a list of 512 numbers"):
        read_embeddings(official.response_bytes(rows), 2)


SIGNALLING_NAN = np.array(0x7FF0_0000_0000_0001, np.uint64).view(np.float64)[()]


@pytest.mark.parametrize("value", [np.nan, SIGNALLING_NAN, np.inf, -np.inf, 1e300, -3.5e38])
def test_numbers_that_are_not_finite_float32_are_a_bad_answer(value: float) -> None:
    rows = embeddings_for(3).astype(np.float64)
    rows[2, 511] = value
    with pytest.raises(BadAnswer, match="prediction 2 of 3 holds numbers that are not finite"):
        read_embeddings(official.response_bytes(rows), 3)


def test_predictions_of_other_kinds_are_bad_answers() -> None:
    message = official.response_message(embeddings_for(1))
    message.predictions[0].list_value.values[5].string_value = "0.5"
    with pytest.raises(BadAnswer, match="not a list of 512 numbers"):
        read_embeddings(message.SerializeToString(), 1)
    as_object = official.response_message([])
    as_object.predictions.add().struct_value.get_or_create_list("embedding").extend([0.5] * EMBEDDING_WIDTH)
    with pytest.raises(BadAnswer, match="not a list of 512 numbers"):
        read_embeddings(as_object.SerializeToString(), 1)


def test_embeddings_do_not_keep_the_answer_alive() -> None:
    decoded = read_embeddings(official.response_bytes(embeddings_for(1)), 1)
    assert decoded.embeddings.base is None
    assert decoded.embeddings.flags.writeable
