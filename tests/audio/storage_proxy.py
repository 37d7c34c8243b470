"""A proxy in front of the storage server that counts requests and does to some of them what networks and services do."""

import http.client
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NOT_PASSED_ON = {"connection", "content-length", "host", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    """What becomes of the requests whose line (`DELETE /storage/v1/b/...`) matches."""

    line: str
    """A regular expression, searched for."""
    status: int | None = None
    """Answer with this instead; None: hang up."""
    body: dict[str, Any] = field(default_factory=lambda: {"error": {"code": 0, "message": "PLANTED-SERVICE-TEXT"}})
    after: bool = False
    """The request is carried out first: only its answer is lost."""
    times: float = float("inf")
    """For the first so many of them."""
    chooses: Callable[[str], bool] = lambda _: True
    """Which of them."""


class StorageProxy:
    """A running proxy."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.delay_s = 0.0
        """Added to every request."""
        self.lines: list[str] = []
        """`METHOD path?query` of each request, unquoted, in the order in which they came."""
        self.connections = 0
        self.concurrent = 0
        self.most_concurrent = 0
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def count(self, line: str) -> int:
        """How many requests had a line that matches."""
        with self._lock:
            return sum(re.search(line, seen) is not None for seen in self.lines)

    def begin(self, line: str) -> Fault | None:
        with self._lock:
            self.lines.append(line)
            self.concurrent += 1
            self.most_concurrent = max(self.most_concurrent, self.concurrent)
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.line, line) and fault.chooses(line):
                    fault.times -= 1
                    return fault
        return None

    def end(self) -> None:
        with self._lock:
            self.concurrent -= 1

    def connected(self) -> None:
        with self._lock:
            self.connections += 1


@contextmanager
def storage_proxy(upstream: str) -> Iterator[StorageProxy]:
    """Run a proxy to the server at `upstream`, an address such as http://127.0.0.1:1234."""
    host = upstream.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16
        timeout = 60

        def setup(self) -> None:
            super().setup()
            proxy.connected()
            self.upstream = http.client.HTTPConnection(host, timeout=60)

        def finish(self) -> None:
            super().finish()
            self.upstream.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.begin(f"{self.command} {urllib.parse.unquote(self.path)}")
            try:
                if proxy.delay_s:
                    time.sleep(proxy.delay_s)
                if fault is None:
                    self._answer(*self._pass_on(body))
                    return
                if fault.after:
                    self._pass_on(body)
                if fault.status is None:
                    self.close_connection = True
                else:
                    headers = [("Content-Type", "application/json")]
                    self._answer(fault.status, headers, json.dumps(fault.body).encode())
            finally:
                proxy.end()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
            self.upstream.request(self.command, self.path, body, headers)
            answer = self.upstream.getresponse()
            passed = [(k, v) for k, v in answer.getheaders() if k.lower() not in _NOT_PASSED_ON]
            return answer.status, passed, answer.read()

        def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients hang up when they end

    server = Server(("127.0.0.1", 0), Handler)
    proxy = StorageProxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
