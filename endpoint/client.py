"""A client that keeps a window of requests in flight, for one process to share among its threads."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from endpoint.batch import Batch
from endpoint.dispatcher import Dispatcher
from endpoint.errors import ClientClosed, RunEnded
from endpoint.results import Outcome
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.stats import ClientStats
from endpoint.transport import Reply, Transport
from endpoint.wire import check_clips


class Client:
    """Sends batches of clips to a HeAR endpoint for raw audio; `submit` from any thread.

    One thread of the client's own encodes and sends requests, reads replies, and calls back. Nothing else waits or
    sleeps: retries are scheduled. How replies are dealt with is `dispatcher.Dispatcher`'s. Memory is bounded by the
    window: about 3 MB for each batch of four clips that is out.

    Raises:
        RunEnded: on construction, if credentials are needed and there are none.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        transport: Transport | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._transport = transport if transport is not None else _grpc_transport(settings)
        self._dispatcher = Dispatcher(
            settings,
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
        self._ended: RunEnded | None = None
        self._is_closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="hear-endpoint-client", daemon=True)
        self._thread.start()

    def submit(self, clips: Sequence[npt.NDArray[np.float32]], on_done: Callable[[Outcome], None]) -> None:
        """Sends a batch; blocks while `max_in_flight` batches have not had their outcome.

        Args:
            clips: 1 to `clips_per_request` arrays of float32, shape (32000,); not to be changed before `on_done`.
            on_done: called exactly once, on the client's thread, which stands still meanwhile: it should be quick, and
                cannot submit or close. If it raises, the run ends, and the next `submit` or `close` raises the same.

        Raises:
            ValueError: for samples of another number, shape or type.
            RunEnded: if the run has ended; then `on_done` is not called.
        """
        self._must_not_be_own_thread()
        if len(clips) > self._settings.clips_per_request:
            raise ValueError(f"a batch of {len(clips)} clips: expected {self._settings.clips_per_request} at most")
        check_clips(clips)
        batch = Batch(clips, on_done)
        with self._window:
            while self._ended is None and self._unfinished >= self._settings.max_in_flight:
                self._window.wait()
            self._raise_if_ended()
            self._unfinished += 1
            self._steps.put(partial(self._dispatcher.add, batch))

    def stats(self) -> ClientStats:
        """Counts since the client was made."""
        return self._dispatcher.counters.snapshot()

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
                self._steps.put(partial(self._dispatcher.end, closed))
                self._steps.put(None)
                self._window.notify_all()
        self._thread.join()
        self._transport.close()
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
                self._window.notify()

    def _note_end(self, error: RunEnded) -> None:
        with self._window:
            self._ended = self._ended or error
            self._window.notify_all()

    def _end_by(self, failure: Exception) -> None:
        with self._window:
            self._failure = self._failure or failure
        self._dispatcher.end(RunEnded(f"The run was ended by an error of this program: {type(failure).__name__}."))

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


def _grpc_transport(settings: EndpointSettings) -> Transport:
    from endpoint.grpc_transport import GrpcTransport

    return GrpcTransport(settings)
