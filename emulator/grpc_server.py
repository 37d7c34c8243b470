"""Predict of google.cloud.aiplatform.v1.PredictionService over gRPC, in plain text on loopback; the job service beside it."""

from __future__ import annotations

import time
from functools import partial

import grpc
import grpc.aio

from emulator.endpoints import is_endpoint_name
from emulator.grpc_calls import Metadata, check_routing, refusal_details
from emulator.job_grpc import job_handlers
from emulator.jobs import JobService
from emulator.messages import SERVICE_NAME
from emulator.refusals import RefusalError
from emulator.service import Call, PredictionService
from emulator.values import Request
from emulator.wire import read_request, response_bytes

_SERVER_OPTIONS = (
    # Far above the service's own limit, so that a request that is too long is refused by the service and not by gRPC.
    ("grpc.max_receive_message_length", 256 * 2**20),
    ("grpc.max_send_message_length", -1),
    # A port that is taken is an error, not a port shared with whoever took it.
    ("grpc.so_reuseport", 0),
)


async def start_grpc(service: PredictionService, jobs: JobService, port: int = 0) -> tuple[grpc.aio.Server, int]:
    """Starts serving on 127.0.0.1 and returns the server with its port (a free one for 0).

    Raises:
        OSError: the port cannot be bound.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS)

    async def predict(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        call = Call("grpc", time.monotonic(), len(data), partial(_read, data, context.invocation_metadata() or ()))
        try:
            return response_bytes(await service.answer(call))
        except RefusalError as refusal:
            await context.abort(refusal.status, str(refusal), refusal_details(refusal))
            raise  # not reached: abort raises

    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers), job_handlers(jobs)))
    try:
        bound_port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        raise OSError(f"port {port} of 127.0.0.1 cannot be used: taken, or not allowed") from None
    await server.start()
    return server, bound_port


def _read(data: bytes, metadata: Metadata) -> Request:
    """Reads a call, whose routing header must name the endpoint that the message names."""
    request = read_request(data)
    if is_endpoint_name(request.endpoint):
        check_routing(metadata, "endpoint", request.endpoint)
    return request
