"""Predict of google.cloud.aiplatform.v1.PredictionService over gRPC, in plain text on loopback."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import partial
from urllib.parse import parse_qs

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from emulator.endpoints import is_endpoint_name
from emulator.messages import SERVICE_NAME
from emulator.refusals import InvalidArgumentError, RefusalError
from emulator.service import Call, PredictionService
from emulator.values import Request
from emulator.wire import read_request, response_bytes

ROUTING_KEY = "x-goog-request-params"

STATUS_KEY = "grpc-status-details-bin"
"""Metadata in which gRPC services send a serialised google.rpc.Status."""

_SERVER_OPTIONS = (
    # Far above the service's own limit, so that a request that is too long is refused by the service and not by gRPC.
    ("grpc.max_receive_message_length", 256 * 2**20),
    ("grpc.max_send_message_length", -1),
    # A port that is taken is an error, not a port shared with whoever took it.
    ("grpc.so_reuseport", 0),
)

Metadata = Iterable[tuple[str, str | bytes]]


async def start_grpc(service: PredictionService, port: int = 0) -> tuple[grpc.aio.Server, int]:
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
            await context.abort(refusal.status, str(refusal), _details(refusal))
            raise  # not reached: abort raises

    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    try:
        bound_port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        raise OSError(f"port {port} of 127.0.0.1 cannot be used: taken, or not allowed") from None
    await server.start()
    return server, bound_port


def _read(data: bytes, metadata: Metadata) -> Request:
    """Reads a call, whose routing header must name the endpoint that the message names."""
    request = read_request(data)
    if not is_endpoint_name(request.endpoint):
        return request
    routed = [value for key, value in metadata if key == ROUTING_KEY and isinstance(value, str)]
    if not routed:
        raise InvalidArgumentError(f"The {ROUTING_KEY} header is missing: expected endpoint={request.endpoint}.")
    if parse_qs(routed[0]).get("endpoint") != [request.endpoint]:
        raise InvalidArgumentError(
            f"The {ROUTING_KEY} header does not name the request's endpoint: expected endpoint={request.endpoint}."
        )
    return request


def _details(refusal: RefusalError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of a refusal: a google.rpc.RetryInfo where there is something to wait for."""
    if refusal.retry_s is None:
        return ()
    info = error_details_pb2.RetryInfo()
    fraction_s, whole_s = math.modf(refusal.retry_s)
    info.retry_delay.seconds, info.retry_delay.nanos = int(whole_s), int(fraction_s * 1e9)
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=refusal.status.value[0], message=str(refusal), details=[detail])
    return ((STATUS_KEY, status.SerializeToString()),)
