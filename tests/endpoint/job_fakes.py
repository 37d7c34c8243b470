"""A small service of batch prediction jobs, over gRPC and over HTTP, with the official message classes."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
from google.cloud.aiplatform_v1 import types
from google.protobuf import empty_pb2, json_format

from endpoint.job_settings import JobSettings
from tests.endpoint.rest_calls import google_error
from tests.endpoint.servers import RestHandler, RestRequest, serve_rest

Job = types.BatchPredictionJob.pb()
MODEL = "projects/4016704501/locations/us-west1/models/220"
PARENT = "projects/my-project/locations/us-west1"
ECHO = "echo 0.734375"
"""What each failure says, as a service may repeat what it was sent."""

_REQUESTS = {
    "CreateBatchPredictionJob": types.CreateBatchPredictionJobRequest.pb(),
    "GetBatchPredictionJob": types.GetBatchPredictionJobRequest.pb(),
    "ListBatchPredictionJobs": types.ListBatchPredictionJobsRequest.pb(),
    "CancelBatchPredictionJob": types.CancelBatchPredictionJobRequest.pb(),
}
_HTTP = {
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "ABORTED": 409,
    "CANCELLED": 499,
    "RESOURCE_EXHAUSTED": 429,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501,
    "UNAUTHENTICATED": 401,
}


class Fault(NamedTuple):
    """How the next call of a method fails."""

    code: str
    """gRPC's name; `hang up`: the connection is closed without an answer."""
    is_done: bool = False
    """Whether the service does what it was asked for all the same."""


class Failure(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class FakeJobs:
    """What the service knows, and what it was asked."""

    jobs: list[Any] = field(default_factory=list)
    """Oldest first."""
    calls: list[str] = field(default_factory=list)
    """The methods, without `BatchPredictionJob`, in the order of their calls: create, get, list."""
    requests: list[Any] = field(default_factory=list)
    """Their messages."""
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: dict[str, deque[Fault]] = field(
        default_factory=lambda: {name: deque() for name in ("create", "get", "list", "cancel")}
    )
    tokens: set[str] | None = None
    """Which authorizations are accepted; None: none is needed."""
    page_size: int = 100
    lag: int = 0
    """So many further lists don't have the jobs that were created yet."""
    on_get: Callable[[Any], object] = id
    """Changes a job when it is asked for."""
    ignores_filter: bool = False

    def fail(self, method: str, *faults: Fault) -> None:
        self.faults[method].extend(faults)

    def add(self, labels: Mapping[str, str], state: str = "JOB_STATE_SUCCEEDED", **fields: Any) -> Any:
        number = len(self.jobs) + 1
        job = Job(name=f"{PARENT}/batchPredictionJobs/{number}", labels=labels, **fields)
        job.state = types.JobState[state]
        job.create_time.FromSeconds(1_790_000_000 + number)
        self.jobs.append(job)
        return job

    def answer(self, method: str, request: Any, headers: Mapping[str, str]) -> Any:
        """Raises Failure."""
        short = method.partition("BatchPredictionJob")[0].lower()
        self.calls.append(short)
        self.requests.append(request)
        self.headers.append(dict(headers))
        if self.tokens is not None and headers.get("authorization") not in self.tokens:
            raise Failure("UNAUTHENTICATED")
        fault = self.faults[short].popleft() if self.faults[short] else None
        if fault is None or fault.is_done:
            answer = getattr(self, f"_{short}")(request)
        if fault is not None:
            raise Failure(fault.code)
        return answer

    def _create(self, request: Any) -> Any:
        assert request.parent == PARENT
        job = self.add({}, "JOB_STATE_PENDING")
        name, created = job.name, job.create_time.seconds
        job.MergeFrom(request.batch_prediction_job)
        job.name, job.create_time.seconds = name, created
        return job

    def _get(self, request: Any) -> Any:
        job = next((job for job in self.jobs if job.name == request.name), None)
        if job is None:
            raise Failure("NOT_FOUND")
        self.on_get(job)
        return job

    def _cancel(self, request: Any) -> Any:
        self._get(request).state = types.JobState.JOB_STATE_CANCELLING
        return empty_pb2.Empty()

    def _list(self, request: Any) -> Any:
        assert request.parent == PARENT
        wanted = dict(
            re.fullmatch(r'labels\.([\w-]+)="([\w-]*)"', condition).groups()  # type: ignore[union-attr]
            for condition in request.filter.split(" AND ")
        )
        found = self.jobs
        if not self.ignores_filter:
            found = [job for job in found if wanted.items() <= dict(job.labels).items()]
        if self.lag:
            self.lag -= 1
            found = []
        begin = int(request.page_token or 0)
        answer = types.ListBatchPredictionJobsResponse.pb()()
        answer.batch_prediction_jobs.extend(found[begin : begin + self.page_size])
        if begin + self.page_size < len(found):
            answer.next_page_token = str(begin + self.page_size)
        return answer


class _Rpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, fake: FakeJobs) -> None:
        self._fake = fake

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = details.method.rpartition("/")
        assert service == "/google.cloud.aiplatform.v1.JobService"

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return self._fake.answer(method, request, dict(context.invocation_metadata()))
            except Failure as failure:
                return context.abort(grpc.StatusCode[failure.code], ECHO)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=_REQUESTS[method].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@contextmanager
def serve_grpc(fake: FakeJobs, credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    """Serves on 127.0.0.1; yields the port."""
    server = grpc.server(ThreadPoolExecutor(2), (_Rpc(fake),))
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def rest_handler(fake: FakeJobs) -> RestHandler:
    """The same over HTTP, as the methods' `google.api.http` annotations say."""

    def handle(request: RestRequest) -> tuple[int, Mapping[str, str], bytes]:
        url = urlsplit(request.path)
        path = unquote(url.path).removeprefix("/v1/")
        message: Any
        if path.endswith(":cancel"):
            method = "CancelBatchPredictionJob"
            message = _REQUESTS[method](name=path.removesuffix(":cancel"))
        elif request.body:
            method = "CreateBatchPredictionJob"
            message = _REQUESTS[method](parent=path.removesuffix("/batchPredictionJobs"))
            json_format.Parse(request.body, message.batch_prediction_job)
        elif path.endswith("/batchPredictionJobs"):
            method = "ListBatchPredictionJobs"
            query = {name: values[0] for name, values in parse_qs(url.query).items() if name != "$alt"}
            message = json_format.ParseDict(query, _REQUESTS[method](parent=path.removesuffix("/batchPredictionJobs")))
        else:
            method = "GetBatchPredictionJob"
            message = _REQUESTS[method](name=path)
        try:
            answer = fake.answer(method, message, {name.lower(): value for name, value in request.headers.items()})
        except Failure as failure:
            if failure.code == "hang up":
                raise
            status = _HTTP[failure.code]
            return status, {}, google_error(status, failure.code, ECHO)
        return 200, {}, json.dumps(json_format.MessageToDict(answer, use_integers_for_enums=True)).encode()

    return handle


@contextmanager
def serve_jobs(fake: FakeJobs, transport: str) -> Iterator[int]:
    """Serves over `grpc` or `rest` in plain text; yields the port."""
    with serve_grpc(fake) if transport == "grpc" else serve_rest(rest_handler(fake)) as port:
        yield port


class Moments:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


def settings_for(port: int, **changes: Any) -> JobSettings:
    fields = {"model": MODEL, "host": f"127.0.0.1:{port}", "project": "my-project", **changes}
    return JobSettings(**fields)
