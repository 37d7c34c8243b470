"""An endpoint in virtual time: a dispatcher's requests are answered by a rule, after a service time, without waiting."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np

from endpoint.batch import Batch
from endpoint.codec import make_codec
from endpoint.dispatcher import Dispatcher
from endpoint.errors import EndpointError, RunEnded
from endpoint.items import CLIP_SAMPLES, ClipObject, Item
from endpoint.rate import LocalRate, Rate
from endpoint.request_budget import RequestBudget
from endpoint.results import Outcome
from endpoint.retry import Backoff
from endpoint.retry_budget import RetryBudget
from endpoint.settings import EndpointSettings
from endpoint.stats import ClientStats
from endpoint.tokens import BearerTokens
from endpoint.transport import Reply
from tests.endpoint import official

SETTINGS = EndpointSettings(name=official.NAME, host="127.0.0.1:9", max_attempts=8)

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT

_INSTANCE_BYTES = CLIP_SAMPLES * 11 + 8  # with the tags and lengths of instance, value and list


@functools.lru_cache(maxsize=5000)
def clip(number: int) -> np.ndarray:
    """A clip that a request can be recognised by."""
    samples = np.zeros(CLIP_SAMPLES, np.float32)
    samples[0] = number
    samples.flags.writeable = False
    return samples


def clip_numbers(request: bytes) -> tuple[int, ...]:
    """Which clips a request holds, read from its end backwards: instances come last, and all are of one size."""
    count = len(request) // _INSTANCE_BYTES
    starts = (len(request) - (count - position) * _INSTANCE_BYTES for position in range(count))
    return tuple(int(np.frombuffer(request, "<f8", 1, start + 8 + 3)[0]) for start in starts)


@functools.lru_cache(maxsize=5000)
def _prediction(number: int) -> bytes:
    return official.response_bytes([np.full(official.WIDTH, number)], "")


def answer(numbers: Iterable[int], model: str = "7") -> Reply:
    """A proper answer: the embedding of clip n is 512 times n."""
    return Reply(OK, b"".join(map(_prediction, numbers)) + official.response_bytes([], model))


def not_finite(numbers: Iterable[int], bad: Iterable[int]) -> Reply:
    """An answer in which some clips' embeddings are NaN."""
    bad = set(bad)
    rows = [np.full(official.WIDTH, np.nan if number in bad else number) for number in numbers]
    return Reply(OK, official.response_bytes(rows))


@dataclass(frozen=True)
class Sent:
    """A request as the endpoint saw it."""

    at_s: float
    numbers: tuple[int, ...]
    renewals: int
    """How often the credentials had been renewed when it was sent."""
    tokens: frozenset[str] = frozenset()
    """Those that came with the URIs."""


@dataclass
class Simulation:
    """Runs a dispatcher against a rule from requests to replies."""

    rule: Callable[[Sent], Reply]
    settings: EndpointSettings = SETTINGS
    service_s: Callable[[Sent], float] = lambda _: 0.2
    backoff: Backoff = field(default_factory=Backoff)
    tokens: BearerTokens | None = None
    rate: Rate | None = None
    request_budget: RequestBudget | None = None
    seed: int = 1
    now: float = 1000.0
    sent: list[Sent] = field(default_factory=list)
    ended: list[RunEnded] = field(default_factory=list)
    renewals: int = 0
    out: int = 0
    most_out: int = 0

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Batch, Reply]] = []
        self._sequence = itertools.count()
        self._outcomes: dict[int, list[Outcome]] = {}
        self._submitted = 0
        self._unfinished = 0
        self.dispatcher = Dispatcher(
            self.settings,
            codec=make_codec("grpc", self.settings.instance_format, self.settings.send, self.settings.name),
            tokens=self.tokens,
            rate=self.rate or LocalRate(),
            budget=RetryBudget(self.settings.max_in_flight),
            request_budget=self.request_budget,
            send=self._send,
            renew_credentials=self._renew,
            on_finished=self._finished,
            on_ended=self.ended.append,
            backoff=self.backoff,
            clock=lambda: self.now,
            rng=random.Random(self.seed),
        )

    @property
    def stats(self) -> ClientStats:
        return self.dispatcher.counters.snapshot()

    def run(self, *batches: Iterable[int]) -> list[Outcome]:
        """Submits batches of clips by their numbers, as the window lets them in; returns their outcomes in order."""
        waiting = [self._batch(numbers) for numbers in batches]
        waiting.reverse()
        while waiting or self._unfinished:
            while waiting and self._unfinished < self.settings.max_in_flight:
                self._unfinished += 1
                self.dispatcher.add(waiting.pop())
            self.dispatcher.proceed()
            self._advance()
        assert all(len(outcomes) == 1 for outcomes in self._outcomes.values()), "on_done is called exactly once"
        outcomes = [self._outcomes[key][0] for key in sorted(self._outcomes)]
        self._outcomes.clear()
        return outcomes

    def _batch(self, numbers: Iterable[int]) -> Batch:
        self._submitted += 1
        outcomes = self._outcomes.setdefault(self._submitted, [])
        return Batch([self._item(number) for number in numbers], outcomes.append)

    def _item(self, number: int) -> Item:
        return clip(number)

    def _read(self, request: bytes) -> Sent:
        return Sent(self.now, clip_numbers(request), self.renewals)

    def _advance(self) -> None:
        """To the next reply or retry."""
        if not self._unfinished:
            return
        due = self.dispatcher.next_due
        assert due is not None or self._events, "nothing is under way, and yet batches are unfinished"
        if self._events and (due is None or self._events[0][0] <= due):
            self.now, _, batch, reply = heapq.heappop(self._events)
            self.out -= 1
            self.dispatcher.receive(batch, reply)
        elif due is not None:
            self.now = max(self.now, due)

    def _send(self, batch: Batch, request: bytes) -> None:
        sent = self._read(request)
        self.sent.append(sent)
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        event = (self.now + self.service_s(sent), next(self._sequence), batch, self.rule(sent))
        heapq.heappush(self._events, event)

    def _renew(self) -> None:
        self.renewals += 1

    def _finished(self, batch: Batch, error: RunEnded | None) -> None:
        self._unfinished -= 1
        batch.finish(error)


class SimulatedTokens:
    """Tokens that are numbered as they are minted; those of `gone` do not work any more."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self.minted_s: list[float] = []
        self.gone: set[str] = set()
        self.failure: EndpointError | None = None

    @property
    def newest(self) -> str:
        return f"token-{len(self.minted_s)}"

    def revoke(self) -> None:
        """Lets all tokens there are stop working."""
        self.gone |= {f"token-{number + 1}" for number in range(len(self.minted_s))}

    def token(self, item: ClipObject) -> str:
        if self.failure is not None:
            raise self.failure
        if not self.minted_s or self.minted_s[-1] == -math.inf:
            self.minted_s.append(self.clock())
        return self.newest

    def renew(self, minted_before_s: float) -> None:
        if self.minted_s and self.minted_s[-1] <= minted_before_s:
            self.minted_s[-1] = -math.inf


@dataclass
class UriSimulation(Simulation):
    """Sends URIs: clip n is the object `n.wav`."""

    tokens: SimulatedTokens = field(default_factory=SimulatedTokens)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tokens.clock = lambda: self.now

    def _item(self, number: int) -> Item:
        return ClipObject("bucket", f"{number}.wav")

    def _read(self, request: bytes) -> Sent:
        instances = [dict(value.struct_value) for value in official.parse_request(request).instances]
        names = [instance["gcs_uri"] if "gcs_uri" in instance else instance["object_uri"] for instance in instances]
        numbers = tuple(int(name.rpartition("/")[2].removesuffix(".wav")) for name in names)
        tokens = frozenset(instance["bearer_token"] for instance in instances)
        return Sent(self.now, numbers, self.renewals, tokens)


def garden_answer(numbers: Iterable[int], errors: Mapping[int, str]) -> Reply:
    """An answer of a Model Garden endpoint, with an error's description for some of the clips."""
    results = [errors.get(number, np.full(official.WIDTH, number)) for number in numbers]
    return Reply(OK, official.garden_response_bytes(results))
