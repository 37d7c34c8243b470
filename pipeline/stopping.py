"""Ctrl-C and SIGTERM: what was answered is stored, nothing stays staged, one line says so, and nothing goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from transforms.interruption import INTERRUPTION
from transforms.worker_stop import WorkerStop

INTERRUPTED = 130
"""Exit status, as shells have it for a command that Ctrl-C ended."""
INTERRUPTED_TEXT = "interrupted: what was answered is in the checkpoint; the same command goes on from there"

_DECODERS = frozenset({"audio.reader", "soundfile"})
"""The modules whose functions decoders call back."""
_STORED_WITHIN_S = 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], None]


def _handle(handler: _Handler) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


@contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    """While the context is open, signals go to `handler`; one that it has put in its place stays."""
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)


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


def _say_no_more() -> None:
    """Keeps Beam's threads from printing what they make of workers that end."""
    threading.excepthook = lambda _: None
    logging.disable()


def _end_descendants() -> None:
    _say_no_more()
    # Or they would print pages about the connection that they have lost. Children first: a second signal may cut this
    # short, and those whose parents have ended are no longer found.
    for pid in reversed(_descendants()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_within_decoder(frame: FrameType | None) -> bool:
    """Whether a decoder written in C has called what is being executed, or is about to return from it."""
    while frame is not None:
        if frame.f_globals.get("__name__") in _DECODERS:
            return True
        frame = frame.f_back
    return False


def _leave(text: str) -> NoReturn:
    # os.write, since a signal may have come in the middle of a print.
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode(errors="replace"))
    os._exit(INTERRUPTED)


def _leave_uncleaned(staged_in: str | None) -> _Handler:
    def handler(_number: int, _frame: FrameType | None) -> None:
        _end_descendants()
        left = f"; staged clips may be left in {staged_in} until the next run on it" if staged_in else ""
        _leave(f"{INTERRUPTED_TEXT}{left}")

    return handler


@contextmanager
def stopping(*, staged_in: str | None = None) -> Iterator[None]:
    """While the context is open, SIGTERM is taken as Ctrl-C is: as KeyboardInterrupt, once.

    An exception raised within a decoder would not leave it: to libsndfile and FFmpeg the file would seem to end there.
    So it is raised by whoever works on the clips, before the next one (`INTERRUPTION`).

    A second signal ends the process at once, whatever it is doing: this holds beyond the context, until the process ends.

    Args:
      staged_in: the folder of the clips that may then be left staged.
    """

    def interrupt(_number: int, frame: FrameType | None) -> None:
        _handle(_leave_uncleaned(staged_in))
        INTERRUPTION.ask()
        if not _is_within_decoder(frame):
            raise KeyboardInterrupt

    # Not at the end: threads of a run that was interrupted may still look.
    INTERRUPTION.forget()
    with _handled_by(interrupt):
        yield


@contextmanager
def stopping_workers(clean_up: Callable[[], None], *, staged_in: str | None = None) -> Iterator[None]:
    """As `stopping`, inside of it, while Beam's worker processes are at work; Beam would wait for them for ever.

    The workers must be started inside of the context. The first signal has them store what they hold, ends them, calls
    `clean_up`, which prints at most, and leaves.
    """
    workers = WorkerStop()

    def leave(_number: int, _frame: FrameType | None) -> None:
        _handle(_leave_uncleaned(staged_in))
        _say_no_more()
        have_stored = workers.tell(_STORED_WITHIN_S)
        _end_descendants()
        with contextlib.suppress(Exception):
            clean_up()
        workers.close()
        held = "" if have_stored else " (but for what worker processes still held)"
        _leave(f"{INTERRUPTED_TEXT}{held}")

    with contextlib.closing(workers), _handled_by(leave):
        yield
