"""google.cloud.aiplatform.v1.JobService over gRPC, as far as batch prediction goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from emulator.grpc_calls import check_routing, refusal_details
from emulator.job_messages import (
    JOB_SERVICE_NAME,
    CancelBatchPredictionJobRequest,
    CreateBatchPredictionJobRequest,
    GetBatchPredictionJobRequest,
    ListBatchPredictionJobsRequest,
)
from emulator.jobs import JobService
from emulator.refusals import InvalidArgumentError, RefusalError


def job_handlers(jobs: JobService) -> grpc.GenericRpcHandler:
    """The service's methods, to be added to a server; every other one is UNIMPLEMENTED."""

    async def create(request: Any) -> bytes:
        job = await jobs.create("grpc", request.parent, request.batch_prediction_job)
        return _bytes(job)

    async def get(request: Any) -> bytes:
        return _bytes(jobs.get(request.name))

    async def list_all(request: Any) -> bytes:
        return _bytes(jobs.list(request))

    async def cancel(request: Any) -> bytes:
        jobs.cancel(request.name)
        return b""  # google.protobuf.Empty

    methods = {
        "CreateBatchPredictionJob": _handler(CreateBatchPredictionJobRequest, "parent", create),
        "GetBatchPredictionJob": _handler(GetBatchPredictionJobRequest, "name", get),
        "ListBatchPredictionJobs": _handler(ListBatchPredictionJobsRequest, "parent", list_all),
        "CancelBatchPredictionJob": _handler(CancelBatchPredictionJobRequest, "name", cancel),
    }
    return grpc.method_handlers_generic_handler(JOB_SERVICE_NAME, methods)


def _handler(
    message: Any, routed_by: str, method: Callable[[Any], Awaitable[bytes]]
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A method whose calls are routed by this field of their message."""

    async def handle(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            try:
                request = message.FromString(data)
            except DecodeError:
                raise InvalidArgumentError(
                    f"Invalid request: the payload is not a {message.DESCRIPTOR.name}."
                ) from None
            check_routing(context.invocation_metadata() or (), routed_by, getattr(request, routed_by))
            return await method(request)
        except RefusalError as refusal:
            await context.abort(refusal.status, str(refusal), refusal_details(refusal))
            raise  # not reached: abort raises

    return grpc.unary_unary_rpc_method_handler(handle)


def _bytes(message: Any) -> bytes:
    serialised: bytes = message.SerializeToString()
    return serialised
