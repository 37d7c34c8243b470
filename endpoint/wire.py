"""The bytes of a prediction request and its answer, written and read with numpy instead of a message object per float.

A request is `PredictRequest{endpoint = 1, repeated Value instances = 2}`, each instance a `Value` with a `ListValue` of
number `Value`s: eleven bytes a sample, of which three are always `0A 09 11` and eight are the little-endian double. An
answer is `PredictResponse{repeated Value predictions = 1, string deployed_model_id = 2, ...}` of the same make. So a
request is a template into which samples are copied, and a usual answer is read in strides; see design.md 3.3 for what
that saves. Any byte of an answer that is not where a canonical encoder puts it hands the answer to protobuf's own
parser.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from endpoint.answer_message import parse_answer
from endpoint.errors import BadAnswer

CLIP_SAMPLES = 32_000
"""Samples of a clip: 2 s at 16 kHz."""
EMBEDDING_WIDTH = 512
"""Floats of an embedding."""

_NUMBER_TAGS = b"\x0a\x09\x11"  # ListValue.values, nine bytes long, Value.number_value as a double
_NUMBER_BYTES = len(_NUMBER_TAGS) + 8
_TEMPLATES_KEPT = 8


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A checked answer."""

    embeddings: npt.NDArray[np.float32] = field(repr=False)
    """(clips, 512), finite, in the order of the request's clips; memory of its own."""
    deployed_model_id: str
    """Which deployed model answered."""


def check_clips(clips: Sequence[npt.NDArray[np.float32]]) -> None:
    """Whether these can be the clips of a request: at least one, each float32 of shape (32000,).

    Raises:
        ValueError: if not.
    """
    if not clips:
        raise ValueError("a request needs at least one clip")
    for position, clip in enumerate(clips):
        if clip.shape != (CLIP_SAMPLES,) or clip.dtype != np.float32:
            raise ValueError(
                f"clip {position} of the request is {clip.dtype} of shape {clip.shape}: "
                f"expected float32 of shape ({CLIP_SAMPLES},)"
            )


def encode_predict_request(endpoint: str, clips: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """Writes a `PredictRequest` with one instance for each clip.

    Args:
        endpoint: `projects/P/locations/L/endpoints/E`.
        clips: at least one array of float32, shape (32000,); each sample arrives as exactly that number.

    Raises:
        ValueError: for no clips, or one of another shape or type.
    """
    check_clips(clips)
    return _template(endpoint, len(clips)).filled_with(clips)


def part_of_request(request: bytes, clips: int, start: int, stop: int) -> bytes:
    """The request for the clips from `start` up to `stop` of one that was encoded for `clips` clips."""
    if stop - start == clips:
        return request
    head = len(request) - clips * _INSTANCE_BYTES
    return request[:head] + request[head + start * _INSTANCE_BYTES : head + stop * _INSTANCE_BYTES]


def decode_predict_response(data: bytes, clips: int) -> Predictions:
    """Reads a `PredictResponse` that must hold one list of 512 finite numbers for each of `clips` clips.

    Raises:
        BadAnswer: when it holds anything else, or numbers beyond float32.
    """
    head = clips * _PREDICTION_BYTES
    embeddings = _read_canonical_predictions(data, clips) if len(data) >= head else None
    # The remainder is short, and concatenated protobuf messages read as one: predictions in it would be found.
    message = parse_answer(data if embeddings is None else data[head:])
    if embeddings is None:
        embeddings = _read_predictions(message, clips)
    elif message.predictions:
        raise BadAnswer(f"the answer holds {clips + len(message.predictions)} predictions for {clips} clips")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise BadAnswer(f"prediction {int(np.argmin(finite))} of {clips} holds numbers that are not finite float32")
    return Predictions(embeddings, message.deployed_model_id)


class _RequestTemplate:
    """The bytes of a request whose samples are overwritten for each use; for one thread."""

    def __init__(self, endpoint: str, clips: int) -> None:
        head = _field(1, endpoint.encode())
        instance = _empty_instance()
        self._bytes = np.frombuffer(head + instance * clips, np.uint8).copy()
        self._samples: npt.NDArray[np.float64] = np.ndarray(
            (clips, CLIP_SAMPLES),
            "<f8",
            buffer=self._bytes,
            offset=len(head) + len(instance) - CLIP_SAMPLES * _NUMBER_BYTES + len(_NUMBER_TAGS),
            strides=(len(instance), _NUMBER_BYTES),
        )

    def filled_with(self, clips: Sequence[npt.NDArray[np.float32]]) -> bytes:
        for row, clip in zip(self._samples, clips, strict=True):
            row[:] = clip
        return self._bytes.tobytes()


class _Templates(threading.local):
    """Each thread's templates; a thread seldom needs more than the full batch and a few parts of it."""

    def __init__(self) -> None:
        self.by_shape: dict[tuple[str, int], _RequestTemplate] = {}


_templates = _Templates()


def _template(endpoint: str, clips: int) -> _RequestTemplate:
    kept = _templates.by_shape
    template = kept.get((endpoint, clips))
    if template is None:
        if len(kept) >= _TEMPLATES_KEPT:
            kept.pop(next(iter(kept)))
        template = kept[endpoint, clips] = _RequestTemplate(endpoint, clips)
    return template


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _number_list(length: int) -> bytes:
    """A `Value` with a `ListValue` of that many zeros."""
    return _field(6, (_NUMBER_TAGS + bytes(8)) * length)


def _empty_instance() -> bytes:
    return _field(2, _number_list(CLIP_SAMPLES))


_INSTANCE_BYTES = len(_empty_instance())
_PREDICTION = _field(1, _number_list(EMBEDDING_WIDTH))
_PREDICTION_BYTES = len(_PREDICTION)
_PREDICTION_HEAD = np.frombuffer(_PREDICTION[: -EMBEDDING_WIDTH * _NUMBER_BYTES], np.uint8)
_TAGS_AS_INTEGER = int.from_bytes(_NUMBER_TAGS, "little")
_TAGS_MASK = np.uint32(0xFFFFFF)


def _read_canonical_predictions(data: bytes, clips: int) -> npt.NDArray[np.float32] | None:
    """The embeddings at the front of an answer, (clips, 512), or None if any byte between the numbers is unusual."""
    heads = np.ndarray((clips, len(_PREDICTION_HEAD)), np.uint8, buffer=data, strides=(_PREDICTION_BYTES, 1))
    layout: dict[str, Any] = {"buffer": data, "strides": (_PREDICTION_BYTES, _NUMBER_BYTES)}
    # Four bytes at a stride: three tags and the first byte of the number, which is masked out.
    tags = np.ndarray((clips, EMBEDDING_WIDTH), "<u4", offset=len(_PREDICTION_HEAD), **layout)
    if not ((heads == _PREDICTION_HEAD).all() and ((tags & _TAGS_MASK) == _TAGS_AS_INTEGER).all()):
        return None
    return _as_float32(
        np.ndarray((clips, EMBEDDING_WIDTH), "<f8", offset=len(_PREDICTION_HEAD) + len(_NUMBER_TAGS), **layout)
    )


def _read_predictions(message: Any, clips: int) -> npt.NDArray[np.float32]:
    """The embeddings of a parsed answer, (clips, 512)."""
    if len(message.predictions) != clips:
        raise BadAnswer(f"the answer holds {len(message.predictions)} predictions for {clips} clips")
    embeddings = np.empty((clips, EMBEDDING_WIDTH), np.float32)
    for position, prediction in enumerate(message.predictions):
        numbers = prediction.list_value.values
        if len(numbers) != EMBEDDING_WIDTH or any(number.WhichOneof("kind") != "number_value" for number in numbers):
            raise BadAnswer(f"prediction {position} of {clips} is not a list of {EMBEDDING_WIDTH} numbers")
        embeddings[position] = _as_float32(np.array([number.number_value for number in numbers]))
    return embeddings


def _as_float32(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    # Too large a number becomes infinite and a signalling NaN a quiet one; the caller refuses both.
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(np.float32)
