"""Ctrl-C and SIGTERM: what was answered is stored, one line says so, and nothing goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status, as shells have it for a command that Ctrl-C ended."""
INTERRUPTION = "interrupted: the rows that were stored are in the checkpoint"


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _descendants() -> list[int]:
    """Processes that this one has started, and those that they have started; none where there is no /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _leave_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    threading.excepthook = lambda _: None  # of the threads that wait for the workers
    for pid in _descendants():  # or they would print pages about the connection that they have lost
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # os.write, since a signal may have come in the middle of a print.
    os.write(sys.stderr.fileno(), f"\n{INTERRUPTION}, but for those that its worker processes still held\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def stopping(*, worker_processes: bool) -> Iterator[None]:
    """While the context is open, SIGTERM is taken as Ctrl-C is.

    With worker processes the command leaves at once and takes them along: Beam would wait for them for ever.
    """
    handler = _leave_at_once if worker_processes else _interrupt
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
