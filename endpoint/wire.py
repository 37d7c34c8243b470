"""Instances as protobuf, written with numpy instead of a message object for each float.

A request is `PredictRequest{endpoint = 1, repeated Value instances = 2}`. An instance of audio is a `Value` with a
`ListValue` of number `Value`s: eleven bytes a sample, of which three are always `0A 09 11` and eight are the
little-endian double. So such an instance is a template into which samples are copied; see design.md 3.3 for what that
saves. All other instances are a `Value` with a `Struct` of strings. Fields of a struct are written in the order of their
names, as protobuf's deterministic serialization does. `proto_answer` reads the answers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from endpoint.items import CLIP_SAMPLES
from endpoint.payload import Framing
from endpoint.predictions import Predictions
from endpoint.proto_answer import read_embeddings, read_results
from endpoint.proto_fields import NUMBER_BYTES, NUMBER_TAGS, field, field_bytes, number_list, tag, varint

_INSTANCES, _STRUCT, _STRING = 2, 5, 3
_INSTANCE_TAG, _STRUCT_TAG, _STRING_TAG = tag(_INSTANCES), tag(_STRUCT), tag(_STRING)
_ENTRY_TAG, _VALUE_TAG = tag(1), tag(2)  # of a map
_EMPTY_CLIP = np.frombuffer(field(_INSTANCES, number_list(CLIP_SAMPLES)), np.uint8)
_FIRST_SAMPLE = len(_EMPTY_CLIP) - CLIP_SAMPLES * NUMBER_BYTES + len(NUMBER_TAGS)


class ProtobufWire:
    """A `codec.Wire` for gRPC."""

    def __init__(self, endpoint_name: str) -> None:
        self.framing = Framing(field(1, endpoint_name.encode()), b"", b"")
        self._scratch = _Scratch()

    def samples(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[bytes | memoryview]:
        """An instance for each clip, in which each sample is exactly that number."""
        return self._scratch.filled_with(clips)

    def samples_bytes(self, clip: npt.NDArray[np.float32]) -> int:  # noqa: ARG002 - the protocol's
        """352,004: the same for all clips."""
        return len(_EMPTY_CLIP)

    def member(self, key: str, value: str) -> bytes:
        """A map entry of a string."""
        data = value.encode()
        # One join: hundreds of these are written for a request.
        string_head = _STRING_TAG + varint(len(data))
        value_head = _VALUE_TAG + varint(len(string_head) + len(data))
        key_field = _key_field(key)
        length = len(key_field) + len(value_head) + len(string_head) + len(data)
        return b"".join((_ENTRY_TAG, varint(length), key_field, value_head, string_head, data))

    def member_bytes(self, key: str, value_bytes: int) -> int:
        """The length of a map entry with a string of that length."""
        return field_bytes(1, field_bytes(1, len(key)) + field_bytes(2, field_bytes(_STRING, value_bytes)))

    def struct(self, *members: bytes) -> bytes:
        """An instance that is a struct."""
        length = sum(map(len, members))
        head = _STRUCT_TAG + varint(length)
        return b"".join((_INSTANCE_TAG, varint(len(head) + length), head, *members))

    def struct_bytes(self, *member_bytes: int) -> int:
        """The length of such an instance."""
        return field_bytes(_INSTANCES, field_bytes(_STRUCT, sum(member_bytes)))

    def read_embeddings(self, body: bytes, instances: int) -> Predictions:
        """See `codec.Wire.read_embeddings`."""
        return read_embeddings(body, instances)

    def read_results(self, body: bytes, instances: int) -> Predictions:
        """See `codec.Wire.read_results`."""
        return read_results(body, instances)


@lru_cache
def _key_field(key: str) -> bytes:
    return field(1, key.encode())


class _Scratch(threading.local):
    """Instances whose samples are overwritten for each use; each thread has its own."""

    def __init__(self) -> None:
        self._make(0)

    def _make(self, clips: int) -> None:
        self._instances = np.tile(_EMPTY_CLIP, (clips, 1))
        self._samples: npt.NDArray[np.float64] = np.ndarray(
            (clips, CLIP_SAMPLES),
            "<f8",
            buffer=self._instances,
            offset=_FIRST_SAMPLE if clips else 0,
            strides=(len(_EMPTY_CLIP), NUMBER_BYTES),
        )

    def filled_with(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[bytes | memoryview]:
        """Valid until the thread's next call."""
        if len(clips) > len(self._instances):
            self._make(len(clips))
        for samples, clip in zip(self._samples, clips, strict=False):
            samples[:] = clip
        return [instance.data for instance in self._instances[: len(clips)]]
