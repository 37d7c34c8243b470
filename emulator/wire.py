"""The protobuf side: PredictRequest's bytes to instances, and predictions to PredictResponse's bytes.

A list of n numbers is, on the wire, n times `0A 09 11` and eight bytes of double. Where a request consists of nothing
else, numpy reads it in place (some 0.1 ms for four clips); everything else goes through protobuf's own parser, which
also says what is wrong with it. Nothing is shared with the client's codec, so that neither hides the other's mistakes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from emulator.messages import PredictRequest, PredictResponse
from emulator.predictions import DEPLOYED_MODEL_ID, MODEL_NAME, MODEL_VERSION_ID, Predictions
from emulator.refusals import InvalidArgumentError
from emulator.standin import MODEL_ID, FloatArray
from emulator.values import UNSET, Request

DoubleArray = npt.NDArray[np.float64]

_NUMBER_HEADER = 0x11090A
"""ListValue.values, 9 bytes long; Value.number_value: the bytes `0A 09 11`, read as a little-endian integer."""

_NUMBER_BYTES = 11

_IN_OBJECT = (b"\x2a", b"\x0a", b"\x0a\x09embedding\x12")
"""Value.struct_value, Struct.fields, and in its entry the key `embedding` before the value."""

_NAMES: bytes = PredictResponse(
    deployed_model_id=DEPLOYED_MODEL_ID,
    model=MODEL_NAME,
    model_version_id=MODEL_VERSION_ID,
    model_display_name=MODEL_ID,
).SerializeToString()
"""The fields that are the same in every response."""


class _UnexpectedError(Exception):
    """These bytes are not of the usual form; they may be valid nevertheless."""


def read_request(data: bytes) -> Request:
    """Reads a serialised PredictRequest.

    Raises:
        InvalidArgumentError: the bytes are no PredictRequest.
    """
    try:
        return _read_usual(data)
    except _UnexpectedError:
        return _read_any(data)


def response_bytes(predictions: Predictions) -> bytes:
    """Serialises a PredictResponse."""
    rows = _rows(predictions.embeddings, in_object=predictions.as_objects)
    if not predictions.errors:
        return rows.tobytes() + _NAMES
    parts = [
        _error_bytes(predictions.errors[position]) if position in predictions.errors else row.tobytes()
        for position, row in enumerate(rows)
    ]
    return b"".join(parts) + _NAMES


def _rows(embeddings: FloatArray, *, in_object: bool) -> npt.NDArray[np.uint8]:
    """The field `predictions` once for each of float32 (n, m), with its tag: uint8 (n, bytes of one)."""
    clips, width = embeddings.shape
    body_bytes = width * _NUMBER_BYTES
    header = _lengths(body_bytes, (b"\x0a", *_IN_OBJECT, b"\x32") if in_object else (b"\x0a", b"\x32"))
    rows = np.empty((clips, len(header) + body_bytes), np.uint8)
    rows[:, : len(header)] = np.frombuffer(header, np.uint8)
    numbers = rows[:, len(header) :].reshape(clips, width, _NUMBER_BYTES)
    numbers[:, :, :3] = np.frombuffer(b"\x0a\x09\x11", np.uint8)
    numbers[:, :, 3:] = embeddings.astype("<f8").view(np.uint8).reshape(clips, width, 8)
    return rows


def _lengths(body_bytes: int, prefixes: tuple[bytes, ...]) -> bytes:
    """What stands before the body of fields that lie within each other: the prefix of each, and its length."""
    header = b""
    for prefix in reversed(prefixes):
        header = prefix + _varint(len(header) + body_bytes) + header
    return header


def _error_bytes(description: str) -> bytes:
    response: Any = PredictResponse()
    error = response.predictions.add().struct_value.fields["error"]
    error.struct_value.fields["description"].string_value = description
    serialised: bytes = response.SerializeToString()
    return serialised


def _read_usual(data: bytes) -> Request:
    endpoint = ""
    instances: list[Any] = []
    place = 0
    while place < len(data):
        tag = data[place]
        end, place = _length(data, place + 1)
        if tag == 0x0A:
            try:
                endpoint = data[place:end].decode()
            except UnicodeDecodeError:
                raise _UnexpectedError from None
        elif tag == 0x12:
            instances.append(_read_list(data, place, end))
        else:
            raise _UnexpectedError
        place = end
    return Request(endpoint, instances)


def _read_list(data: bytes, place: int, end: int) -> DoubleArray:
    """The numbers of a Value in data[place:end] that is one ListValue of numbers, copied out in one go."""
    if place == end or data[place] != 0x32:
        raise _UnexpectedError
    list_end, place = _length(data, place + 1)
    if list_end != end or (end - place) % _NUMBER_BYTES:
        raise _UnexpectedError
    count = (end - place) // _NUMBER_BYTES
    if count == 0:
        return np.empty(0)
    # Four bytes at a time are read for the three of the header: the fourth is the double's first.
    headers: npt.NDArray[np.uint32] = np.ndarray((count,), "<u4", data, place, (_NUMBER_BYTES,))
    if np.any((headers & 0xFFFFFF) != _NUMBER_HEADER):
        raise _UnexpectedError
    numbers: DoubleArray = np.ndarray((count,), "<f8", data, place + 3, (_NUMBER_BYTES,))
    return numbers.copy()


def _length(data: bytes, place: int) -> tuple[int, int]:
    """Reads the length at `place`: where what it measures ends, and where it begins."""
    length = shift = 0
    while place < len(data) and shift < 35:
        byte = data[place]
        place += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if place + length > len(data):
                break
            return place + length, place
        shift += 7
    raise _UnexpectedError


def _read_any(data: bytes) -> Request:
    try:
        message: Any = PredictRequest.FromString(data)
    except DecodeError:
        raise InvalidArgumentError("Invalid request: the payload is not a PredictRequest.") from None
    return Request(message.endpoint, [_value(instance) for instance in message.instances])


def _value(value: Any) -> Any:
    """What a google.protobuf.Value holds, as `values.Request` describes it."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        values = value.list_value.values
        if all(item.WhichOneof("kind") == "number_value" for item in values):
            return np.fromiter((item.number_value for item in values), np.float64, len(values))
        return [_value(item) for item in values]
    if kind == "struct_value":
        return {key: _value(item) for key, item in value.struct_value.fields.items()}
    if kind is None:
        return UNSET
    return None if kind == "null_value" else getattr(value, kind)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
