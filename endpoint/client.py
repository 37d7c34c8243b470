"""A client that keeps a window of requests in flight, for one process to share among its threads."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from endpoint.address import parse_host
from endpoint.batch import Batch
from endpoint.codec import make_codec
from endpoint.credentials import CallCredentials, default_credentials
from endpoint.dispatcher import Dispatcher
from endpoint.errors import ClientClosed, RunEnded, TokenUnavailable
from endpoint.items import ClipObject, Item
from endpoint.rate import Rate
from endpoint.request_budget import RequestBudget, SharedBudget
from endpoint.results import Outcome
from endpoint.retry import Backoff
from endpoint.retry_budget import RetryBudget
from endpoint.settings import MAX_REQUEST_BYTES, EndpointSettings
from endpoint.shared_rate import SharedRate
from endpoint.stats import ClientStats
from endpoint.token_source import TokenSource
from endpoint.tokens import BearerTokens, bearer_tokens
from endpoint.transport import Reply, Transport

_MARGIN_BYTES = 16_384
"""Left free in requests with URIs: tokens are put in when they are sent, and a newer one may be longer."""
_LONG_TOKEN_BYTES = 2048
"""Reckoned with while there is no token (design.md 2.3)."""
_TOKEN_MARGIN_S = 30.0
_MAX_BYTES_IN_FLIGHT = 256 * 2**20


class Client:
    """Sends batches of clips to a HeAR endpoint; `submit` from any thread.

    One thread of the client's own encodes and sends requests, reads replies, and calls back. Nothing else waits or
    sleeps: retries are scheduled. How replies are dealt with is `dispatcher.Dispatcher`'s. Memory is bounded by the
    window: about 3 MB for each request of 1.5 MB that is out.

    Args:
        settings: the endpoint.
        transport: the way to it; that of the settings unless given.
        tokens: what the service reads URIs with; likewise.
        rate: how fast requests may go out; likewise, shared by all processes of this machine that ask this endpoint.
        request_budget: how many requests may go out; likewise, shared by all processes of this machine that belong to the
            run. When it is used up, what is in flight is waited for and the rest ends with `BudgetSpent`.
        backoff: how long failed clips wait.
        clock: seconds, never running backwards.
        rng: for the jitter.

    Raises:
        RunEnded: on construction, if credentials are needed and there are none.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        transport: Transport | None = None,
        tokens: BearerTokens | None = None,
        rate: Rate | None = None,
        request_budget: RequestBudget | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._codec = make_codec(settings.transport, settings.instance_format, settings.send, settings.name)
        # One source for calls and for buckets: the same account's token is not fetched twice.
        is_open_call = transport is not None or parse_host(settings.host).is_loopback
        source = None if is_open_call else default_credentials(settings.service_account, clock=clock)
        self._tokens = tokens if tokens is not None else _open_tokens(settings, source, clock)
        credentials = None if source is None else CallCredentials(source, clock=clock)
        self._transport = transport if transport is not None else _open_transport(settings, credentials)
        self._own_rate: SharedRate | None = None
        if rate is None:
            rate = self._own_rate = SharedRate.of(settings)
        if request_budget is None and settings.max_requests is not None:
            request_budget = SharedBudget.of(settings)
        self._dispatcher = Dispatcher(
            settings,
            codec=self._codec,
            tokens=self._tokens,
            rate=rate,
            budget=RetryBudget(settings.max_in_flight),
            request_budget=request_budget,
            send=self._send,
            renew_credentials=self._transport.renew_credentials,
            on_finished=self._finish,
            on_ended=self._note_end,
            backoff=backoff or Backoff(),
            clock=clock,
            rng=rng or random.Random(),
        )
        self._clock = clock
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._window = threading.Condition()
        self._unfinished = 0
        self._unfinished_bytes = 0
        self._waited_s = 0.0
        # More than this is out only where many small requests make it up.
        self._max_bytes = max(_MAX_BYTES_IN_FLIGHT, settings.max_in_flight * MAX_REQUEST_BYTES)
        self._ended: RunEnded | None = None
        self._is_closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="hear-endpoint-client", daemon=True)
        self._thread.start()

    @property
    def max_instances(self) -> int:
        """Clips in a request at most, at present: it becomes less when answers would be too large."""
        return self._dispatcher.max_instances

    @property
    def max_bytes(self) -> int:
        """What the instances of a request may come to, by `instance_bytes`."""
        margin_bytes = 0 if self._tokens is None else _MARGIN_BYTES
        return self._settings.max_request_bytes - self._codec.envelope_bytes - margin_bytes

    def instance_bytes(self, item: Item) -> int:
        """What this clip takes up in a request, with its token's length at present.

        Raises:
            RunEnded: if there is no token, and none can be had.
        """
        token_bytes = 0
        if self._tokens is not None and isinstance(item, ClipObject):
            try:
                token_bytes = len(self._tokens.token(item))
            except TokenUnavailable:
                token_bytes = _LONG_TOKEN_BYTES
        return self._codec.instance_bytes(item, token_bytes)

    def submit(self, items: Sequence[Item], on_done: Callable[[Outcome], None]) -> None:
        """Sends a batch; blocks while `max_in_flight` batches, or too many bytes, have not had their outcome.

        Args:
            items: at least one clip in the settings' form (see `items.Item`); not to be changed before `on_done`. More
                than `max_instances`, or than `max_bytes`, go in several requests one after the other.
            on_done: called exactly once, on the client's thread, which stands still meanwhile: it should be quick, and
                cannot submit or close. If it raises, the run ends, and the next `submit` or `close` raises the same.

        Raises:
            ValueError: for clips in another form, or samples of another number, shape or type.
            RunEnded: if the run has ended, as with `BudgetSpent`; then `on_done` is not called.
        """
        self._must_not_be_own_thread()
        self._codec.check(items)
        batch = Batch(items, on_done, sum(map(self.instance_bytes, items)))
        with self._window:
            if self._ended is None and self._is_full(batch):
                began_s = self._clock()
                while self._ended is None and self._is_full(batch):
                    self._window.wait()
                self._waited_s += self._clock() - began_s
            self._raise_if_ended()
            self._unfinished += 1
            self._unfinished_bytes += batch.size_bytes
            self._steps.put(partial(self._dispatcher.add, batch))

    def stats(self) -> ClientStats:
        """Counts since the client was made."""
        return self._dispatcher.counters.snapshot(self._waited_s)

    def take_latencies_ms(self) -> list[int]:
        """How long requests took, from sending to the reply; each is told once, to whichever thread asks first."""
        latencies = self._dispatcher.counters.latencies_ms
        taken: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(latencies.popleft())
        return taken

    def close(self) -> None:
        """Gives up what is in flight (each `on_done` gets an outcome with `ClientClosed`), and releases the connection.

        Raises:
            Exception: what an `on_done` raised, if no `submit` has raised it yet.
        """
        self._must_not_be_own_thread()
        with self._window:
            if not self._is_closing:
                self._is_closing = True
                closed = ClientClosed("The endpoint's client was closed before these clips were answered.")
                self._ended = self._ended or closed
                self._steps.put(partial(self._dispatcher.end, closed, at_once=True))
                self._steps.put(None)
                self._window.notify_all()
        self._thread.join()
        self._transport.close()
        if self._own_rate is not None:
            self._own_rate.close()
        self._raise_failure()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Client belongs to its process; make one in each")

    def _run(self) -> None:
        while True:
            due = self._dispatcher.next_due
            try:
                step = self._steps.get(timeout=None if due is None else max(0.0, due - self._clock()))
            except queue.Empty:
                step = self._dispatcher.proceed
            if step is None:
                return
            try:
                step()
                self._dispatcher.proceed()
            except Exception as failure:  # noqa: BLE001 - this thread must not die with batches in its hands
                self._end_by(failure)

    def _send(self, batch: Batch, request: bytes) -> None:
        self._transport.send(request, self._settings.timeout_s, partial(self._note_reply, batch))

    def _note_reply(self, batch: Batch, reply: Reply) -> None:
        # On a thread of the transport's.
        self._steps.put(partial(self._dispatcher.receive, batch, reply))

    def _finish(self, batch: Batch, error: RunEnded | None) -> None:
        try:
            batch.finish(error)
        except Exception as failure:  # noqa: BLE001 - raised again by the next submit or close
            self._steps.put(partial(self._end_by, failure))
        finally:
            with self._window:
                self._unfinished -= 1
                self._unfinished_bytes -= batch.size_bytes
                self._window.notify_all()

    def _is_full(self, batch: Batch) -> bool:
        too_large = self._unfinished_bytes + batch.size_bytes > self._max_bytes
        return self._unfinished >= self._settings.max_in_flight or (self._unfinished > 0 and too_large)

    def _note_end(self, error: RunEnded) -> None:
        with self._window:
            self._ended = self._ended or error
            self._window.notify_all()

    def _end_by(self, failure: Exception) -> None:
        with self._window:
            self._failure = self._failure or failure
        error = RunEnded(f"The run was ended by an error of this program: {type(failure).__name__}.")
        self._dispatcher.end(error, at_once=True)

    def _raise_if_ended(self) -> None:
        self._raise_failure()
        if self._ended is not None:
            # A new one each time: tracebacks of several threads would pile up on a shared one.
            raise type(self._ended)(self._ended.message)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _must_not_be_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("called from on_done, which must return before the client can do anything else")


def _open_tokens(
    settings: EndpointSettings, source: TokenSource | None, clock: Callable[[], float]
) -> BearerTokens | None:
    if settings.send != "uris":
        return None
    # The service may read an object as late as the request's time limit.
    margin_s = settings.timeout_s + _TOKEN_MARGIN_S
    if settings.bucket_tokens.service_account != settings.service_account:
        source = None
    is_loopback = parse_host(settings.host).is_loopback
    return bearer_tokens(settings.bucket_tokens, margin_s, is_loopback=is_loopback, clock=clock, source=source)


def _open_transport(settings: EndpointSettings, credentials: CallCredentials | None) -> Transport:
    if settings.transport == "rest":
        from endpoint.rest_transport import RestTransport

        return RestTransport(settings, credentials=credentials)
    from endpoint.grpc_transport import GrpcTransport

    return GrpcTransport(settings, credentials=credentials)
