"""PredictRequest's bytes to samples, and embeddings to PredictResponse's bytes.

A list of n numbers is, on the wire, n times `0A 09 11` and eight bytes of double. Where a request consists of nothing
else, numpy reads it in place (some 0.1 ms for four clips); everything else goes through protobuf's own parser, which
also says what is wrong with it. Nothing is shared with the client's codec, so that neither hides the other's mistakes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from emulator.messages import PredictRequest, PredictResponse
from emulator.refusals import InvalidArgumentError

DoubleArray = npt.NDArray[np.float64]

_NUMBER_HEADER = 0x11090A
"""ListValue.values, 9 bytes long; Value.number_value: the bytes `0A 09 11`, read as a little-endian integer."""

_NUMBER_BYTES = 11

_JSON_TYPES: dict[str | None, str] = {
    "bool_value": "bool",
    "list_value": "list",
    "null_value": "null",
    "number_value": "number",
    "string_value": "string",
    "struct_value": "object",
    None: "unset value",
}


class Request(NamedTuple):
    """A request as it was sent, not yet checked against the limits."""

    endpoint: str
    instances: list[DoubleArray | InvalidArgumentError]
    """The numbers of each instance, float64 (any length,); or why it is no list of numbers."""


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


def response_bytes(embeddings: npt.NDArray[np.float32], names: bytes) -> bytes:
    """Serialises a PredictResponse with one list of numbers per row of `embeddings`, float32 (n, m).

    `names` are the bytes of the response's other fields, from `response_names`.
    """
    clips, width = embeddings.shape
    body_bytes = width * _NUMBER_BYTES
    in_list = b"\x32" + _varint(body_bytes)
    header = b"\x0a" + _varint(len(in_list) + body_bytes) + in_list
    rows = np.empty((clips, len(header) + body_bytes), np.uint8)
    rows[:, : len(header)] = np.frombuffer(header, np.uint8)
    numbers = rows[:, len(header) :].reshape(clips, width, _NUMBER_BYTES)
    numbers[:, :, :3] = np.frombuffer(b"\x0a\x09\x11", np.uint8)
    numbers[:, :, 3:] = embeddings.astype("<f8").view(np.uint8).reshape(clips, width, 8)
    return rows.tobytes() + names


def response_names(*, deployed_model_id: str, model: str, model_version_id: str, model_display_name: str) -> bytes:
    """The serialised fields that are the same in every response."""
    response = PredictResponse(
        deployed_model_id=deployed_model_id,
        model=model,
        model_version_id=model_version_id,
        model_display_name=model_display_name,
    )
    return response.SerializeToString()


def _read_usual(data: bytes) -> Request:
    endpoint = ""
    instances: list[DoubleArray | InvalidArgumentError] = []
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
    return Request(message.endpoint, [_numbers(value, k) for k, value in enumerate(message.instances)])


def _numbers(instance: Any, position: int) -> DoubleArray | InvalidArgumentError:
    """The numbers of one instance, a google.protobuf.Value, or why it has none."""
    if instance.WhichOneof("kind") != "list_value":
        return _wrong_type(position, instance, "list of floats")
    values = instance.list_value.values
    for value in values:
        if value.WhichOneof("kind") != "number_value":
            return _wrong_type(position, value, "float")
    return np.fromiter((value.number_value for value in values), np.float64, len(values))


def _wrong_type(position: int, value: Any, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"Failed to process element: {position} of 'instances' list. Error: INVALID_ARGUMENT: "
        f"JSON Value of type {_JSON_TYPES[value.WhichOneof('kind')]} is not of expected type: {expected}"
    )


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
