"""`python -m emulator`: serves the local endpoint until it is told to stop."""

from __future__ import annotations

import argparse
import os

# Matrices here are small: numpy's BLAS threads would only wait for each other, at the expense of whoever is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import contextlib
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from emulator.arrivals import ArrivalsLog
from emulator.rules import is_endpoint_name
from emulator.service import DEFAULT_ENDPOINT_NAME, PredictionService, ServiceSettings, start_server

MAX_LATENCY_MS = 60_000
"""The real service gives up after 60 s, whatever the client asks."""

_PARENT_CHECK_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0 told to stop, 1 could not serve); usage errors exit with 2."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="local endpoint: %(message)s")
    try:
        with contextlib.ExitStack() as stack:
            arrivals = stack.enter_context(ArrivalsLog(options.arrivals_log)) if options.arrivals_log else None
            service = PredictionService(ServiceSettings(options.endpoint, options.latency_ms), arrivals)
            asyncio.run(_serve(service, options.port, exit_with_parent=options.exit_with_parent))
    except OSError as error:
        print(f"local endpoint: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(service: PredictionService, port: int, *, exit_with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    # Ctrl-C reaches a terminal's whole group: the parent, whose requests are still out, decides when its child stops.
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if exit_with_parent else stopped.set)
    server, bound_port = await start_server(service, port)
    if exit_with_parent:
        _watch_parent(lambda: loop.call_soon_threadsafe(stopped.set))
    print(f"listening on 127.0.0.1:{bound_port}", flush=True)
    await stopped.wait()
    await server.stop(grace=None)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="A local HeAR endpoint on 127.0.0.1. Its embeddings come from a stand-in; it is not HeAR.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default: a free one)")
    parser.add_argument(
        "--latency_ms", type=_latency_ms, default=0.0, metavar="N", help="service time of a request (default: 0)"
    )
    parser.add_argument("--arrivals_log", metavar="FILE", help="append a JSON line for each request")
    parser.add_argument(
        "--endpoint",
        type=_endpoint,
        default=DEFAULT_ENDPOINT_NAME,
        metavar="NAME",
        help="name of the endpoint to serve (default: %(default)s)",
    )
    parser.add_argument(
        "--exit_with_parent", action="store_true", help="stop when standard input closes or the parent ends"
    )
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: expected 0 to 65535")


def _latency_ms(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and 0 <= value <= MAX_LATENCY_MS:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a service time: expected 0 to {MAX_LATENCY_MS} milliseconds")


def _endpoint(text: str) -> str:
    if is_endpoint_name(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not an endpoint: expected projects/P/locations/L/endpoints/E")


if __name__ == "__main__":
    sys.exit(main())
