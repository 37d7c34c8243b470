"""The local endpoint as a child: it works from anywhere, and ends when its parent does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from emulator.process import LocalEndpoint, LocalEndpointError, start_local_endpoint
from tests.emulator.calls import ENDPOINT, arrivals, calling, predict_request, wait_until

TOP = Path(__file__).resolve().parents[2]

PARENT = """
import os, time
from emulator.process import start_local_endpoint
local = start_local_endpoint()
other = os.fork() if {fork} else 0
if {fork} and other == 0:
    time.sleep(600)
print(local.host, other, flush=True)
time.sleep(600)
"""


def listens(host: str) -> bool:
    address, _, port = host.rpartition(":")
    try:
        socket.create_connection((address, int(port)), timeout=10).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it ended while it was being connected to
        return False
    return True


def answers(local: LocalEndpoint) -> bool:
    with calling(local.host) as caller:
        return caller.send(predict_request([[0.0] * 32000]).SerializeToString()).status is grpc.StatusCode.OK


@contextmanager
def parent(*, fork: bool = False) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has started a local endpoint, and its address; `fork`: with a child that keeps its pipes open."""
    command = [sys.executable, "-c", PARENT.format(fork=fork)]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        other = 0
        try:
            host, pid = process.stdout.readline().split()
            other = int(pid)
            yield process, host
        finally:
            process.kill()
            if other:
                os.kill(other, signal.SIGKILL)


def test_it_serves_until_it_is_stopped() -> None:
    with start_local_endpoint() as local:
        assert local.endpoint_name == ENDPOINT
        assert local.host.startswith("127.0.0.1:")
        assert answers(local)
    assert not listens(local.host)
    local.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_its_parent_is_killed(number: signal.Signals) -> None:
    with parent() as (process, host):
        assert listens(host)
        process.send_signal(number)
        process.wait()
        wait_until(lambda: not listens(host))


def test_it_ends_though_a_fork_of_its_parent_holds_the_pipe() -> None:
    with parent(fork=True) as (process, host):
        assert listens(host)
        process.kill()
        process.wait()
        wait_until(lambda: not listens(host))


def test_it_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("emulator", "numpy", "grpc"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    with start_local_endpoint(arrivals_log="arrivals.jsonl") as local:
        assert answers(local)
    assert len(arrivals(tmp_path / "arrivals.jsonl")) == 1


def test_it_works_where_python_ignores_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with start_local_endpoint() as local:
        assert answers(local)


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with start_local_endpoint() as local:
        assert answers(local)


@pytest.mark.parametrize("options", [{"latency_ms": -1}, {"endpoint_name": "200"}])
def test_a_child_that_does_not_come_up(options: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LocalEndpointError, match="did not come up: its process ended with status 2"):
        start_local_endpoint(**options)  # type: ignore[arg-type]
    assert "expected" in capfd.readouterr().err


def test_a_python_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/missing/python")
    with pytest.raises(LocalEndpointError, match="could not be started: No such file or directory"):
        start_local_endpoint()
