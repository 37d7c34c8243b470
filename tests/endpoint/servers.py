"""Real gRPC servers in this process that serve `Predict` with the official message classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from endpoint.grpc_transport import METHOD
from tests.endpoint import official

Handler = Callable[[Any, grpc.ServicerContext], Any]


class _Predict(grpc.GenericRpcHandler):
    def __init__(self, handler: Handler) -> None:
        self._method = grpc.unary_unary_rpc_method_handler(
            handler,
            request_deserializer=official.parse_request,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._method if details.method == METHOD else None


@contextmanager
def serve(handler: Handler, credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    """Serves on 127.0.0.1; yields the port."""
    server = grpc.server(ThreadPoolExecutor(8), (_Predict(handler),))
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def first_samples(request: Any, context: grpc.ServicerContext) -> Any:
    """Answers each clip with its first 512 samples."""
    return official.response_message(
        [[value.number_value for value in instance.list_value.values[:512]] for instance in request.instances], "dm-1"
    )
