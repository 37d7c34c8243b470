"""Every rule of sending in one place without threads or waiting: what is sent next, and what follows from a reply."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import grpc

from endpoint import verdicts
from endpoint.batch import Batch
from endpoint.canary import GIVE_UPS_IN_A_ROW, Canary
from endpoint.errors import BadAnswer, RunEnded
from endpoint.retry import Backoff, is_retryable
from endpoint.settings import EndpointSettings
from endpoint.stats import Counters
from endpoint.transport import Reply
from endpoint.wire import decode_predict_response

_BAD_ANSWERS_BEFORE_SPLIT = 2
_BAD_ANSWERS_OF_A_CANARY = 3


class Dispatcher:
    """Sends batches, and decides from each reply whether clips are embedded, refused or sent again, or the run ends.

    The rules, in the order in which they apply to a reply:

    1. An answer with an embedding for each clip settles them. Any other answer is a failure to be sent again; the
       second in a row for the same clips splits them first, so that a clip to which the model has no finite answer
       stands alone. An endpoint that never gave a proper answer ends the run with its third bad one.
    2. UNAUTHENTICATED is sent again at once with new credentials, which are renewed once for all requests that carried
       the old ones. Refused with new credentials as well, it ends the run.
    3. A retryable status (`retry.is_retryable`) is sent again after a wait, until the clips failed `max_attempts` times
       in a row. Then they are refused; or the run ends, if the endpoint has never answered.
    4. PERMISSION_DENIED, NOT_FOUND and UNIMPLEMENTED end the run.
    5. Every other status is a rejection: the part is split in halves, each starting with no failures, until the bad
       clip is refused alone. With n clips and one bad one that takes at most 2*ceil(log2 n) requests more. Rejections
       of an endpoint that has not answered yet, and too many in a row, end the run (`canary.Canary`).

    Waiting takes no thread: `next_due` says when `proceed` is to be called at the latest. Not thread-safe.

    Args:
        settings: the endpoint, and how often clips are sent.
        send: sends a request for a batch's current part; the reply comes back by `receive`, at any later time.
        renew_credentials: see `Transport.renew_credentials`.
        on_finished: takes each added batch once, with the error if the run ended before it; must not raise.
        on_ended: called once when the run ends, before batches are finished with the error; must not raise.
        backoff: how long failed clips wait.
        clock: seconds, never running backwards.
        rng: for the jitter.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        send: Callable[[Batch, bytes], None],
        renew_credentials: Callable[[], None],
        on_finished: Callable[[Batch, RunEnded | None], None],
        on_ended: Callable[[RunEnded], None],
        backoff: Backoff,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.counters = Counters()
        self._settings = settings
        self._send_request = send
        self._renew = renew_credentials
        self._on_finished = on_finished
        self._on_ended = on_ended
        self._backoff = backoff
        self._clock = clock
        self._rng = rng
        # Two windows full: an outage that ends before that costs its own requests only.
        self._canary = Canary(give_ups=max(GIVE_UPS_IN_A_ROW, 2 * settings.max_in_flight))
        self._ended: RunEnded | None = None
        self._unfinished: dict[Batch, None] = {}  # a set that keeps the order of arrival
        self._ready: deque[Batch] = deque()
        self._waiting: list[tuple[float, int, Batch]] = []
        self._sequence = itertools.count()
        self._renewals = 0

    @property
    def next_due(self) -> float | None:
        """When the first waiting batch is to be sent again, by the clock; None if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, batch: Batch) -> None:
        """Takes a new batch, to be sent as soon as `proceed` may."""
        if self._ended is not None:
            self._on_finished(batch, self._ended)
            return
        self._unfinished[batch] = None
        self._ready.append(batch)

    def proceed(self) -> None:
        """Sends what may be sent now."""
        while self._waiting and self._waiting[0][0] <= self._clock():
            self._ready.append(heapq.heappop(self._waiting)[2])
        while self._ready and (batch := self._next_allowed()) is not None:
            self._send(batch)

    def receive(self, batch: Batch, reply: Reply) -> None:
        """Draws the conclusions from the reply to a batch's current part."""
        if batch not in self._unfinished:
            return  # the run has ended meanwhile
        self.counters.answered()
        part = batch.part
        if reply.code is grpc.StatusCode.UNAUTHENTICATED:
            self._renew_credentials(batch)
            return
        part.was_unauthenticated = False
        if reply.code is grpc.StatusCode.OK:
            self._read(batch, reply.body)
        elif is_retryable(reply.code):
            self._retry_later(batch, reply.code, reply.retry_after_s)
        elif reply.code in verdicts.ENDS_RUN:
            self.end(verdicts.ended_by_status(self._settings, reply.code))
        else:
            self._reject(batch, reply.code)

    def end(self, error: RunEnded) -> None:
        """Ends the run: every batch is finished with the error, and so is every later one."""
        if self._ended is not None:
            return
        self._ended = error
        self._on_ended(error)
        batches, self._unfinished = self._unfinished, {}
        self._ready.clear()
        self._waiting.clear()
        self.counters.in_flight = 0
        for batch in batches:
            self._on_finished(batch, error)

    def _next_allowed(self) -> Batch | None:
        for position, batch in enumerate(self._ready):
            if self._canary.may_send(batch):
                del self._ready[position]
                return batch
        return None

    def _send(self, batch: Batch) -> None:
        part = batch.part
        request = batch.request(self._settings.name)
        self.counters.sent(len(request))
        batch.requests += 1
        if part.retry_code is not None:
            self.counters.retries_by_code[part.retry_code] += 1
            batch.retries += 1
            part.retry_code = None
        part.sends += 1
        part.credentials = self._renewals
        self._canary.sent(batch)
        self._send_request(batch, request)

    def _read(self, batch: Batch, body: bytes) -> None:
        try:
            predictions = decode_predict_response(body, len(batch.part))
        except BadAnswer as bad:
            self._retry_bad_answer(batch, bad.message)
            return
        self._canary.answered(batch)
        batch.embed(predictions)
        self._continue(batch)

    def _renew_credentials(self, batch: Batch) -> None:
        part = batch.part
        if part.was_unauthenticated:
            self.end(verdicts.ended_by_status(self._settings, grpc.StatusCode.UNAUTHENTICATED))
            return
        if part.credentials == self._renewals:
            self._renewals += 1
            self._renew()
        part.was_unauthenticated = True
        part.retry_code = grpc.StatusCode.UNAUTHENTICATED.name
        self._ready.appendleft(batch)

    def _retry_later(self, batch: Batch, code: grpc.StatusCode, hint_s: float | None) -> None:
        part = batch.part
        part.bad_answers = 0
        part.failures += 1
        if part.failures < self._settings.max_attempts:
            delay_s = self._wait(batch, code.name, hint_s)
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                now = self._clock()
                self.counters.throttled(now, now + delay_s)
        elif self._canary.gave_up(batch):
            unanswered = verdicts.ended_silent if self._canary.has_answered else verdicts.ended_unanswered
            self.end(unanswered(self._settings, code, part.failures))
        else:
            batch.refuse(*verdicts.refused_by_status(code, part.failures), retryable=True)
            self._continue(batch)

    def _retry_bad_answer(self, batch: Batch, reason: str) -> None:
        part = batch.part
        part.bad_answers += 1
        part.failures += 1
        if not self._canary.has_answered and part.bad_answers >= _BAD_ANSWERS_OF_A_CANARY:
            self.end(verdicts.ended_by_bad_answers(self._settings, reason))
        elif part.failures < self._settings.max_attempts:
            if self._canary.has_answered and part.bad_answers >= _BAD_ANSWERS_BEFORE_SPLIT and len(part) > 1:
                batch.split(failures=part.failures)
                self._ready.appendleft(batch)
            else:
                self._wait(batch, "BAD_ANSWER", None)
        elif self._canary.gave_up(batch):
            self.end(verdicts.ended_by_bad_answers(self._settings, reason))
        else:
            batch.refuse(*verdicts.refused_by_bad_answer(reason, part.failures), retryable=True)
            self._continue(batch)

    def _reject(self, batch: Batch, code: grpc.StatusCode) -> None:
        self.counters.rejections += 1
        had_answered = self._canary.has_answered
        if self._canary.rejected(batch):
            ended = verdicts.ended_by_rejections if had_answered else verdicts.ended_by_status
            self.end(ended(self._settings, code))
        elif len(batch.part) > 1:
            batch.split(failures=0)
            self._ready.appendleft(batch)
        else:
            batch.refuse(*verdicts.rejected(code), retryable=False)
            self._continue(batch)

    def _wait(self, batch: Batch, retry_code: str, hint_s: float | None) -> float:
        """Schedules the current part; returns the wait in seconds."""
        batch.part.retry_code = retry_code
        delay_s = self._backoff.delay_s(batch.part.failures, hint_s, self._rng)
        heapq.heappush(self._waiting, (self._clock() + delay_s, next(self._sequence), batch))
        return delay_s

    def _continue(self, batch: Batch) -> None:
        """Goes on with the next part of a batch, before other batches; or hands the batch back."""
        if batch.is_finished:
            del self._unfinished[batch]
            self._on_finished(batch, None)
        else:
            self._ready.appendleft(batch)
