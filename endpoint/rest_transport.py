"""Requests over HTTPS: the REST method `predict`, for networks that block gRPC."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

import grpc
import requests
import urllib3

from endpoint.address import parse_host
from endpoint.connections import CuttableAdapter, Line
from endpoint.credentials import CallCredentials, default_credentials
from endpoint.errors import RunEnded
from endpoint.rest_failure import failed
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""As gRPC's: answers are 12 kB a clip, so this is far more than any endpoint returns, and yet a bound."""
_BLOCK_BYTES = 64 * 1024
_PATIENCE_AT_CLOSE_S = 1.0


class RestCredentials(Protocol):
    """What signs requests; see `credentials.CallCredentials`."""

    def headers(self) -> dict[str, str]:
        """The headers that go with a request; raises `RunEnded` if there is no token and will be none."""

    def renew(self) -> None:
        """Lets the next request fetch a new token."""


class RestTransport:
    """A `Transport` with a thread and a connection for each request that is out; both are kept for the next.

    Plain text and no credentials on loopback; TLS, Google credentials and the environment's proxies elsewhere. Redirects
    are not followed, and nothing is sent twice.

    Args:
        settings: names the endpoint and its host; no more than `max_in_flight` requests are out at a time.
        credentials: for hosts other than loopback; those that the settings name unless given.

    Raises:
        RunEnded: if credentials are needed and there are none.
    """

    def __init__(self, settings: EndpointSettings, *, credentials: RestCredentials | None = None) -> None:
        address = parse_host(settings.host)
        self._credentials: RestCredentials | None = None
        if not address.is_loopback:
            self._credentials = credentials or CallCredentials(default_credentials(settings.service_account))
        self._url = f"{address.url}/v1/{quote(settings.name, safe='/')}:predict"
        # No session sends: it would follow redirects, read .netrc and keep cookies. This one looks up, once, which proxies
        # and authorities the environment prescribes.
        with requests.Session() as session:
            session.trust_env = not address.is_loopback
            self._options = dict(session.merge_environment_settings(self._url, {}, True, None, None))
        self._adapter = CuttableAdapter(settings.max_in_flight)
        self._max_threads = settings.max_in_flight
        self._threads: list[threading.Thread] = []
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._out: set[_Call] = set()
        self._next_look_s = float("inf")
        self._is_closed = False
        self._watch = threading.Thread(target=self._give_up_late_calls, name="hear-rest-watch", daemon=True)
        self._watch.start()

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        """See `Transport.send`."""
        call = _Call(request, time.monotonic() + timeout_s, done)
        with self._lock:
            if not self._is_closed:
                self._out.add(call)
                self._waiting.put(call)
                if len(self._threads) < min(len(self._out), self._max_threads):
                    self._threads.append(threading.Thread(target=self._work, name="hear-rest", daemon=True))
                    self._threads[-1].start()
                if call.deadline_s < self._next_look_s:
                    self._lock.notify()
                return
        call.finish(Reply(grpc.StatusCode.CANCELLED))

    def renew_credentials(self) -> None:
        """See `Transport.renew_credentials`; without credentials there is nothing to renew."""
        if self._credentials is not None:
            self._credentials.renew()

    def close(self) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            out = list(self._out)
            self._out.clear()
            for _ in self._threads:
                self._waiting.put(None)
            self._lock.notify()
        for call in out:
            call.give_up(grpc.StatusCode.CANCELLED)
        until_s = time.monotonic() + _PATIENCE_AT_CLOSE_S
        for thread in (self._watch, *self._threads):
            # One that waits for a name service or a token is left to end by itself.
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))
        self._adapter.close()

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            reply = self._reply(call)
            with self._lock:
                self._out.discard(call)
            call.finish(reply)
            # What was sent is not kept until the next request comes.
            del call, reply

    def _give_up_late_calls(self) -> None:
        """Sees to time limits: those of `requests` count from byte to byte, and do not count looking up names."""
        while True:
            with self._lock:
                if self._is_closed:
                    return
                now = time.monotonic()
                late = [call for call in self._out if call.deadline_s <= now]
                self._out.difference_update(late)
                if not late:
                    self._next_look_s = min((call.deadline_s for call in self._out), default=float("inf"))
                    self._lock.wait(None if self._next_look_s == float("inf") else self._next_look_s - now)
            for call in late:
                call.give_up(grpc.StatusCode.DEADLINE_EXCEEDED)

    def _reply(self, call: _Call) -> Reply:
        # Exceptions of these libraries hold the request, and so go no further.
        try:
            return self._exchange(call)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            return Reply(grpc.StatusCode.DEADLINE_EXCEEDED)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            return Reply(grpc.StatusCode.UNAVAILABLE)
        except Exception:  # noqa: BLE001 - a request without a reply would be waited for for ever
            return Reply(grpc.StatusCode.UNKNOWN)
        finally:
            call.line.hang_up()

    def _exchange(self, call: _Call) -> Reply:
        headers = {"Content-Type": "application/json"}
        if self._credentials is not None:
            try:
                headers |= self._credentials.headers()
            except RunEnded:
                return Reply(grpc.StatusCode.UNAUTHENTICATED)
            except Exception:  # noqa: BLE001 - its text may hold parts of a credentials file
                return Reply(grpc.StatusCode.UNAVAILABLE)
        left_s = call.deadline_s - time.monotonic()
        if left_s <= 0:
            return Reply(grpc.StatusCode.DEADLINE_EXCEEDED)
        prepared = requests.Request("POST", self._url, headers=headers, data=call.request).prepare()
        response = self._adapter.send_on(call.line, prepared, timeout=left_s, **self._options)
        with response:
            body = _read(response)
        if body is None:
            return Reply(grpc.StatusCode.INVALID_ARGUMENT, response_too_large=True)
        if response.status_code == requests.codes.ok:
            return Reply(grpc.StatusCode.OK, body)
        return failed(response.status_code, response.headers.get("Retry-After"), body)


class _Call:
    """A request that is out."""

    def __init__(self, request: bytes, deadline_s: float, done: Callable[[Reply], None]) -> None:
        self.request = request
        self.deadline_s = deadline_s
        self.line = Line()
        self._done: Callable[[Reply], None] | None = done
        self._lock = threading.Lock()

    def finish(self, reply: Reply) -> None:
        """Hands over the reply, unless there was one before."""
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done(reply)

    def give_up(self, code: grpc.StatusCode) -> None:
        """Cuts the line, and hands over that code."""
        self.line.cut()
        self.finish(Reply(code))


def _read(response: requests.Response) -> bytes | None:
    """The body, or None if it is longer than `MAX_ANSWER_BYTES`; then its connection is not used again."""
    body = bytearray()
    for block in response.raw.stream(_BLOCK_BYTES, decode_content=True):
        body += block
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)
