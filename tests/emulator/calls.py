"""How the tests speak to the local endpoint: official messages, real gRPC calls, the arrivals log read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import numpy as np
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse

METHOD = "/google.cloud.aiplatform.v1.PredictionService/Predict"
ENDPOINT = "projects/local/locations/local/endpoints/200"

Request = PredictRequest.pb()
Response = PredictResponse.pb()


class Answer(NamedTuple):
    """What came of a call: a status, and the message or the details."""

    status: grpc.StatusCode
    response: Any = None
    details: str = ""

    @property
    def embeddings(self) -> np.ndarray:
        return np.array([[v.number_value for v in p.list_value.values] for p in self.response.predictions])


def predict_request(instances: Iterable[Any], endpoint: str = ENDPOINT) -> Any:
    """An official PredictRequest; an instance is anything that JSON can hold, or an array."""
    request = Request(endpoint=endpoint)
    for instance in instances:
        fill(request.instances.add(), instance)
    return request


def fill(value: Any, content: Any) -> None:
    """Sets a google.protobuf.Value."""
    if isinstance(content, (list, tuple, np.ndarray)):
        value.list_value.SetInParent()
        for item in content:
            fill(value.list_value.values.add(), item)
    elif isinstance(content, dict):
        value.struct_value.SetInParent()
        for key, item in content.items():
            fill(value.struct_value.fields[key], item)
    elif isinstance(content, bool):
        value.bool_value = content
    elif isinstance(content, str):
        value.string_value = content
    elif content is None:
        value.null_value = 0
    else:
        value.number_value = float(content)


def routed_to(endpoint: str) -> tuple[tuple[str, str], ...]:
    """The routing metadata that the official client sends."""
    return (("x-goog-request-params", f"endpoint={quote(endpoint, safe='')}"),)


class Caller:
    """A channel to a local endpoint, never through a proxy."""

    def __init__(self, host: str) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(host, options=options)
        self.raw = self.channel.unary_unary(METHOD)

    def send(self, data: bytes, metadata: Iterable[tuple[str, str]] | None = None) -> Answer:
        """One call with these bytes; `metadata` is the right routing unless given."""
        routing = tuple(routed_to(ENDPOINT) if metadata is None else metadata)
        try:
            return Answer(grpc.StatusCode.OK, Response.FromString(self.raw(data, metadata=routing, timeout=30)))
        except grpc.RpcError as error:
            return Answer(error.code(), details=error.details())


@contextmanager
def calling(host: str) -> Iterator[Caller]:
    """A Caller whose channel is closed at the end."""
    caller = Caller(host)
    with caller.channel:
        yield caller


def arrivals(path: Path) -> list[dict[str, Any]]:
    """The lines of an arrivals log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Waits for something another process does; the limit is only there to end a test that fails."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)


def random_clips(count: int, seed: int = 0) -> np.ndarray:
    """Quiet noise, float32 (count, 32000)."""
    return (0.1 * np.random.default_rng(seed).standard_normal((count, 32000))).astype(np.float32)
