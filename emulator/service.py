"""What becomes of a request, whichever transport brought it: read, admitted or refused, embedded, answered, logged.

Requests wait out their service time on one event loop, so that hundreds cost no threads. The embeddings of a few clips
are computed on the loop, one request after another; those of many on a thread, so that the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc
import numpy as np

from emulator.arrivals import Arrival, ArrivalsLog
from emulator.clips import ClipReader, Clips, apart
from emulator.digests import clip_digest, clip_digest_16_bit
from emulator.door import Door
from emulator.endpoints import DEFAULT_ENDPOINTS, Endpoints, InstanceFormat, ServedEndpoint, is_endpoint_name
from emulator.faults import Faults
from emulator.garden_rules import InstanceError
from emulator.objects import ObjectReader
from emulator.predictions import Predictions
from emulator.quota import Quota
from emulator.refusals import InvalidArgumentError, RefusalError, UnansweredError, at_element
from emulator.standin import EMBEDDING_SIZE, embed
from emulator.values import Request

BESIDE_EACH_OTHER = 2
"""Requests with files or objects that are worked on at a time: one of 640 objects holds some 125 MB."""


class Call(NamedTuple):
    """A request as a transport hands it on.

    Attributes:
        transport: `grpc` or `rest`.
        arrived_s: monotonic clock, when the service first saw it.
        size_bytes: of its payload.
        read: gives what it holds, or raises RefusalError.
    """

    transport: str
    arrived_s: float
    size_bytes: int
    read: Callable[[], Request]


@dataclass(frozen=True)
class ServiceSettings:
    """How the service behaves.

    Attributes:
        endpoints: those there are; every other name is NOT_FOUND.
        latency_ms: service time of an accepted request, counted from its arrival. Refusals are answered at once.
        couple_batch_mates: whether an embedding depends on the other clips of its request.
        faults: what goes wrong on purpose.
        quota_per_minute: requests accepted in any 60 s, None for no limit.
    """

    endpoints: Endpoints = DEFAULT_ENDPOINTS
    latency_ms: float = 0.0
    couple_batch_mates: bool = False
    faults: Faults = field(default_factory=Faults)
    quota_per_minute: int | None = None


class PredictionService:
    """Answers Predict for every transport. To be used from one event loop."""

    def __init__(self, settings: ServiceSettings, objects: ObjectReader, arrivals: ArrivalsLog | None = None) -> None:
        """`arrivals` stays the caller's to close, after the servers have stopped."""
        self._settings = settings
        self._faults = settings.faults
        quota = None if settings.quota_per_minute is None else Quota(settings.quota_per_minute)
        self._door = Door(self._faults, quota)
        self._clips = ClipReader(objects)
        self._arrivals = arrivals
        self._room = asyncio.Semaphore(BESIDE_EACH_OTHER)
        self._in_flight = 0
        self._arrived = 0

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """Of all endpoints there are."""
        return self._settings.endpoints.names

    async def answer(self, call: Call) -> Predictions:
        """Answers one call.

        Raises:
            RefusalError: it is refused, lost or left unanswered; the status and the message say how.
        """
        self._in_flight += 1
        self._arrived += 1
        arrival = Arrival(self._arrived, call.arrived_s, call.transport, self._in_flight)
        try:
            predictions, rest_s = await self._answer(call, arrival)
            rest_s += call.arrived_s + self._settings.latency_ms / 1000 - time.monotonic()
            if rest_s > 0:
                await asyncio.sleep(rest_s)
            return predictions
        except UnansweredError:
            await asyncio.sleep(self._faults.timeout_s)
            raise
        finally:
            self._in_flight -= 1

    async def _answer(self, call: Call, arrival: Arrival) -> tuple[Predictions, float]:
        """The answer to a request, which is logged, and how much longer than others it is to take, in seconds."""
        try:
            endpoint, request = self._read(call, arrival)
            with self._door.entered(arrival, request) as fault:
                async with self._room_for(endpoint):
                    clips = await self._clips_of(endpoint, request, arrival)
                    digests = await apart(len(clips), _digests, clips) if self._arrivals is not None else []
                    arrival.fault = arrival.fault or fault
                    self._record(arrival, grpc.StatusCode.OK, digests)
                    as_objects = endpoint.instance_format is InstanceFormat.MODEL_GARDEN
                    predictions = await apart(len(clips), self._embedded, clips, as_objects)
        except RefusalError as refusal:
            self._record(arrival, refusal.status)
            raise
        except asyncio.CancelledError:
            self._record(arrival, grpc.StatusCode.CANCELLED)
            raise
        if fault == "short":
            predictions = predictions.without_last()
        elif fault == "nan":
            embedded = [k for k in range(len(clips)) if k not in predictions.errors]
            if embedded:
                predictions = predictions.with_nan(embedded[self._faults.chosen(arrival.number, len(embedded))])
        return predictions, self._faults.slow_s if fault == "slow" else 0.0

    def _read(self, call: Call, arrival: Arrival) -> tuple[ServedEndpoint, Request]:
        self._settings.endpoints.check_size(call.size_bytes)
        request = call.read()
        arrival.instances = len(request.instances)
        if is_endpoint_name(request.endpoint):
            arrival.endpoint = request.endpoint
        return self._settings.endpoints.find(request.endpoint, call.size_bytes), request

    def _room_for(self, endpoint: ServedEndpoint) -> AbstractAsyncContextManager[object]:
        return contextlib.nullcontext() if endpoint.instance_format is InstanceFormat.RESEARCH_AUDIO else self._room

    async def _clips_of(self, endpoint: ServedEndpoint, request: Request, arrival: Arrival) -> Clips:
        """The request's clips; those that are always rejected are replaced by an error, or refuse the whole request."""

        def check_count(predictions: int) -> None:
            if self._faults.is_too_large(predictions):
                arrival.fault = "too_large"
                raise InvalidArgumentError(f"Response size too large: {predictions} predictions do not fit.")

        clips = await self._clips.read(endpoint.instance_format, request.instances, check_count)
        if not self._faults.rejects_clips:
            return clips
        rejected = await apart(len(clips), self._rejected, clips)
        if not rejected:
            return clips
        arrival.fault = "reject"
        if endpoint.instance_format is not InstanceFormat.MODEL_GARDEN:
            raise at_element(rejected[0], "the model cannot process this clip")
        error = InstanceError("The model cannot process this clip.")
        return [error if position in rejected else clip for position, clip in enumerate(clips)]

    def _rejected(self, clips: Clips) -> list[int]:
        """The positions of clips that are always rejected."""
        return [
            position
            for position, clip in enumerate(clips)
            if not isinstance(clip, InstanceError) and self._faults.rejects(clip_digest(clip), clip_digest_16_bit(clip))
        ]

    def _embedded(self, clips: Clips, as_objects: bool) -> Predictions:
        embeddings = np.zeros((len(clips), EMBEDDING_SIZE), np.float32)
        errors = {k: clip.description for k, clip in enumerate(clips) if isinstance(clip, InstanceError)}
        found = [clip for clip in clips if not isinstance(clip, InstanceError)]
        if found:
            places = [position for position in range(len(clips)) if position not in errors]
            embeddings[places] = embed(found, coupled=self._settings.couple_batch_mates)
        return Predictions(embeddings, as_objects, errors)

    def _record(self, arrival: Arrival, status: grpc.StatusCode, digests: Sequence[str] = ()) -> None:
        if self._arrivals is not None and not arrival.is_logged:
            self._arrivals.write(arrival, status.name, digests)
        arrival.is_logged = True


def _digests(clips: Clips) -> list[str]:
    return [clip_digest(clip) for clip in clips if not isinstance(clip, InstanceError)]
