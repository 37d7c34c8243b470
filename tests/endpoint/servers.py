"""Real servers in this process: gRPC ones that serve `Predict` with the official message classes, and HTTP ones."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from endpoint.grpc_transport import METHOD
from tests.endpoint import official
from tests.endpoint.outcomes import PATIENCE_S

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


@dataclass(frozen=True)
class RestRequest:
    path: str
    headers: Message
    body: bytes
    client: tuple[str, int]
    """Address and port of the connection."""


RestHandler = Callable[[RestRequest], tuple[int, Mapping[str, str], bytes]]


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests hang up as they please."""


@contextmanager
def serve_rest(handler: RestHandler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serves POST and GET requests over HTTP/1.1 on 127.0.0.1; yields the port. A handler that raises hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, answer = handler(RestRequest(self.path, self.headers, body, self.client_address))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            """Not on standard error."""

    server = _HttpServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def first_samples_rest(request: RestRequest) -> tuple[int, Mapping[str, str], bytes]:
    """Answers each clip with its first 512 samples."""
    predictions = [instance[:512] for instance in json.loads(request.body)["instances"]]
    body = json.dumps({"predictions": predictions, "deployedModelId": "dm-1"}).encode()
    return 200, {"Content-Type": "application/json"}, body


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hands each connection to `serve` in a thread; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def handle(connection: socket.socket) -> None:
            # Clients of these tests hang up as they please.
            with connection, contextlib.suppress(OSError):
                serve(connection)

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)
