"""The fast reading of requests and writing of responses agree with the official classes, whatever the bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emulator import wire
from emulator.predictions import Predictions
from emulator.refusals import InvalidArgumentError
from emulator.values import UNSET
from emulator.wire import read_request, response_bytes
from tests.emulator.calls import Request, Response, fill, predict_request

DOUBLES = st.floats(width=64)
NUMBERS = st.lists(DOUBLES, max_size=40)
ANYTHING = st.recursive(
    st.none() | st.booleans() | DOUBLES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def as_bits(numbers: Any) -> list[bytes]:
    return [struct.pack("<d", number) for number in numbers]


def assert_as_official(data: bytes) -> None:
    """What is read is what the official parser reads: numbers bit for bit, and a reason where it sees none."""
    try:
        official = Request.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidArgumentError, match="not a PredictRequest"):
            read_request(data)
        return
    request = read_request(data)
    assert request.endpoint == official.endpoint
    assert len(request.instances) == len(official.instances)
    for instance, value in zip(request.instances, official.instances, strict=True):
        values = value.list_value.values
        if value.WhichOneof("kind") == "list_value" and all(v.WhichOneof("kind") == "number_value" for v in values):
            assert isinstance(instance, np.ndarray)
            assert as_bits(instance) == as_bits(v.number_value for v in values)
        else:
            assert not isinstance(instance, np.ndarray)


@given(st.text(max_size=300), st.lists(NUMBERS, max_size=6))
@settings(max_examples=80, deadline=None)
def test_lists_of_numbers_are_read_fast_and_right(endpoint: str, instances: list[list[float]]) -> None:
    data = predict_request(instances, endpoint).SerializeToString()
    assert_as_official(data)
    fast = wire._read_usual(data)
    assert [as_bits(i) for i in fast.instances] == [as_bits(i) for i in instances]  # type: ignore[arg-type]


@given(st.lists(NUMBERS | ANYTHING, max_size=4))
@settings(max_examples=80, deadline=None)
def test_whatever_else_a_request_holds(instances: list[Any]) -> None:
    assert_as_official(predict_request(instances).SerializeToString())


@given(st.lists(NUMBERS, min_size=1, max_size=3), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_bytes(instances: list[list[float]], draw: st.DataObject) -> None:
    data = bytearray(predict_request(instances, "e").SerializeToString())
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    assert_as_official(bytes(data[: draw.draw(st.integers(0, len(data)))]))


@given(st.binary(max_size=40))
@example(b"\x12\x00")
@example(b"\x12\x02\x32\x00")
@example(b"\x0a\x02\xff\xff")
@example(b"\x12\x83\x80\x80\x80\x80\x80\x00\x32\x01\x0a")
@example(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes(data: bytes) -> None:
    assert_as_official(data)


def test_parameters_and_labels_are_accepted() -> None:
    request = predict_request([[1.0, 2.0]])
    request.parameters.string_value = "x"
    request.labels["a"] = "b"
    assert as_bits(read_request(request.SerializeToString()).instances[0]) == as_bits([1.0, 2.0])


def official_response(embeddings: np.ndarray, errors: dict[int, str] | None, *, as_objects: bool) -> Any:
    model = "projects/local/locations/local/models/hear-stand-in-v1"
    response = Response(deployed_model_id="1", model=model, model_version_id="1", model_display_name="hear-stand-in-v1")
    for position, row in enumerate(embeddings.tolist()):
        if errors and position in errors:
            prediction: Any = {"error": {"description": errors[position]}}
        else:
            prediction = {"embedding": row} if as_objects else row
        fill(response.predictions.add(), prediction)
    return response


@pytest.mark.parametrize("as_objects", [False, True])
@pytest.mark.parametrize("shape", [(1, 512), (4, 512), (3, 1), (2, 0), (0, 512)])
def test_responses_are_the_official_bytes(shape: tuple[int, int], as_objects: bool) -> None:
    embeddings = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = official_response(embeddings, None, as_objects=as_objects)
    assert response_bytes(Predictions(embeddings, as_objects)) == expected.SerializeToString(deterministic=True)


@pytest.mark.parametrize("errors", [{0: "why"}, {2: "ä" * 300}, {0: "", 1: "b", 2: "c"}])
def test_errors_stand_where_their_instances_stood(errors: dict[int, str]) -> None:
    embeddings = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    expected = official_response(embeddings, errors, as_objects=True)
    assert Response.FromString(response_bytes(Predictions(embeddings, True, errors))) == expected


@given(ANYTHING)
@settings(max_examples=80, deadline=None)
def test_other_instances_are_what_json_would_give(instance: Any) -> None:
    (read,) = read_request(predict_request([instance]).SerializeToString()).instances
    assert comparable(read) == comparable(instance)


def comparable(value: Any) -> Any:
    """Arrays and numbers such that they can be compared, NaN too."""
    if isinstance(value, (list, np.ndarray)):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return struct.pack("<d", value) if is_number else value


def test_a_value_of_no_kind_is_unset() -> None:
    request = predict_request([])
    request.instances.add()
    assert read_request(request.SerializeToString()).instances == [UNSET]
