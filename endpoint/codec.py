"""How clips become requests and answers embeddings, for each way of sending: `make_codec` puts it together.

What an instance holds depends on the endpoint's format and on what is sent (`_Samples`, `_Wavs`, `_Objects`); how it is
written and how answers are read depends on the transport (`Wire`). A codec is made of one of each.
"""

from __future__ import annotations

import binascii
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from endpoint.items import CLIP_SAMPLES, ClipObject, Item, WavClip
from endpoint.json_wire import JsonWire
from endpoint.payload import FixedPayload, Framing, TokenOf, TokenPayload
from endpoint.predictions import InstanceError, Predictions
from endpoint.settings import InstanceFormat, SendAs, TransportName
from endpoint.wire import ProtobufWire

__all__ = ["Codec", "InstanceError", "Payload", "Predictions", "TokenOf", "make_codec"]

_MAX_CLIPS = 4
_MAX_URIS = 640


class Payload(Protocol):
    """The instances of a batch, encoded once as far as that is possible."""

    def request(self, positions: Sequence[int], token_of: TokenOf) -> bytes:
        """The request for these instances.

        Args:
            positions: of the instances in the batch, ascending; at least one.
            token_of: gives the token with which the service reads an object; asked now, and its answer kept nowhere.
        """


class Codec(Protocol):
    """Writes requests and reads answers. Its methods may be called from any thread."""

    @property
    def max_instances(self) -> int:
        """How many instances a request may hold, whatever its size."""

    @property
    def envelope_bytes(self) -> int:
        """What a request holds beside its instances."""

    def check(self, items: Sequence[Item]) -> None:
        """Whether these can be the items of a batch: at least one, and all of the kind that is sent.

        Raises:
            ValueError: if not.
        """

    def prepare(self, items: Sequence[Item]) -> Payload:
        """Encodes checked items."""

    def instance_bytes(self, item: Item, token_bytes: int) -> int:
        """What a checked item adds to a request: so much, or a byte less for the comma that the last one needs not.

        Args:
            item: it.
            token_bytes: the length of the token that will go with it, if it is an object.
        """

    def read(self, body: bytes, instances: int) -> Predictions:
        """Reads the answer to a request of so many instances.

        Raises:
            BadAnswer: unless it holds what the format prescribes for each instance.
        """


class Wire(Protocol):
    """How instances are written and answers are read."""

    @property
    def framing(self) -> Framing:
        """What stands around instances."""

    def samples(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[bytes | memoryview]:
        """Instances that are lists of samples; valid until the thread's next call."""

    def samples_bytes(self, clip: npt.NDArray[np.float32]) -> int:
        """The length of such an instance, with the separator after it."""

    def member(self, key: str, value: str) -> bytes:
        """A string in a struct."""

    def member_bytes(self, key: str, value_bytes: int) -> int:
        """The length of such a string, if nothing in it needs escaping."""

    def struct(self, *members: bytes) -> bytes:
        """An instance that is a struct of strings."""

    def struct_bytes(self, *member_bytes: int) -> int:
        """The length of such an instance, with the separator after it."""

    def read_embeddings(self, body: bytes, instances: int) -> Predictions:
        """Reads an answer of the research format, or raises `BadAnswer`."""

    def read_results(self, body: bytes, instances: int) -> Predictions:
        """Reads an answer of the Model Garden format, or raises `BadAnswer`."""


def make_codec(transport: TransportName, instance_format: InstanceFormat, send: SendAs, endpoint_name: str) -> Codec:
    """The codec for a way of sending; `endpoint_name` is `projects/P/locations/L/endpoints/E`."""
    wire: Wire = ProtobufWire(endpoint_name) if transport == "grpc" else JsonWire()
    instances: _Instances
    if send == "uris":
        instances = _Objects(wire, instance_format)
    elif instance_format == "research":
        instances = _Samples(wire)
    else:
        instances = _Wavs(wire)
    return _Codec(wire, instances, instance_format)


class _Instances(Protocol):
    """What instances hold."""

    @property
    def max_in_request(self) -> int: ...

    def check(self, item: Item) -> str | None:
        """What is expected instead, if this is no item of this kind."""

    def prepare(self, items: Sequence[Item]) -> Payload: ...

    def size_bytes(self, item: Item, token_bytes: int) -> int: ...


class _Codec:
    """A `Codec` of a wire and a kind of instances."""

    def __init__(self, wire: Wire, instances: _Instances, instance_format: InstanceFormat) -> None:
        self._instances = instances
        self.max_instances = instances.max_in_request
        self.envelope_bytes = len(wire.framing.head) + len(wire.framing.tail)
        self.prepare = instances.prepare
        self.instance_bytes = instances.size_bytes
        self.read = wire.read_embeddings if instance_format == "research" else wire.read_results

    def check(self, items: Sequence[Item]) -> None:
        if not items:
            raise ValueError("a request needs at least one clip")
        for position, item in enumerate(items):
            if expected := self._instances.check(item):
                raise ValueError(f"clip {position} of the request is {_kind(item)}: expected {expected}")


@dataclass(frozen=True, slots=True)
class _Samples:
    """Lists of 32000 floats: audio for research endpoints."""

    wire: Wire
    max_in_request = _MAX_CLIPS

    def check(self, item: Item) -> str | None:
        if isinstance(item, np.ndarray) and item.shape == (CLIP_SAMPLES,) and item.dtype == np.float32:
            return None
        return f"float32 of shape ({CLIP_SAMPLES},)"

    def prepare(self, items: Sequence[Item]) -> Payload:
        clips = [item for item in items if isinstance(item, np.ndarray)]
        return FixedPayload(self.wire.framing, self.wire.samples(clips))

    def size_bytes(self, item: Item, token_bytes: int) -> int:  # noqa: ARG002 - no token goes with it
        assert isinstance(item, np.ndarray)
        return self.wire.samples_bytes(item)


@dataclass(frozen=True, slots=True)
class _Wavs:
    """`{"input_bytes": "<base64 WAV>"}`: audio for Model Garden endpoints."""

    wire: Wire
    max_in_request = sys.maxsize

    def check(self, item: Item) -> str | None:
        return None if isinstance(item, WavClip) else "a WavClip"

    def prepare(self, items: Sequence[Item]) -> Payload:
        wavs = [item.data for item in items if isinstance(item, WavClip)]
        return FixedPayload(self.wire.framing, [self.wire.struct(self._member(data)) for data in wavs])

    def size_bytes(self, item: Item, token_bytes: int) -> int:  # noqa: ARG002 - no token goes with it
        assert isinstance(item, WavClip)
        encoded_bytes = -(-len(item.data) // 3) * 4
        return self.wire.struct_bytes(self.wire.member_bytes("input_bytes", encoded_bytes))

    def _member(self, data: bytes) -> bytes:
        return self.wire.member("input_bytes", binascii.b2a_base64(data, newline=False).decode("ascii"))


@dataclass(frozen=True, slots=True)
class _Objects:
    """Objects with the tokens to read them: `bucket_name` and `object_uri` for research, `gcs_uri` for Model Garden."""

    wire: Wire
    instance_format: InstanceFormat
    max_in_request = _MAX_URIS

    def check(self, item: Item) -> str | None:
        if not isinstance(item, ClipObject):
            return "a ClipObject"
        if not item.bucket or "/" in item.bucket or not item.name:
            return "gs://BUCKET/NAME"
        try:
            item.uri.encode()
        except UnicodeEncodeError:
            return "a name in valid Unicode"
        return None

    def prepare(self, items: Sequence[Item]) -> Payload:
        objects = [item for item in items if isinstance(item, ClipObject)]
        return TokenPayload(
            self.wire.framing,
            objects,
            [self._members(item) for item in objects],
            token_member=lambda token: self.wire.member("bearer_token", token),
            instance=self.wire.struct,
        )

    def size_bytes(self, item: Item, token_bytes: int) -> int:
        assert isinstance(item, ClipObject)
        token_member_bytes = self.wire.member_bytes("bearer_token", token_bytes)
        return self.wire.struct_bytes(token_member_bytes, *map(len, self._members(item)))

    def _members(self, item: ClipObject) -> tuple[bytes, ...]:
        if self.instance_format == "model_garden":
            return (self.wire.member("gcs_uri", item.uri),)
        return self.wire.member("bucket_name", item.bucket), self.wire.member("object_uri", item.name)


def _kind(item: object) -> str:
    if isinstance(item, np.ndarray):
        return f"{item.dtype} of shape {item.shape}"
    return item.uri if isinstance(item, ClipObject) else type(item).__name__
