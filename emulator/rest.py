"""The same services over HTTP: `POST /v1/{endpoint name}:predict` and jobs, JSON both ways, on loopback."""

from __future__ import annotations

import math
import re
import socket
import struct
import time
from functools import partial

import grpc
from aiohttp import web

from emulator.job_rest import answer_job_call, is_job_path
from emulator.jobs import JobService
from emulator.json_wire import HTTP_STATUS, error_json, read_json_request, response_json
from emulator.refusals import ConnectionLostError, RefusalError
from emulator.service import Call, PredictionService

_PATH = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+/endpoints/[^/:]+):predict")

_LONGEST_BODY_BYTES = 256 * 2**20
"""Far above the service's own limit, so that a request that is too long is refused in the service's words."""

_STOP_S = 0.1
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def start_rest(service: PredictionService, jobs: JobService, port: int = 0) -> tuple[web.AppRunner, int]:
    """Starts serving on 127.0.0.1 and returns the runner, to be cleaned up, with its port (a free one for 0).

    Raises:
        OSError: the port cannot be bound.
    """
    application = web.Application(client_max_size=_LONGEST_BODY_BYTES)
    application.router.add_route("*", "/{path:.*}", partial(_handle, service, jobs))
    # Handlers end with their connection, as those of gRPC do, and no line of a log is written for each request.
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True, reuse_port=False).start()
    except OSError:
        await runner.cleanup()
        raise OSError(f"port {port} of 127.0.0.1 cannot be used: taken, or not allowed") from None
    bound_port: int = runner.addresses[0][1]
    return runner, bound_port


async def _handle(service: PredictionService, jobs: JobService, request: web.Request) -> web.Response:
    arrived_s = time.monotonic()
    if is_job_path(request.path):
        return await _handle_job(jobs, request)
    match = _PATH.fullmatch(request.path)
    if match is None or request.method != "POST":
        return _refused(RefusalError(grpc.StatusCode.NOT_FOUND, "The requested URL was not found on this server."))
    body = await request.read()
    call = Call("rest", arrived_s, len(body), partial(read_json_request, match[1], body))
    try:
        predictions = await service.answer(call)
    except ConnectionLostError:
        _reset(request)
        return web.Response()
    except RefusalError as refusal:
        return _refused(refusal)
    return web.Response(body=response_json(predictions), content_type="application/json", charset="utf-8")


async def _handle_job(jobs: JobService, request: web.Request) -> web.Response:
    try:
        body = await answer_job_call(jobs, request.method, request.path, request.query, await request.read())
    except RefusalError as refusal:
        return _refused(refusal)
    return web.Response(body=body, content_type="application/json", charset="utf-8")


def _refused(refusal: RefusalError) -> web.Response:
    headers = {}
    if refusal.retry_s is not None:
        # HTTP knows whole seconds only.
        headers["Retry-After"] = str(math.ceil(refusal.retry_s))
    status = HTTP_STATUS[refusal.status]
    return web.Response(
        status=status, headers=headers, body=error_json(refusal), content_type="application/json", charset="utf-8"
    )


def _reset(request: web.Request) -> None:
    """Closes the connection with a reset, without an answer."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        request.transport.abort()
