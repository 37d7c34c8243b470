"""The gRPC service: Predict of google.cloud.aiplatform.v1.PredictionService, answered by the stand-in.

Requests wait out their service time on one event loop, so that hundreds cost no threads; their embeddings are computed
one after another on the same loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from emulator.arrivals import ArrivalsLog
from emulator.messages import SERVICE_NAME
from emulator.refusals import RefusalError
from emulator.rules import accepted_clips
from emulator.standin import CLIP_SAMPLES, MODEL_ID, embed
from emulator.wire import response_bytes, response_names

DEFAULT_ENDPOINT_NAME = "projects/local/locations/local/endpoints/200"
DEPLOYED_MODEL_ID = "1"
MODEL_NAME = f"projects/local/locations/local/models/{MODEL_ID}"

_SERVER_OPTIONS = (
    # Far above the service's own limit, so that a request that is too long is refused by the service and not by gRPC.
    ("grpc.max_receive_message_length", 256 * 2**20),
    ("grpc.max_send_message_length", -1),
    # A port that is taken is an error, not a port shared with whoever took it.
    ("grpc.so_reuseport", 0),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceSettings:
    """How the service behaves.

    Attributes:
        endpoint_name: the one endpoint there is; every other name is NOT_FOUND.
        latency_ms: service time of an accepted request, counted from its arrival. Refusals are answered at once.
    """

    endpoint_name: str = DEFAULT_ENDPOINT_NAME
    latency_ms: float = 0.0


class PredictionService:
    """Answers Predict; takes and gives raw bytes. To be used from one event loop."""

    def __init__(self, settings: ServiceSettings, arrivals: ArrivalsLog | None = None) -> None:
        """`arrivals` stays the caller's to close, after the server has stopped."""
        self._settings = settings
        self._arrivals = arrivals
        self._in_flight = 0
        self._names = response_names(
            deployed_model_id=DEPLOYED_MODEL_ID,
            model=MODEL_NAME,
            model_version_id="1",
            model_display_name=MODEL_ID,
        )

    @property
    def endpoint_name(self) -> str:
        """The one endpoint there is."""
        return self._settings.endpoint_name

    async def predict(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Answers one call; `data` and the result are serialised messages."""
        arrived_s = time.monotonic()
        self._in_flight += 1
        try:
            try:
                answer = self._answer(data, context.invocation_metadata() or (), arrived_s)
            except RefusalError as refusal:
                await context.abort(refusal.status, str(refusal))
            rest_s = arrived_s + self._settings.latency_ms / 1000 - time.monotonic()
            if rest_s > 0:
                await asyncio.sleep(rest_s)
            return answer
        finally:
            self._in_flight -= 1

    def _answer(self, data: bytes, metadata: Iterable[tuple[str, str | bytes]], arrived_s: float) -> bytes:
        """The response to a request, which is logged first, whether it is accepted or refused (RefusalError)."""
        try:
            clips = accepted_clips(data, metadata, self.endpoint_name)
        except RefusalError as refusal:
            self._record(arrived_s, refusal.status, np.empty((0, CLIP_SAMPLES), np.float32))
            raise
        self._record(arrived_s, grpc.StatusCode.OK, clips)
        return response_bytes(embed(clips), self._names)

    def _record(self, arrived_s: float, status: grpc.StatusCode, clips: npt.NDArray[np.float32]) -> None:
        if self._arrivals is not None:
            self._arrivals.write(arrived_s, status.name, self._in_flight, clips)


async def start_server(service: PredictionService, port: int = 0) -> tuple[grpc.aio.Server, int]:
    """Starts serving on 127.0.0.1 and returns the server with its port (a free one for 0).

    Raises:
        OSError: the port cannot be bound.
    """
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(service.predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    try:
        bound_port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        raise OSError(f"port {port} of 127.0.0.1 cannot be used: taken, or not allowed") from None
    # Builds the stand-in's tables, so that the first request need not wait for them.
    embed(np.zeros((1, CLIP_SAMPLES), np.float32))
    await server.start()
    _log.info("a stand-in answers as %s: its embeddings (%s) are NOT HeAR's", service.endpoint_name, MODEL_ID)
    return server, bound_port
