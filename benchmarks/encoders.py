"""What is encoded and decoded for a request, each beside the obvious way to do it; see `encode_and_send`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from endpoint.codec import make_codec
from endpoint.items import ClipObject, Item
from endpoint.settings import InstanceFormat, SendAs, TransportName
from endpoint.wav import encode_wav

ENDPOINT = "projects/local/locations/local/endpoints/200"
CLIPS = 4
URIS = 640
WAVS = 17
TOKEN = "ya29." + "t" * 2043


class Encoder(NamedTuple):
    what: str
    obvious: Callable[[], Any]
    ours: Callable[[], Any]


def encoders(clips: list[np.ndarray]) -> Iterator[Encoder]:
    """With the official message classes or the `json` module, and with this project's codecs."""
    objects = [ClipObject("bucket", f"staged/{number:040x}.wav") for number in range(URIS)]
    wavs = [encode_wav(clips[number % CLIPS]) for number in range(WAVS)]

    def uri_instances() -> list[dict[str, str]]:
        return [{"bucket_name": item.bucket, "object_uri": item.name, "bearer_token": TOKEN} for item in objects]

    def wav_instances() -> list[dict[str, str]]:
        return [{"input_bytes": base64.b64encode(wav.data).decode()} for wav in wavs]

    with_token = f"{URIS} URIs with tokens of {len(TOKEN)} bytes"
    for_garden = f"{WAVS} WAV clips for Model Garden"
    yield Encoder(f"gRPC: {CLIPS} clips", lambda: lists_message(clips), encoding("grpc", "research", "audio", clips))
    yield Encoder(f"REST: {CLIPS} clips", lambda: lists_json(clips), encoding("rest", "research", "audio", clips))
    yield Encoder(
        f"gRPC: {with_token}", lambda: structs_message(uri_instances()), encoding("grpc", "research", "uris", objects)
    )
    yield Encoder(
        f"REST: {with_token}", lambda: structs_json(uri_instances()), encoding("rest", "research", "uris", objects)
    )
    yield Encoder(
        f"gRPC: {for_garden}", lambda: structs_message(wav_instances()), encoding("grpc", "model_garden", "audio", wavs)
    )
    yield Encoder(
        f"REST: {for_garden}", lambda: structs_json(wav_instances()), encoding("rest", "model_garden", "audio", wavs)
    )
    yield Encoder(f"gRPC: answer to {CLIPS} clips", *decoding("grpc", "research", CLIPS))
    yield Encoder(f"REST: answer to {CLIPS} clips", *decoding("rest", "research", CLIPS))
    yield Encoder(f"gRPC: answer to {for_garden}", *decoding("grpc", "model_garden", WAVS))
    yield Encoder(f"REST: answer to {for_garden}", *decoding("rest", "model_garden", WAVS))


def encoding(
    transport: TransportName, instance_format: InstanceFormat, send: SendAs, items: Sequence[Item]
) -> Callable[[], bytes]:
    codec = make_codec(transport, instance_format, send, ENDPOINT)
    codec.check(items)
    return lambda: codec.prepare(items).request(range(len(items)), lambda _: TOKEN)


def decoding(
    transport: TransportName, instance_format: InstanceFormat, count: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    codec = make_codec(transport, instance_format, "audio", ENDPOINT)
    is_garden = instance_format == "model_garden"
    answer = prepared_answer(transport, count, is_garden=is_garden)
    obvious = embeddings_of_message if transport == "grpc" else embeddings_of_json
    assert (obvious(answer, is_garden) == codec.read(answer, count).embeddings).all()
    return lambda: obvious(answer, is_garden), lambda: codec.read(answer, count)


def lists_message(clips: list[np.ndarray]) -> bytes:
    from google.cloud.aiplatform_v1.types import PredictRequest

    message = PredictRequest.pb()(endpoint=ENDPOINT)
    for clip in clips:
        message.instances.add().list_value.extend(clip.tolist())
    data: bytes = message.SerializeToString()
    return data


def lists_json(clips: list[np.ndarray]) -> bytes:
    return json.dumps({"instances": [clip.tolist() for clip in clips]}).encode()


def structs_message(instances: list[dict[str, str]]) -> bytes:
    from google.cloud.aiplatform_v1.types import PredictRequest

    message = PredictRequest.pb()(endpoint=ENDPOINT)
    for instance in instances:
        message.instances.add().struct_value.update(instance)
    data: bytes = message.SerializeToString()
    return data


def structs_json(instances: list[dict[str, str]]) -> bytes:
    return json.dumps({"instances": instances}).encode()


def embeddings_of_message(data: bytes, is_garden: bool) -> np.ndarray:
    from google.cloud.aiplatform_v1.types import PredictResponse

    lists = [
        (value.struct_value.fields["embedding"] if is_garden else value).list_value.values
        for value in PredictResponse.pb().FromString(data).predictions
    ]
    return np.array([[value.number_value for value in values] for values in lists], np.float32)


def embeddings_of_json(data: bytes, is_garden: bool) -> np.ndarray:
    predictions = json.loads(data)["predictions"]
    return np.array([value["embedding"] if is_garden else value for value in predictions], np.float32)


def prepared_answer(transport: str, count: int, *, is_garden: bool = False) -> bytes:
    """The bytes of an answer with the same embedding for each instance."""
    from google.protobuf import struct_pb2

    embedding = np.random.default_rng(0).normal(0, 1, 512).astype(np.float32).tolist()
    prediction = {"embedding": embedding} if is_garden else embedding
    if transport == "rest":
        return json.dumps({"predictions": [prediction] * count, "deployedModelId": "200"}).encode()
    values = struct_pb2.ListValue()
    values.extend([prediction] * count)
    # Its field `values` has the number of the answer's `predictions`.
    data: bytes = values.SerializeToString()
    return data + b"\x12\x03200"


def cpu_ms(action: Callable[[], Any], times: int) -> float:
    """CPU time of this process for each call, after one to warm up."""
    action()
    started_s = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - started_s) / times * 1000
