"""Starts the local endpoint as a process of its own that ends when the caller's does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from emulator.endpoints import DEFAULT_AUDIO_ENDPOINT, DEFAULT_GARDEN_ENDPOINT, DEFAULT_URI_ENDPOINT
from emulator.job_rules import DEFAULT_GARDEN_MODEL, DEFAULT_MODEL

_READY = ("listening on ", "REST on ")
_START_TIMEOUT_S = 60.0

_KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(64 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""For glibc: arrays of half a megabyte, given back and fetched anew for each request, cost a quarter of its CPU time."""

_STOP_TIMEOUT_S = 5.0


class LocalEndpointError(Exception):
    """The local endpoint did not come up; the message says how it ended."""


@dataclass(frozen=True, eq=False)
class LocalEndpoint:
    """A running local endpoint; a context manager that stops it.

    Attributes:
        host: `127.0.0.1:PORT` of gRPC.
        rest_host: `127.0.0.1:PORT` of REST.
        endpoint_name: the endpoint for raw audio.
        uri_endpoint: the endpoint for object URIs.
        garden_endpoint: the endpoint for the Model Garden format.
        model: the model of batch prediction jobs for raw audio.
        garden_model: the model of batch prediction jobs for the Model Garden format.
        pid: the process's id.
    """

    host: str
    rest_host: str
    endpoint_name: str
    uri_endpoint: str
    garden_endpoint: str
    model: str
    garden_model: str
    pid: int
    _process: subprocess.Popen[str] = field(repr=False)

    def stop(self) -> None:
        """Ends the process and waits for it; requests it still serves are cut off. Harmless when called again."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> LocalEndpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def start_local_endpoint(
    latency_ms: float = 0,
    arrivals_log: str | os.PathLike[str] | None = None,
    endpoint_name: str = DEFAULT_AUDIO_ENDPOINT,
    *,
    uri_endpoint: str = DEFAULT_URI_ENDPOINT,
    garden_endpoint: str = DEFAULT_GARDEN_ENDPOINT,
    model: str = DEFAULT_MODEL,
    garden_model: str = DEFAULT_GARDEN_MODEL,
    options: Sequence[str] = (),
) -> LocalEndpoint:
    """Starts `python -m emulator` on a free port of 127.0.0.1 and returns when it answers (about half a second).

    It ends with this process, however that ends: its standard input is a pipe that the system closes. Its log goes to
    this process's standard error.

    Args:
        latency_ms: service time of a request, 0 to 60000.
        arrivals_log: a file to which it appends a JSON line for each request (see `emulator.arrivals`).
        endpoint_name: its endpoint for raw audio.
        uri_endpoint: its endpoint for object URIs.
        garden_endpoint: its endpoint for the Model Garden format.
        model: its model of batch prediction jobs for raw audio.
        garden_model: its model of batch prediction jobs for the Model Garden format.
        options: what else `python -m emulator` takes, such as `--faults=429=0.1`.

    Raises:
        LocalEndpointError: it did not come up.
    """
    command = [sys.executable, "-m", "emulator", "--exit_with_parent", f"--latency_ms={latency_ms:g}"]
    command += [f"--endpoint={endpoint_name}", f"--uri_endpoint={uri_endpoint}", f"--garden_endpoint={garden_endpoint}"]
    command += [f"--model={model}", f"--garden_model={garden_model}"]
    if arrivals_log is not None:
        command.append(f"--arrivals_log={Path(arrivals_log).absolute()}")
    command += options
    # This checkout's or installation's own package, wherever the caller stands and whatever lies there.
    packages = str(Path(__file__).resolve().parents[1])
    search_path = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=packages,
            env={**_KEEP_FREED_MEMORY, **os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
        )
    except OSError as error:
        raise LocalEndpointError(f"the local endpoint could not be started: {error.strerror}") from None
    host, rest_host = _await_ready(process)
    names = endpoint_name, uri_endpoint, garden_endpoint, model, garden_model
    return LocalEndpoint(host, rest_host, *names, process.pid, process)


def _await_ready(process: subprocess.Popen[str]) -> list[str]:
    """Reads the lines with which the process says that it listens; the addresses in them."""
    assert process.stdin is not None
    assert process.stdout is not None
    too_late = threading.Timer(_START_TIMEOUT_S, process.kill)
    too_late.daemon = True
    too_late.start()
    with process.stdout:
        lines = [process.stdout.readline() for _ in _READY]
    too_late.cancel()
    if all(map(str.startswith, lines, _READY)):
        return [line.removeprefix(ready).strip() for line, ready in zip(lines, _READY, strict=True)]
    process.stdin.close()
    status = process.wait()
    raise LocalEndpointError(
        f"the local endpoint did not come up: its process ended with status {status}; the lines above say why"
    )
