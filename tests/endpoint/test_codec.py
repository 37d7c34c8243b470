"""Every way of sending: what requests hold as official readers see it, how large they are, and what answers mean."""

from __future__ import annotations

import base64
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.codec import Codec, make_codec
from endpoint.errors import BadAnswer
from endpoint.items import ClipObject, Item
from endpoint.predictions import EMBEDDING_WIDTH, InstanceError, Predictions
from endpoint.settings import InstanceFormat, SendAs, TransportName
from endpoint.wav import encode_wav
from tests.endpoint import official

WAYS = list(itertools.product(get_args(TransportName), get_args(InstanceFormat), get_args(SendAs)))
TRANSPORTS = get_args(TransportName)
FORMATS = get_args(InstanceFormat)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9._-]{1,60}[a-z0-9]", fullmatch=True)
OBJECTS = st.builds(ClipObject, BUCKETS, TEXT)
TOKENS = st.from_regex(r"ya29\.[A-Za-z0-9._~+/-]{0,3000}=*", fullmatch=True)


def no_token(item: ClipObject) -> str:
    raise AssertionError(f"{item} needs no token")


def items_for(instance_format: str, send: str, count: int, seed: int = 0) -> list[Item]:
    rng = np.random.default_rng(seed)
    clips = [rng.normal(0, 0.1, 32000).astype(np.float32) for _ in range(count)]
    if send == "uris":
        return [ClipObject(f"bucket-{seed}", f"clips/{rng.integers(10**9)}.wav") for _ in range(count)]
    return [encode_wav(clip) for clip in clips] if instance_format == "model_garden" else clips


def instances_of(transport: str, request: bytes) -> list[Any]:
    """The instances as plain values, read by official classes or the standard library."""
    if transport == "rest":
        body = json.loads(request)
        assert body.keys() == {"instances"}
        assert orjson.loads(request) == body
        return list(body["instances"])
    message = official.parse_request(request)
    assert message.endpoint == official.NAME
    return [json_format.MessageToDict(instance) for instance in message.instances]


@pytest.mark.parametrize("transport", TRANSPORTS)
@settings(max_examples=50, deadline=None)
@given(objects=st.lists(OBJECTS, min_size=1, max_size=20), tokens=st.lists(TOKENS, min_size=1, max_size=3))
def test_objects_go_with_the_token_of_each(
    transport: TransportName, objects: list[ClipObject], tokens: list[str]
) -> None:
    def token_of(item: ClipObject) -> str:
        return tokens[len(item.name) % len(tokens)]

    research = [
        {"bucket_name": item.bucket, "object_uri": item.name, "bearer_token": token_of(item)} for item in objects
    ]
    garden = [{"gcs_uri": f"gs://{item.bucket}/{item.name}", "bearer_token": token_of(item)} for item in objects]
    for instance_format, expected in (("research", research), ("model_garden", garden)):
        codec = make_codec(transport, instance_format, "uris", official.NAME)
        codec.check(objects)
        request = codec.prepare(objects).request(range(len(objects)), token_of)
        assert instances_of(transport, request) == expected
        if transport == "grpc":
            assert request == official.struct_request_bytes(official.NAME, expected)
        places = range(0, len(objects), 2)
        part = codec.prepare(objects).request(places, token_of)
        assert instances_of(transport, part) == expected[::2]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_wavs_go_in_base64(transport: TransportName) -> None:
    items = items_for("model_garden", "audio", 5)
    codec = make_codec(transport, "model_garden", "audio", official.NAME)
    codec.check(items)
    payload = codec.prepare(items)
    expected = [{"input_bytes": base64.b64encode(item.data).decode()} for item in items]  # type: ignore[union-attr]
    whole = payload.request(range(5), no_token)
    assert instances_of(transport, whole) == expected
    assert payload.request(range(5), no_token) is whole
    for size in range(1, 5):
        for positions in itertools.combinations(range(5), size):
            part = payload.request(positions, no_token)
            assert instances_of(transport, part) == [expected[position] for position in positions]


@pytest.mark.parametrize(("transport", "instance_format", "send"), WAYS)
@settings(max_examples=10, deadline=None)
@given(count=st.integers(1, 4), seed=st.integers(0, 1000), token=TOKENS)
def test_sizes_are_known_before(
    transport: TransportName, instance_format: InstanceFormat, send: SendAs, count: int, seed: int, token: str
) -> None:
    codec = make_codec(transport, instance_format, send, official.NAME)
    items = items_for(instance_format, send, count, seed)
    request = codec.prepare(items).request(range(count), lambda _: token)
    predicted = codec.envelope_bytes + sum(codec.instance_bytes(item, len(token)) for item in items)
    # JSON's last instance has no comma after it.
    assert len(request) == predicted - (transport == "rest")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("instance_format", FORMATS)
@given(item=OBJECTS, token_bytes=st.integers(1, 20_000))
def test_sizes_of_objects_with_any_name(
    transport: TransportName, instance_format: InstanceFormat, item: ClipObject, token_bytes: int
) -> None:
    codec = make_codec(transport, instance_format, "uris", official.NAME)
    request = codec.prepare([item]).request([0], lambda _: "t" * token_bytes)
    predicted = codec.envelope_bytes + codec.instance_bytes(item, token_bytes)
    assert len(request) == predicted - (transport == "rest")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_seventeen_wavs_and_640_objects_with_tokens_of_2048_bytes_fit_as_documented(transport: TransportName) -> None:
    wavs = items_for("model_garden", "audio", 17)
    codec = make_codec(transport, "model_garden", "audio", official.NAME)
    assert len(codec.prepare(wavs).request(range(17), no_token)) < 1_500_000
    objects = items_for("research", "uris", 640)
    codec = make_codec(transport, "research", "uris", official.NAME)
    assert 1_350_000 < len(codec.prepare(objects).request(range(640), lambda _: "t" * 2048)) < 1_500_000


@pytest.mark.parametrize(("transport", "instance_format", "send"), WAYS)
def test_limits_and_kinds(transport: TransportName, instance_format: InstanceFormat, send: SendAs) -> None:
    codec = make_codec(transport, instance_format, send, official.NAME)
    limit = 640 if send == "uris" else 4 if instance_format == "research" else sys.maxsize
    assert codec.max_instances == limit
    right = items_for(instance_format, send, 1)
    codec.check(right)
    with pytest.raises(ValueError, match="at least one clip"):
        codec.check([])
    for other_format, other_send in (("research", "audio"), ("model_garden", "audio"), ("research", "uris")):
        wrong = items_for(other_format, other_send, 1)
        if type(wrong[0]) is not type(right[0]):
            with pytest.raises(ValueError, match=r"clip 1 of the request is .*: expected"):
                codec.check([*right, *wrong])


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "item", [ClipObject("", "x"), ClipObject("gs://b", "x"), ClipObject("b", ""), ClipObject("b", "\ud800")]
)
def test_what_is_no_object_is_refused(transport: TransportName, item: ClipObject) -> None:
    with pytest.raises(ValueError, match=r"clip 0 of the request is gs://.*: expected"):
        make_codec(transport, "research", "uris", official.NAME).check([item])


def test_payloads_show_and_keep_no_token() -> None:
    for transport, instance_format in itertools.product(TRANSPORTS, FORMATS):
        items = items_for(instance_format, "uris", 3)
        payload = make_codec(transport, instance_format, "uris", official.NAME).prepare(items)
        tokens = iter(["ya29.TEST-1"] * 3 + ["ya29.TEST-2"] * 3)
        first, second = (payload.request(range(3), lambda _, tokens=tokens: next(tokens)) for _ in range(2))
        assert (first.count(b"ya29.TEST-1"), first.count(b"ya29.TEST-2")) == (3, 0)
        assert (second.count(b"ya29.TEST-1"), second.count(b"ya29.TEST-2")) == (0, 3)
        assert "ya29" not in repr(payload)


# Answers

Result = np.ndarray | str


def embeddings_for(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, EMBEDDING_WIDTH)).astype(np.float32)


def garden_grpc(results: Sequence[Result], model: str = "7") -> bytes:
    return official.garden_response_bytes(results, model)


def garden_rest(results: Sequence[Result], model: str = "7") -> bytes:
    predictions = [
        {"error": {"description": result}} if isinstance(result, str) else {"embedding": list(map(float, result))}
        for result in results
    ]
    return json.dumps({"predictions": predictions, "deployedModelId": model, "model": "projects/p"}).encode()


def research_grpc(rows: Sequence[np.ndarray], model: str = "7") -> bytes:
    return official.response_bytes(rows, model)


def research_rest(rows: Sequence[np.ndarray], model: str = "7") -> bytes:
    return json.dumps({"predictions": [list(map(float, row)) for row in rows], "deployedModelId": model}).encode()


def reader(transport: TransportName, instance_format: InstanceFormat) -> Codec:
    return make_codec(transport, instance_format, "uris", official.NAME)


GARDEN: list[tuple[TransportName, Callable[..., bytes]]] = [("grpc", garden_grpc), ("rest", garden_rest)]
EVERY: list[tuple[TransportName, InstanceFormat, Callable[..., bytes]]] = [
    ("grpc", "research", research_grpc),
    ("rest", "research", research_rest),
    ("grpc", "model_garden", garden_grpc),
    ("rest", "model_garden", garden_rest),
]


@pytest.mark.parametrize(("transport", "instance_format", "write"), EVERY)
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 20), seed=st.integers(0, 1000), model=st.text(st.characters(codec="utf-8"), max_size=200))
def test_embeddings_arrive_exactly(
    transport: TransportName,
    instance_format: InstanceFormat,
    write: Callable[..., bytes],
    count: int,
    seed: int,
    model: str,
) -> None:
    embeddings = embeddings_for(count, seed)
    predictions = reader(transport, instance_format).read(write(embeddings, model), count)
    assert predictions.embeddings.dtype == np.float32
    assert predictions.embeddings.tobytes() == embeddings.tobytes()
    assert predictions.embeddings.base is None
    assert predictions.deployed_model_id == model
    assert predictions.errors == {}


@pytest.mark.parametrize(("transport", "write"), GARDEN)
@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["embedding", official.NOT_RETRIEVED, "Expected 32000 samples", ""]), min_size=1),
    seed=st.integers(0, 1000),
)
def test_errors_stand_beside_the_embeddings_of_the_others(
    transport: TransportName, write: Callable[..., bytes], kinds: list[str], seed: int
) -> None:
    embeddings = embeddings_for(len(kinds), seed)
    results = [row if kind == "embedding" else kind for kind, row in zip(kinds, embeddings, strict=True)]
    predictions = reader(transport, "model_garden").read(write(results), len(kinds))
    assert predictions.errors == {
        position: InstanceError.NOT_RETRIEVED if kind == official.NOT_RETRIEVED else InstanceError.REJECTED
        for position, kind in enumerate(kinds)
        if kind != "embedding"
    }
    embeddings[list(predictions.errors)] = 0
    assert (predictions.embeddings == embeddings).all()
    assert predictions.deployed_model_id == "7"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "prediction",
    [
        {},
        {"embedding": []},
        {"embedding": [0.5] * 511},
        {"embedding": [0.5] * 513},
        {"embedding": [0.5] * 511 + ["0.5"]},
        {"embedding": [0.5] * 511 + [True]},
        {"embedding": [0.5] * 511 + [None]},
        {"embedding": "0.5"},
        {"embedding": [0.5] * 512, "error": {"description": "SECRET"}},
        {"other": [0.5] * 512},
        [0.5] * 512,
        "SECRET",
        None,
        0.5,
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_prediction_that_is_neither_embedding_nor_error_is_a_bad_answer(
    transport: TransportName, prediction: Any
) -> None:
    body = json.dumps({"predictions": [{"embedding": [0.5] * 512}, prediction]})
    data = body.encode() if transport == "rest" else official.parse_json_response(body)
    with pytest.raises(BadAnswer, match="prediction 1 of 2 is not an object with either an embedding of 512"):
        reader(transport, "model_garden").read(data, 2)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("error", [None, "SECRET", {}, {"description": 3}, {"code": 5}, ["SECRET"]], ids=str)
def test_an_error_of_any_other_make_is_a_rejection(transport: TransportName, error: Any) -> None:
    body = json.dumps({"predictions": [{"error": error}]})
    data = body.encode() if transport == "rest" else official.parse_json_response(body)
    predictions = reader(transport, "model_garden").read(data, 1)
    assert predictions.errors == {0: InstanceError.REJECTED}
    assert "SECRET" not in repr(predictions)


@pytest.mark.parametrize(("transport", "instance_format", "write"), EVERY)
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_another_number_of_predictions_is_a_bad_answer(
    transport: TransportName, instance_format: InstanceFormat, write: Callable[..., bytes], count: int
) -> None:
    with pytest.raises(BadAnswer, match=f"{count} predictions for 4 instances"):
        reader(transport, instance_format).read(write(embeddings_for(count)), 4)


@pytest.mark.parametrize(("transport", "instance_format", "write"), EVERY)
@pytest.mark.parametrize("value", [1e300, -3.5e38, float("nan"), float("inf")])
def test_numbers_that_are_not_finite_float32_are_bad_answers(
    transport: TransportName, instance_format: InstanceFormat, write: Callable[..., bytes], value: float
) -> None:
    rows = embeddings_for(3).astype(np.float64)
    rows[2, 511] = value
    with pytest.raises(BadAnswer, match=r"prediction 2 of 3 holds numbers that are not finite|is not JSON"):
        reader(transport, instance_format).read(write(rows), 3)


@pytest.fixture(scope="module")
def garden_answer() -> bytes:
    return garden_grpc([*embeddings_for(2), "error", *embeddings_for(1)], "model-1")


def read_officially(data: bytes, count: int) -> Predictions | None:
    """What a Model Garden answer holds according to the official classes, or None if it is none."""
    try:
        message = official.parse_response(data)
    except official.DecodeError:
        return None
    if len(message.predictions) != count:
        return None
    embeddings, errors = np.zeros((count, EMBEDDING_WIDTH), np.float32), {}
    for position, prediction in enumerate(message.predictions):
        fields = prediction.struct_value.fields
        if ("error" in fields) == ("embedding" in fields):
            return None
        if "error" in fields:
            description = fields["error"].struct_value.fields["description"].string_value
            is_retrieval = description.startswith(official.NOT_RETRIEVED[:-1])
            errors[position] = InstanceError.NOT_RETRIEVED if is_retrieval else InstanceError.REJECTED
            continue
        values = fields["embedding"].list_value.values
        if len(values) != EMBEDDING_WIDTH or any(value.WhichOneof("kind") != "number_value" for value in values):
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            embeddings[position] = np.array([value.number_value for value in values]).astype(np.float32)
    return Predictions(embeddings, message.deployed_model_id, errors) if np.isfinite(embeddings).all() else None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_garden_answer_gives_what_the_official_classes_read_or_no_answer(
    garden_answer: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(garden_answer)) | st.integers(0, 40) | st.integers(11_300, 11_400))
    stop = data.draw(st.integers(start, min(len(garden_answer), start + 3)))
    changed = garden_answer[:start] + data.draw(st.binary(max_size=3)) + garden_answer[stop:]
    expected = read_officially(changed, 4)
    codec = reader("grpc", "model_garden")
    if expected is None:
        with pytest.raises(BadAnswer):
            codec.read(changed, 4)
        return
    predictions = codec.read(changed, 4)
    assert predictions.embeddings.tobytes() == expected.embeddings.tobytes()
    assert predictions.errors == expected.errors
    assert predictions.deployed_model_id == expected.deployed_model_id
