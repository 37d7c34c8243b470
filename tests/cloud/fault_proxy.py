"""A proxy on loopback in front of a local server: it answers errors, delays, resets connections, and loses answers.

It also adds the Content-ID that fake-gcs-server needs on each part of a batch request, and which Beam leaves out.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "te", "trailers", "transfer-encoding", "upgrade"),
    "content-length",  # set anew
}
_REASONS = {403: "forbidden", 404: "notFound", 429: "rateLimitExceeded", 503: "backendError"}
_WITHIN_S = 120
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset."""


@dataclass
class Fault:
    """What becomes of requests that match."""

    match: str
    status: int
    times: int
    after: bool
    drop: bool
    cut: bool
    delay_s: float
    retry_after: str | None
    reason: str | None
    chance: float
    call: Callable[[], object] | None
    hits: int = 0

    @property
    def replaces_answer(self) -> bool:
        return bool(self.status or self.drop or self.cut)


class FaultProxy:
    """Forwards to `upstream` what arrives at `address`."""

    def __init__(self) -> None:
        self.upstream = ("127.0.0.1", 0)
        self.address = ""
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._requests: list[str] = []
        self._random = random.Random(1)

    @property
    def requests(self) -> list[str]:
        """`METHOD /path?query` of all that have arrived, in their order."""
        with self._lock:
            return list(self._requests)

    def inject(
        self,
        match: str,
        *,
        status: int = 0,
        times: int = 1,
        after: bool = False,
        drop: bool = False,
        cut: bool = False,
        delay_s: float = 0.0,
        retry_after: str | None = None,
        reason: str | None = None,
        chance: float = 1.0,
        call: Callable[[], object] | None = None,
    ) -> Fault:
        """From now on, requests whose `METHOD /path?query` has a match of the expression meet a fault.

        Args:
            match: a regular expression, searched for.
            status: is answered, without forwarding; 0: forwarded as usual.
            times: so often; -1: always.
            after: the request is forwarded first: the work is done, its answer is lost.
            drop: the connection is reset instead of an answer.
            cut: the answer ends after half of its body.
            delay_s: before anything else.
            retry_after: header of the answer.
            reason: of the error, as Google's services name it; by default the usual one for the status.
            chance: that a matching request is hit, by a generator of fixed seed.
            call: called when a request is hit, before it is forwarded, or with `after` behind that.

        Of several faults that match the oldest counts.
        """
        fault = Fault(match, status, times, after, drop, cut, delay_s, retry_after, reason, chance, call)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Ends all faults, and forgets the requests."""
        with self._lock:
            self._faults.clear()
            self._requests.clear()

    def meet(self, line: str) -> Fault | None:
        """Notes a request; the fault that it meets, if it does."""
        with self._lock:
            self._requests.append(line)
            for fault in self._faults:
                if fault.hits != fault.times and re.search(fault.match, line) and self._random.random() < fault.chance:
                    fault.hits += 1
                    return fault
        return None


@contextmanager
def fault_proxy() -> Iterator[FaultProxy]:
    """Runs a proxy; `upstream` is to be set before anything is asked of it."""
    proxy = FaultProxy()
    handler = type("_Handler", (_ProxyHandler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Clients that are killed leave broken connections."""


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = _WITHIN_S
    proxy: FaultProxy

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        body = self._body()
        fault = self.proxy.meet(f"{self.command} {self.path}")
        if fault is None:
            self._answer(*self._forward(body))
            return
        time.sleep(fault.delay_s)
        if fault.call is not None and not fault.after:
            fault.call()
        forwarded = None
        if fault.after or fault.cut or not fault.replaces_answer:
            forwarded = self._forward(body)
            if fault.call is not None and fault.after:
                fault.call()
        if fault.drop:
            self._reset()
        elif fault.status:
            self._answer(*_error(fault))
        else:
            assert forwarded is not None
            self._answer(*forwarded, cut=fault.cut)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815  (named by http.server)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/batch/"):
            numbers = count(1)
            body = re.sub(
                rb"(?m)^Content-Type: application/http\r?\n",
                lambda match: match[0] + b"Content-ID: <%d>\n" % next(numbers),
                body,
            )
        return body

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=_WITHIN_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            if body or self.command in ("POST", "PUT", "PATCH"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.connection.close()


def _error(fault: Fault) -> tuple[int, list[tuple[str, str]], bytes]:
    reason = fault.reason or _REASONS.get(fault.status, "internalError")
    error = {"reason": reason, "message": "injected", "domain": "global"}
    answer = {"error": {"code": fault.status, "message": "injected", "errors": [error]}}
    headers = [("Content-Type", "application/json")]
    if fault.retry_after is not None:
        headers.append(("Retry-After", fault.retry_after))
    return fault.status, headers, json.dumps(answer).encode()
