"""`python -m emulator` as a command: usage errors, signals, where it listens, what it says."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.emulator.calls import calling, predict_request, routed_to

TOP = Path(__file__).resolve().parents[2]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it listens, and its address."""
    command = [sys.executable, "-m", "emulator", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=TOP, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on 127.0.0.1:"), line
            yield process, line.removeprefix("listening on ").strip()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "argument --port: '65536' is not a port: expected 0 to 65535"),
        (["--port", "-1"], "argument --port: '-1' is not a port"),
        (["--latency_ms", "-1"], "argument --latency_ms: '-1' is not a service time: expected 0 to 60000 milliseconds"),
        (["--latency_ms", "nan"], "argument --latency_ms: 'nan' is not a service time"),
        (["--latency_ms", "60001"], "argument --latency_ms: '60001' is not a service time"),
        (["--endpoint", "200"], "argument --endpoint: '200' is not an endpoint: expected projects/P/locations/L/end"),
        (["--latency", "5"], "unrecognized arguments: --latency 5"),
        (["surplus"], "unrecognized arguments: surplus"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "emulator", *arguments]
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(number: signal.Signals) -> None:
    with running() as (process, _):
        process.send_signal(number)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "stand-in" in log
        assert "NOT HeAR" in log
        assert "Traceback" not in log


def test_a_child_leaves_ctrl_c_to_its_parent() -> None:
    endpoint = "projects/p/locations/l/endpoints/7"
    with running("--exit_with_parent", "--endpoint", endpoint) as (process, host), calling(host) as caller:
        process.send_signal(signal.SIGINT)
        request = predict_request([[0.0] * 32000], endpoint).SerializeToString()
        assert caller.send(request, routed_to(endpoint)).status is grpc.StatusCode.OK
        process.communicate(timeout=30)  # closes its standard input
        assert process.returncode == 0


def test_it_listens_on_127_0_0_1_only() -> None:
    with running() as (_, host):
        port = int(host.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=10)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with running() as (_, host):
        port = host.rpartition(":")[2]
        command = [sys.executable, "-m", "emulator", "--port", port]
        result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert f"local endpoint: port {port} of 127.0.0.1 cannot be used" in result.stderr
        assert "Traceback" not in result.stderr


def test_an_arrivals_log_that_cannot_be_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emulator", "--arrivals_log", str(tmp_path / "missing" / "log")]
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr
