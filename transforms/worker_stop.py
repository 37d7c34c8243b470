"""How worker processes are told to stop, so that they store what they hold: by a named pipe that the launcher opens.

A signal would not do: only a process's main thread, which is Beam's, can say what becomes of one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rows.writer import flush_all

_PATH: Final = "HEAR_PIPELINE_STOP"
_CHECK_S: Final = 0.05
STOPPED: Final = 130
"""Exit status of a worker that was told to stop."""

_watching = threading.Lock()


class WorkerStop:
    """The launcher's side: made before workers are started, which find it by their environment."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hear-pipeline-"))
        self._pipe = self._folder / "stop"
        os.mkfifo(self._pipe, 0o600)
        os.environ[_PATH] = str(self._pipe)

    def tell(self, within_s: float) -> bool:
        """Tells the workers to store what they hold and to end; returns whether all did so in time."""
        try:
            pipe = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody listens
            return True
        try:
            deadline_s = time.monotonic() + within_s
            while time.monotonic() < deadline_s:
                try:
                    os.write(pipe, b"\0")
                except BrokenPipeError:  # all who listened have ended
                    return True
                except BlockingIOError:
                    pass
                time.sleep(_CHECK_S)
            return False
        finally:
            os.close(pipe)

    def close(self) -> None:
        """Removes the pipe."""
        os.environ.pop(_PATH, None)
        shutil.rmtree(self._folder, ignore_errors=True)


def stop_when_told(leave: Callable[[int], object] = os._exit) -> None:
    """In a worker process: from now on, once it is told to stop, what its writers hold is stored, and it ends."""
    path = os.environ.get(_PATH)
    if path and _watching.acquire(blocking=False):
        threading.Thread(target=_watch, args=(path, leave), name="worker-stop", daemon=True).start()


def _watch(path: str, leave: Callable[[int], object]) -> None:
    with contextlib.suppress(OSError):  # removed: the run is over
        pipe = os.open(path, os.O_RDONLY)  # blocks until the launcher opens it
        try:
            flush_all()
        finally:
            leave(STOPPED)
            os.close(pipe)
    _watching.release()
