"""`python -m emulator`: serves the local endpoint until it is told to stop."""

from __future__ import annotations

import os

# Matrices here are small: numpy's BLAS threads would only wait for each other, at the expense of whoever is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import aiohttp
import numpy as np

from emulator.arrivals import ArrivalsLog
from emulator.clips import ClipReader
from emulator.grpc_server import start_grpc
from emulator.job_run import JobRunner
from emulator.job_storage import JobStorage
from emulator.jobs import JobService
from emulator.objects import ObjectReader
from emulator.options import Options, parse_options
from emulator.rest import start_rest
from emulator.service import PredictionService
from emulator.standin import CLIP_SAMPLES, MODEL_ID, embed
from emulator.tokens import TokenInfo

_FETCH_TIMEOUT_S = 30.0
_PARENT_CHECK_S = 0.5


_log = logging.getLogger("emulator")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0 told to stop, 1 could not serve); usage errors exit with 2."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="local endpoint: %(message)s")
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        print(f"local endpoint: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: Options) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    # Ctrl-C reaches a terminal's whole group: the parent, whose requests are still out, decides when its child stops.
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if options.exit_with_parent else stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        arrivals = stack.enter_context(ArrivalsLog(options.arrivals_log)) if options.arrivals_log else None
        session = await stack.enter_async_context(_session())
        tokens = TokenInfo(session, options.token_info_url) if options.token_info_url else None
        objects = ObjectReader(session, options.storage_host, tokens)
        service = PredictionService(options.service, objects, arrivals)
        # Builds the stand-in's tables, so that the first request need not wait for them.
        embed(np.zeros((1, CLIP_SAMPLES), np.float32))
        jobs = JobService(options.jobs, _runner(options, session, objects), arrivals)
        stack.push_async_callback(jobs.stop)
        server, port = await start_grpc(service, jobs, options.port)
        stack.push_async_callback(server.stop, None)
        runner, rest_port = await start_rest(service, jobs, options.rest_port)
        stack.push_async_callback(runner.cleanup)
        # Whoever started it knows the names; a person has to be told.
        names = (
            ""
            if options.exit_with_parent
            else f" as {', '.join((*service.endpoint_names, *options.jobs.models.names))}"
        )
        _log.info("a stand-in answers%s: its embeddings (%s) are NOT HeAR's", names, MODEL_ID)
        if options.exit_with_parent:
            _watch_parent(lambda: loop.call_soon_threadsafe(stopped.set))
        print(f"listening on 127.0.0.1:{port}\nREST on 127.0.0.1:{rest_port}", flush=True)
        await stopped.wait()


def _runner(options: Options, session: aiohttp.ClientSession, objects: ObjectReader) -> JobRunner | None:
    """What runs jobs, None without a storage server to read their input from."""
    if options.storage_host is None:
        return None
    storage = JobStorage(session, options.storage_host)
    return JobRunner(storage, ClipReader(objects), options.service.faults, options.jobs.faults)


def _session() -> aiohttp.ClientSession:
    """For the storage and the token server: no proxy, no .netrc, no cookies, whatever the environment says."""
    return aiohttp.ClientSession(
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S),
    )


def _watch_parent(on_end: Callable[[], object]) -> None:
    """Calls `on_end` once the parent has ended, however that happened.

    Its end of standard input's pipe closes with it. A process that the parent forked may hold that end open for longer,
    so a new parent's id is looked out for as well.
    """
    parent = os.getppid()
    ended = threading.Event()

    def watch_pipe() -> None:
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        ended.set()

    def watch_id() -> None:
        while not ended.wait(_PARENT_CHECK_S) and os.getppid() == parent:
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended for another reason
            on_end()

    threading.Thread(target=watch_pipe, daemon=True).start()
    threading.Thread(target=watch_id, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
