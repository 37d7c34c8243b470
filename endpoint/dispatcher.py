"""Every rule of sending in one place without threads or waiting: what is sent next, and what follows from a reply."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import grpc

from endpoint import verdicts
from endpoint.batch import Batch
from endpoint.canary import GIVE_UPS_IN_A_ROW, Canary
from endpoint.codec import Codec
from endpoint.errors import BadAnswer, BudgetSpent, RunEnded, TokenUnavailable
from endpoint.items import ClipObject
from endpoint.pacing import Pacing
from endpoint.predictions import InstanceError, Predictions
from endpoint.rate import Rate
from endpoint.request_budget import RequestBudget, require_left, take_one
from endpoint.retry import Backoff, is_retryable
from endpoint.retry_budget import RetryBudget
from endpoint.settings import EndpointSettings
from endpoint.stats import Counters
from endpoint.token_doubt import TokenDoubt
from endpoint.tokens import BearerTokens
from endpoint.transport import Reply

_BAD_ANSWERS_BEFORE_SPLIT = 2
_BAD_ANSWERS_OF_A_CANARY = 3
_RETRIEVALS = 3
"""How often the service is asked to read an object: with the first token, with a new one, and once more after a wait."""


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
    4. PERMISSION_DENIED, NOT_FOUND and UNIMPLEMENTED end the run; with URIs, the first only if it comes again with
       tokens fetched since, as it may be the bucket that is denied.
    5. A response that would have been too large is split, and requests are no larger than its halves from then on.
    6. Every other status is a rejection: the part is split in halves, each starting with no failures, until the bad
       clip is refused alone. With n clips and one bad one that takes at most 2*ceil(log2 n) requests more. Rejections
       of an endpoint that has not answered yet, and too many in a row, end the run (`canary.Canary`). With URIs, parts
       of a rejected request go with tokens fetched since, for it may have been the token (`token_doubt.TokenDoubt`).
    7. In the Model Garden format an answer says for each clip what became of it. Those that were rejected are refused.
       Those whose object was not retrieved are sent again by themselves, with a new token, `_RETRIEVALS` times in
       all. An answer without any embedding is a rejection of the request.

    Requests go out as fast as the rate and the retry budget allow. Waiting takes no thread: `next_due` says when
    `proceed` is to be called at the latest. Not thread-safe. The request budget is asked last, so that what it counts
    is sent; once it is used up and more is to be sent, the run ends, with what is out dealt with as ever, but for retries.

    Args:
        settings: the endpoint, and how often clips are sent.
        codec: writes requests and reads answers.
        tokens: what the service reads URIs with; None where audio is sent.
        rate: when the next request may go out.
        budget: holds requests back while most of them fail.
        request_budget: how many may go out in all; None for any number.
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
        codec: Codec,
        tokens: BearerTokens | None,
        rate: Rate,
        budget: RetryBudget,
        request_budget: RequestBudget | None,
        send: Callable[[Batch, bytes], None],
        renew_credentials: Callable[[], None],
        on_finished: Callable[[Batch, RunEnded | None], None],
        on_ended: Callable[[RunEnded], None],
        backoff: Backoff,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.counters = Counters()
        self.max_instances = min(codec.max_instances, settings.clips_per_request or codec.max_instances)
        """Clips in a request at most; becomes less when the endpoint's answers would be too large."""
        self._settings = settings
        self._codec = codec
        self._tokens = tokens
        self._doubt = TokenDoubt(tokens, clock)
        self._pacing = Pacing(rate, budget, self.counters)
        self._request_budget = request_budget
        self._send_request = send
        self._renew = renew_credentials
        self._on_finished = on_finished
        self._on_ended = on_ended
        self._backoff = backoff
        self._clock = clock
        self._rng = rng
        # Two windows full: an outage that ends before that costs its own requests only.
        give_ups = max(GIVE_UPS_IN_A_ROW, 2 * settings.max_in_flight)
        self._canary = Canary(give_ups, has_answered=settings.is_proven)
        self._ended: RunEnded | None = None
        self._unfinished: dict[Batch, None] = {}  # a set that keeps the order of arrival
        self._out: set[Batch] = set()
        self._ready: deque[Batch] = deque()
        self._waiting: list[tuple[float, int, Batch]] = []
        self._sequence = itertools.count()
        self._awaits_slot = False
        self._renewals = 0

    @property
    def next_due(self) -> float | None:
        """When a batch is to be sent, by the clock, if it must wait until then; None if none waits for its time."""
        slot_s = self._pacing.due_s if self._awaits_slot else None
        waiting_s = self._waiting[0][0] if self._waiting else None
        return min((due for due in (slot_s, waiting_s) if due is not None), default=None)

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
        self._awaits_slot = False
        while not self._is_spent() and (batch := self._next_allowed()) is not None:
            if not self._pacing.may_send(self._clock()):
                self._awaits_slot = True
                return
            self._ready.remove(batch)
            self._send(batch)

    def receive(self, batch: Batch, reply: Reply) -> None:
        """Draws the conclusions from the reply to a batch's current part."""
        if batch not in self._unfinished:
            return  # the client has been closed meanwhile
        self._out.discard(batch)
        self.counters.answered(self._clock() - batch.part.sent_s)
        ended = self._ended
        if ended is not None and not isinstance(ended, BudgetSpent):
            self._keep_late_answer(batch, reply, ended)
            return
        self._conclude(batch, reply)
        if ended is not None:
            # Nothing is wrong, so that a refusal counts as well as an answer; but what would be sent again is left.
            self.end(ended)

    def _conclude(self, batch: Batch, reply: Reply) -> None:
        part = batch.part
        self._pacing.answered(part.sent_s, self._clock(), reply)
        if reply.code is grpc.StatusCode.UNAUTHENTICATED:
            self._renew_credentials(batch)
            return
        part.was_unauthenticated = False
        if reply.code is grpc.StatusCode.OK:
            self._read(batch, reply.body)
        elif is_retryable(reply.code):
            self._retry_later(batch, reply.code, reply.retry_after_s)
        elif reply.code in verdicts.ENDS_RUN:
            if reply.code is grpc.StatusCode.PERMISSION_DENIED and self._doubt.renew(part):
                self._send_again(batch, reply.code.name)
            else:
                self.end(verdicts.ended_by_status(self._settings, reply.code))
        elif reply.response_too_large and len(part) > 1:
            self.max_instances = min(self.max_instances, max(1, len(part) // 2))
            self._send_again(batch, "RESPONSE_TOO_LARGE")
        else:
            self._reject(batch, verdicts.rejection(self._settings, reply.code))

    def end(self, error: RunEnded, *, at_once: bool = False) -> None:
        """Ends the run: nothing more is sent, and batches are finished with the error, now and later.

        Those whose request is out are waited for, as an answer is paid for; unless this is to be at once.
        """
        if self._ended is None:
            self._ended = error
            self._on_ended(error)
        self._ready.clear()
        self._waiting.clear()
        self._awaits_slot = False
        if at_once:
            self._out.clear()
            self.counters.in_flight = 0
        for batch in [batch for batch in self._unfinished if batch not in self._out]:
            del self._unfinished[batch]
            self._on_finished(batch, self._ended)
        self._pacing.release()

    def _is_spent(self) -> bool:
        """Ends the run if something is to be sent, now or after a wait, and no more requests may go out."""
        try:
            if self._ready or self._waiting:
                require_left(self._request_budget)
        except RunEnded as error:
            self.end(error)
            return True
        return False

    def _next_allowed(self) -> Batch | None:
        return next((batch for batch in self._ready if self._canary.may_send(batch)), None)

    def _send(self, batch: Batch) -> None:
        try:
            request = self._request(batch)
            take_one(self._request_budget)
        except TokenUnavailable:
            self._retry_later(batch, grpc.StatusCode.UNAUTHENTICATED, None)
            return
        except RunEnded as error:
            self.end(error)
            return
        part = batch.part
        self._pacing.sent()
        self.counters.sent(len(request))
        batch.requests += 1
        if part.retry_code is not None:
            self.counters.retries_by_code[part.retry_code] += 1
            batch.retries += 1
            part.retry_code = None
        part.sends += 1
        part.sent_s = self._clock()
        part.credentials = self._renewals
        self._canary.sent(batch)
        self._out.add(batch)
        self._send_request(batch, request)

    def _request(self, batch: Batch) -> bytes:
        """The request for a batch's current part, which is split first as far as it must be smaller."""
        while True:
            while len(batch.part) > self.max_instances:
                batch.split(failures=batch.part.failures)
            request = batch.request(self._codec, self._token_of)
            if len(request) <= self._settings.max_request_bytes or len(batch.part) == 1:
                return request
            batch.split(failures=batch.part.failures)

    def _token_of(self, item: ClipObject) -> str:
        assert self._tokens is not None
        return self._tokens.token(item)

    def _read(self, batch: Batch, body: bytes) -> None:
        part = batch.part
        try:
            predictions = self._codec.read(body, len(part))
        except BadAnswer as bad:
            self._retry_bad_answer(batch, bad.message)
            return
        if predictions.errors:
            self._read_errors(batch, predictions)
            return
        self._canary.answered(batch)
        self._doubt.answered(part.sent_s)
        batch.embed(predictions)
        self._continue(batch)

    def _read_errors(self, batch: Batch, predictions: Predictions) -> None:
        """Deals with an answer in which some clips, or all of them, have an error instead of an embedding."""
        part = batch.part
        part.failures = part.bad_answers = 0
        has_missing = InstanceError.NOT_RETRIEVED in predictions.errors.values()
        if len(predictions.errors) < len(part):
            self._canary.answered(batch)
            part.others_were_answered = True
        elif not part.others_were_answered:
            if not (has_missing and self._retrieve_again(batch)):
                self._reject(batch, verdicts.NOT_RETRIEVED if has_missing else verdicts.INSTANCE_REJECTED)
            return
        rejected = [part.positions[k] for k, error in predictions.errors.items() if error is InstanceError.REJECTED]
        batch.embed(predictions)
        if rejected:
            batch.refuse(*verdicts.refused_alone(verdicts.INSTANCE_REJECTED), positions=rejected)
        if has_missing:
            if self._retrieve_again(batch):
                return
            batch.refuse(*verdicts.refused_alone(verdicts.NOT_RETRIEVED))
        self._continue(batch)

    def _retrieve_again(self, batch: Batch) -> bool:
        """Sends clips again whose objects the service could not read, unless that was tried often enough."""
        part = batch.part
        part.not_retrieved += 1
        if self._tokens is None or part.not_retrieved >= _RETRIEVALS:
            return False
        self._tokens.renew(part.sent_s)
        if part.not_retrieved == 1:
            self._send_again(batch, InstanceError.NOT_RETRIEVED.name)
        else:
            self._wait(batch, InstanceError.NOT_RETRIEVED.name, None)
        return True

    def _keep_late_answer(self, batch: Batch, reply: Reply, error: RunEnded) -> None:
        """Finishes a batch whose request was out when the run ended; with its embeddings, if there are any."""
        with contextlib.suppress(BadAnswer):
            if reply.code is grpc.StatusCode.OK:
                batch.embed(self._codec.read(reply.body, len(batch.part)))
        del self._unfinished[batch]
        self._on_finished(batch, None if batch.is_finished else error)

    def _renew_credentials(self, batch: Batch) -> None:
        part = batch.part
        if part.was_unauthenticated:
            self.end(verdicts.ended_by_status(self._settings, grpc.StatusCode.UNAUTHENTICATED))
            return
        if part.credentials == self._renewals:
            self._renewals += 1
            self._renew()
        self._doubt.renew(part)
        part.was_unauthenticated = True
        self._send_again(batch, grpc.StatusCode.UNAUTHENTICATED.name)

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

    def _reject(self, batch: Batch, rejection: verdicts.Rejection) -> None:
        self.counters.rejections += 1
        had_answered = self._canary.has_answered
        tokens_are_newer = self._doubt.rejected(batch.part)
        if self._canary.rejected(batch):
            ended = verdicts.ended_by_rejections if had_answered else verdicts.ended_by_first_rejection
            self.end(ended(self._settings, rejection))
        elif len(batch.part) > 1:
            batch.split(failures=0)
            self._ready.appendleft(batch)
        elif tokens_are_newer:
            self._send_again(batch, rejection.status)
        else:
            batch.refuse(*verdicts.refused_alone(rejection))
            self._continue(batch)

    def _send_again(self, batch: Batch, retry_code: str) -> None:
        """Sends the current part again at once, before other batches."""
        batch.part.retry_code = retry_code
        self._ready.appendleft(batch)

    def _wait(self, batch: Batch, retry_code: str, hint_s: float | None) -> float:
        """Schedules the current part; returns the wait in seconds."""
        batch.part.retry_code = retry_code
        delay_s = self._backoff.delay_s(max(1, batch.part.failures), hint_s, self._rng)
        heapq.heappush(self._waiting, (self._clock() + delay_s, next(self._sequence), batch))
        return delay_s

    def _continue(self, batch: Batch) -> None:
        """Goes on with the next part of a batch, before other batches; or hands the batch back."""
        if batch.is_finished:
            del self._unfinished[batch]
            self._canary.forget(batch)
            self._on_finished(batch, None)
        else:
            self._ready.appendleft(batch)
