"""Answers as protobuf, read with numpy instead of a message object for each float.

An answer is `PredictResponse{repeated Value predictions = 1, string deployed_model_id = 2, ...}`. In the research
format a prediction is a `ListValue` of number `Value`s, in Model Garden's a `Struct` with such a list as `embedding` or
with an `error`. Canonical encoders write each kind of embedding in one way only, so that a usual answer is read in
strides. What is not where a canonical encoder puts it is handed to protobuf's own parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from endpoint.answer_message import parse_answer
from endpoint.errors import BadAnswer
from endpoint.predictions import (
    EMBEDDING_WIDTH,
    InstanceError,
    Predictions,
    as_float32,
    check_count,
    check_finite,
    error_of_description,
)
from endpoint.proto_fields import NUMBER_BYTES, NUMBER_TAGS, field, number_list

_Result: TypeAlias = "npt.NDArray[np.float32] | InstanceError | None"
_NUMBERS_BYTES = EMBEDDING_WIDTH * NUMBER_BYTES
_TAGS_AS_INTEGER = int.from_bytes(NUMBER_TAGS, "little")
_TAGS_MASK = np.uint32(0xFFFFFF)


def read_embeddings(data: bytes, instances: int) -> Predictions:
    """Reads an answer of the research format: a list of 512 finite numbers for each instance.

    Raises:
        BadAnswer: when it holds anything else, or numbers beyond float32.
    """
    return _read(_LIST, data, instances)


def read_results(data: bytes, instances: int) -> Predictions:
    """Reads an answer of the Model Garden format: `embedding`, as 512 finite numbers, or `error` for each instance.

    Raises:
        BadAnswer: when it holds anything else, or numbers beyond float32.
    """
    return _read(_STRUCT, data, instances)


class _Shape(NamedTuple):
    """One kind of prediction."""

    head: npt.NDArray[np.uint8]
    """The bytes before the first number's tags, where an embedding is written canonically."""
    parse: Callable[[Any], _Result]
    """Reads a parsed `Value`; None if it is not of this kind."""
    description: str

    @property
    def size_bytes(self) -> int:
        """Of a prediction with an embedding."""
        return len(self.head) + _NUMBERS_BYTES


def _read(shape: _Shape, data: bytes, instances: int) -> Predictions:
    usual_bytes = instances * shape.size_bytes
    if len(data) >= usual_bytes and (embeddings := _read_canonical(shape, data, instances)) is not None:
        # The remainder is short, and concatenated protobuf messages read as one: predictions in it would be found.
        message = parse_answer(data[usual_bytes:])
        check_count(instances + len(message.predictions), instances)
        check_finite(embeddings)
        return Predictions(embeddings, message.deployed_model_id)
    return _read_mixed(shape, data, instances)


def _read_canonical(shape: _Shape, data: bytes, count: int) -> npt.NDArray[np.float32] | None:
    """The embeddings at the front of an answer, (count, 512), or None if any byte between the numbers is unusual."""
    heads = np.ndarray((count, len(shape.head)), np.uint8, buffer=data, strides=(shape.size_bytes, 1))
    layout: dict[str, Any] = {"buffer": data, "strides": (shape.size_bytes, NUMBER_BYTES)}
    # Four bytes at a stride: three tags and the first byte of the number, which is masked out.
    tags = np.ndarray((count, EMBEDDING_WIDTH), "<u4", offset=len(shape.head), **layout)
    if not ((heads == shape.head).all() and ((tags & _TAGS_MASK) == _TAGS_AS_INTEGER).all()):
        return None
    return as_float32(np.ndarray((count, EMBEDDING_WIDTH), "<f8", offset=len(shape.head) + len(NUMBER_TAGS), **layout))


def _read_mixed(shape: _Shape, data: bytes, instances: int) -> Predictions:
    """Reads what is canonical in strides and the rest with the parser, so that an error among 640 embeddings is cheap."""
    predictions = list(_leading_predictions(data))
    usual = [len(prediction) == shape.size_bytes for prediction in predictions]
    together = b"".join(prediction for prediction, is_usual in zip(predictions, usual, strict=True) if is_usual)
    canonical = _read_canonical(shape, together, sum(usual)) if any(usual) else None
    if canonical is None:
        usual = []
        message = parse_answer(data)
    else:
        others = [prediction for prediction, is_usual in zip(predictions, usual, strict=True) if not is_usual]
        message = parse_answer(b"".join((*others, data[sum(map(len, predictions)) :])))
    check_count(sum(usual) + len(message.predictions), instances)
    usual += [False] * (instances - len(usual))

    embeddings = np.zeros((instances, EMBEDDING_WIDTH), np.float32)
    if canonical is not None:
        embeddings[usual] = canonical
    errors = {}
    parsed = (shape.parse(prediction) for prediction in message.predictions)
    for position in np.flatnonzero(np.logical_not(usual)).tolist():
        result = next(parsed)
        if result is None:
            raise BadAnswer(f"prediction {position} of {instances} is not {shape.description}")
        if isinstance(result, InstanceError):
            errors[position] = result
        else:
            embeddings[position] = result
    check_finite(embeddings)
    return Predictions(embeddings, message.deployed_model_id, errors)


def _leading_predictions(data: bytes) -> Iterator[memoryview]:
    """The fields `predictions` at the front of an answer, as far as they can be told apart."""
    view = memoryview(data)
    start = 0
    while start < len(data) and data[start] == 0x0A:
        place, length, shift = start + 1, 0, 0
        while place < len(data) and data[place] & 0x80 and shift < 28:
            length |= (data[place] & 0x7F) << shift
            place, shift = place + 1, shift + 7
        if place >= len(data):
            return
        length |= data[place] << shift
        stop = place + 1 + length
        if stop > len(data):
            return
        yield view[start:stop]
        start = stop


def _list(value: Any) -> _Result:
    numbers = value.list_value.values
    if len(numbers) != EMBEDDING_WIDTH or any(number.WhichOneof("kind") != "number_value" for number in numbers):
        return None
    return as_float32(np.array([number.number_value for number in numbers]))


def _struct(value: Any) -> _Result:
    fields = value.struct_value.fields
    # Asking a protobuf map for a key that it lacks would add it.
    if ("embedding" in fields) == ("error" in fields):
        return None
    if "embedding" in fields:
        return _list(fields["embedding"])
    details = fields["error"].struct_value.fields
    return error_of_description(details["description"].string_value if "description" in details else None)


def _head(prediction: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(prediction[:-_NUMBERS_BYTES], np.uint8)


_NUMBERS = number_list(EMBEDDING_WIDTH)
_LIST = _Shape(_head(field(1, _NUMBERS)), _list, f"a list of {EMBEDDING_WIDTH} numbers")
_STRUCT = _Shape(
    _head(field(1, field(5, field(1, field(1, b"embedding") + field(2, _NUMBERS))))),
    _struct,
    f"an object with either an embedding of {EMBEDDING_WIDTH} numbers or an error",
)
