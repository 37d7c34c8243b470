"""HTTP connections that can be cut from another thread, which `requests` has no means for."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Line:
    """The connection that a thread's request uses at present, to be cut by any other thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._is_cut = False

    def cut(self) -> None:
        """Ends the request, whose thread gets an error; also one that has no connection yet, as soon as it has."""
        with self._lock:
            self._is_cut = True
            self._shut_down()

    def use(self, connection: HTTPConnection) -> None:
        """Notes the connection."""
        with self._lock:
            self._connection = connection
            if self._is_cut:
                self._shut_down()

    def hang_up(self) -> None:
        """Lets go of the connection, which may serve another request from now on."""
        with self._lock:
            self._connection = None

    def _shut_down(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            # A type error means TLS inside a proxy's TLS, which is no socket; its request ends with its time limit.
            with contextlib.suppress(OSError, TypeError):
                # TLS's own method would take the ground from under the thread that is reading.
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)


class CuttableAdapter(HTTPAdapter):
    """An adapter whose connections tell the line of their thread's request that they serve it; it never retries.

    Args:
        connections: how many are kept open.
    """

    def __init__(self, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections, max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """See `requests`; the same pool, making connections of the classes below."""
        pool: HTTPConnectionPool = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _TlsConnection if isinstance(pool, HTTPSConnectionPool) else _PlainConnection
        return pool

    def send_on(self, line: Line, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """`send` on a line."""
        _current.line = line
        try:
            return self.send(request, **options)
        finally:
            _current.line = None


class _Current(threading.local):
    line: Line | None = None


_current = _Current()


class _OnLine:
    """Tells the line when a connection is made, and when one that was kept open is used again."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._note()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._note()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _note(self) -> None:
        if _current.line is not None:
            _current.line.use(cast(HTTPConnection, self))


class _PlainConnection(_OnLine, HTTPConnection):
    pass


class _TlsConnection(_OnLine, HTTPSConnection):
    pass
