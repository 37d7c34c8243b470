"""Starts the local endpoint as a process of its own that ends when the caller's does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

_READY = "listening on "
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


class LocalEndpointError(Exception):
    """The local endpoint did not come up; the message says how it ended."""


@dataclass(frozen=True, eq=False)
class LocalEndpoint:
    """A running local endpoint; a context manager that stops it.

    Attributes:
        host: `127.0.0.1:PORT`.
        endpoint_name: the endpoint that it serves.
        pid: the process's id.
    """

    host: str
    endpoint_name: str
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
    endpoint_name: str = "projects/local/locations/local/endpoints/200",
) -> LocalEndpoint:
    """Starts `python -m emulator` on a free port of 127.0.0.1 and returns when it answers (about half a second).

    It ends with this process, however that ends: its standard input is a pipe that the system closes. Its log goes to
    this process's standard error.

    Args:
        latency_ms: service time of a request, 0 to 60000.
        arrivals_log: a file to which it appends a JSON line for each request (see `emulator.arrivals`).
        endpoint_name: the one endpoint it serves.

    Raises:
        LocalEndpointError: it did not come up.
    """
    command = [sys.executable, "-m", "emulator", "--exit_with_parent", f"--endpoint={endpoint_name}"]
    command.append(f"--latency_ms={latency_ms:g}")
    if arrivals_log is not None:
        command.append(f"--arrivals_log={Path(arrivals_log).absolute()}")
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
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
        )
    except OSError as error:
        raise LocalEndpointError(f"the local endpoint could not be started: {error.strerror}") from None
    host = _await_ready(process)
    return LocalEndpoint(host, endpoint_name, process.pid, process)


def _await_ready(process: subprocess.Popen[str]) -> str:
    """Reads the line with which the process says that it listens; the address in it."""
    assert process.stdin is not None
    assert process.stdout is not None
    too_late = threading.Timer(_START_TIMEOUT_S, process.kill)
    too_late.daemon = True
    too_late.start()
    with process.stdout:
        line = process.stdout.readline()
    too_late.cancel()
    if line.startswith(_READY):
        return line.removeprefix(_READY).strip()
    process.stdin.close()
    status = process.wait()
    raise LocalEndpointError(
        f"the local endpoint did not come up: its process ended with status {status}; the lines above say why"
    )
