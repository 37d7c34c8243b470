"""How the tests speak to the local endpoint: official messages, real gRPC calls, the arrivals log read back."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import numpy as np
import requests
import soundfile
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2

from emulator.process import LocalEndpoint

METHOD = "/google.cloud.aiplatform.v1.PredictionService/Predict"
ENDPOINT = "projects/local/locations/local/endpoints/200"
TRANSPORTS = ("grpc", "rest")

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


class Reply(NamedTuple):
    """What came of a call over either transport, in the same terms."""

    status: str
    predictions: list[Any]
    message: str
    retry_s: float | None = None


def call(local: LocalEndpoint, transport: str, endpoint: str, instances: list[Any], timeout_s: float = 30) -> Reply:
    """One call with these instances; over REST, that HTTP's status and Google's agree is asserted."""
    return (_call_rest if transport == "rest" else _call_grpc)(local, endpoint, instances, timeout_s)


def _call_grpc(local: LocalEndpoint, endpoint: str, instances: list[Any], timeout_s: float) -> Reply:
    data = predict_request(instances, endpoint).SerializeToString()
    with calling(local.host) as caller:
        try:
            response = Response.FromString(caller.raw(data, metadata=routed_to(endpoint), timeout=timeout_s))
        except grpc.RpcError as error:
            return Reply(error.code().name, [], error.details(), _retry_info_s(error))
    assert response.deployed_model_id == "1"
    return Reply("OK", [_content(prediction) for prediction in response.predictions], "")


def _content(value: Any) -> Any:
    """MessageToDict, but for NaN, which it refuses."""
    if value.WhichOneof("kind") == "list_value":
        return [number.number_value for number in value.list_value.values]
    if "embedding" in value.struct_value.fields:
        return {"embedding": _content(value.struct_value.fields["embedding"])}
    return MessageToDict(value)


def _retry_info_s(error: Any) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            (detail,) = status.details
            info = error_details_pb2.RetryInfo()
            assert detail.Unpack(info)
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


HTTP_STATUSES = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def _call_rest(local: LocalEndpoint, endpoint: str, instances: list[Any], timeout_s: float) -> Reply:
    content = [i.tolist() if isinstance(i, np.ndarray) else i for i in instances]
    body = json.dumps({"instances": content}, separators=(",", ":")).encode()
    try:
        answer = post(local, f"/v1/{endpoint}:predict", body, timeout_s)
    except requests.Timeout:
        return Reply("DEADLINE_EXCEEDED", [], "no answer")
    except requests.ConnectionError:
        return Reply("UNAVAILABLE", [], "connection lost")
    return rest_reply(answer)


def rest_reply(answer: requests.Response) -> Reply:
    """An answer over REST, once its form is checked."""
    content = json.loads(answer.content)
    if answer.status_code == 200:
        assert content["deployedModelId"] == "1"
        assert content["modelDisplayName"] == "hear-stand-in-v1"
        return Reply("OK", content["predictions"], "")
    error = content["error"]
    assert error["code"] == answer.status_code == HTTP_STATUSES[error["status"]]
    retry_s = None
    if "details" in error:
        (detail,) = error["details"]
        assert detail["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
        retry_s = float(detail["retryDelay"].removesuffix("s"))
        assert int(answer.headers["Retry-After"]) - 1 < retry_s <= int(answer.headers["Retry-After"])
    return Reply(error["status"], [], error["message"], retry_s)


def post(local: LocalEndpoint, path: str, body: bytes, timeout_s: float = 30) -> requests.Response:
    """One HTTP request, never through a proxy."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"http://{local.rest_host}{path}", data=body, timeout=timeout_s)


def wav(clip: np.ndarray, rate_hz: int = 16000, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    """An audio file of float (n,) or (n, channels); those of 16 bits hold `in_16_bits` of it."""
    file = io.BytesIO()
    samples = (in_16_bits(clip) * 32768).astype(np.int16) if subtype == "PCM_16" else clip
    soundfile.write(file, samples, rate_hz, subtype=subtype, format=container)
    return file.getvalue()


def in_16_bits(clips: np.ndarray) -> np.ndarray:
    """What is left of samples in a 16-bit file: float32, steps of 1/32768."""
    steps = np.clip(np.round(clips.astype(np.float64) * 32768), -32768, 32767).astype(int)
    return (steps / 32768).astype(np.float32)


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def http_server(answer: Callable[[str, dict[str, str]], tuple[int, bytes]]) -> Iterator[str]:
    """A server on loopback whose GET answers come from a function of path and headers (lower case); its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self.path, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
