"""A decoding process as its parent sees it: started, given jobs, listened to, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from audio import decoder_wire as wire
from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.decoder_ring import Ring, memory_file, ring_file
from audio.decoder_wire import Bounds, Channel, Message
from audio.errors import AudioError, DecoderCrashed, DecoderMemory, DecoderTimeout
from audio.heap import MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES

_START_S = 120.0
_END_S = 10.0
_BOOTSTRAP = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import importlib, sys
sys.path[:] = sys.argv[2:]
importlib.import_module(sys.argv[1]).main()
"""
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_SET_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(TRIM_THRESHOLD_BYTES),
}
_INSTEAD = "convert the recording to WAV"


class DecodersUnusable(Exception):
    """No decoding process can be started on this machine: nothing is wrong with any recording."""


class Gone(Exception):
    """The process has ended, or was ended."""


class Idle(Exception):
    """The process has not said anything for too long."""


class DecoderProcess:
    """One decoding process. Its job's thread talks to it; any thread may `end` it.

    Args:
      settings: which clips there are.
      limits: what decoding may take.
      module: the module whose `main` the process runs.
    """

    def __init__(self, settings: ClipSettings, limits: DecoderLimits, module: str) -> None:
        """Start the process, without waiting until it can work. Raises DecodersUnusable."""
        self.jobs = 0
        """How many it was given."""
        self.is_ready = False
        """Whether it has ever said anything."""
        self.is_ended = False
        """Whether `end` was called."""
        self._lock = threading.Lock()
        self._patience_s = 2 * limits.idle_s + 10
        self._files: list[IO[bytes]] = []
        try:
            self._inbox, self._stderr, ring = memory_file(0), memory_file(0), ring_file()
            self._files += [self._inbox, self._stderr, ring]
            self.ring = Ring(ring.fileno())
            """Where the process leaves samples."""
            self._process = subprocess.Popen(
                child_command(module),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=[self._inbox.fileno(), ring.fileno()],
                cwd="/",
                env=child_environment(),
            )
        except OSError as error:
            self._free()
            raise DecodersUnusable(
                f"no decoding process can be started ({os.strerror(error.errno or 0)}); decoding needs processes of its "
                "own: check this user's limits (ulimit -a) and the free memory"
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._files += [self._process.stdin, self._process.stdout]
        read_fd, write_fd = self._process.stdout.fileno(), self._process.stdin.fileno()
        self._polls = {False: select.poll(), True: select.poll()}
        self._polls[False].register(read_fd, select.POLLIN)
        self._polls[True].register(write_fd, select.POLLOUT)
        self._channel = Channel(read_fd, write_fd, self._wait)
        setup = {
            "settings": asdict(settings),
            "limits": asdict(limits),
            "inbox": self._inbox.fileno(),
            "ring": ring.fileno(),
        }
        with contextlib.suppress(Gone, Idle):
            self.send(wire.SETUP, setup)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        with self._lock:
            return not self.is_ended and self._process.poll() is None

    def give(self, values: dict[str, Any], data: bytes | None) -> None:
        """Give it a job, whose recording is `data` unless that is None. That it is gone shows in `receive`."""
        self.jobs += 1
        self.ring.restart()
        with contextlib.suppress(Gone, Idle):
            if data is not None:
                self.fill_inbox(data)
            self.send(wire.JOB, values)

    def send(self, kind: bytes, values: Any = None) -> None:
        """Send a message. Raises Gone, Idle."""
        with self._lock:
            if self.is_ended:
                raise Gone
            try:
                self._channel.send(kind, values)
            except BrokenPipeError:
                raise Gone from None

    def receive(self, bounds: Bounds) -> list[Message]:
        """Return its next message, and those that came with it. Raises Gone, Idle, WireError."""
        with self._lock:
            if self.is_ended:
                raise Gone
            try:
                messages = self._channel.receive_some(bounds)
            except (EOFError, ConnectionError):
                raise Gone from None
        self.is_ready = True
        return messages

    def why_gone(self) -> AudioError:
        """Return, of a process that is gone, what that means for the recording that it worked on."""
        status = self._status()
        if status == -signal.SIGALRM:
            return timed_out()
        if status == -signal.SIGKILL:
            return DecoderMemory(
                "the decoding process was killed, as a system does that runs out of memory; "
                f"{_INSTEAD}, or run again with more memory"
            )
        return crashed("it hung up" if status is None else status_name(status))

    def why_not_started(self) -> DecodersUnusable:
        """End it, and return why it never came to work, of a process that is gone or idle."""
        status = self._status()
        with contextlib.suppress(OSError, ValueError):
            self._stderr.seek(0)
            lines = self._stderr.read(1 << 16).decode(errors="replace").strip().splitlines()
        said = f": {lines[-1][:300]}" if lines else ""
        ended = "it does not answer" if status is None else status_name(status)
        self.end()
        return DecodersUnusable(
            f"a decoding process cannot work ({ended}){said}; it runs {sys.executable}, and needs the same packages as "
            "this process"
        )

    def unsent(self, received: int) -> list[Message]:
        """End the process, and return what it still had to say after as many messages as were received of its job."""
        self._kill()
        with self._lock:
            if self.is_ended:
                return []
            self._process.wait()
            sent, data = self.ring.held()
        return wire.split(data)[max(0, received - sent) :]

    def end(self) -> None:
        """End the process at once, if it has not ended, and free what it took up here."""
        self._kill()
        # Whoever listens or talks to it notices at once, and lets go of the lock.
        with self._lock:
            self.is_ended = True
            self._process.wait()
            self._free()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _free(self) -> None:
        self.ring.close()
        for file in self._files:
            file.close()

    def _status(self) -> int | None:
        """Return the status that it ended with by itself; None if it has to be ended."""
        with self._lock, contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_END_S)
        return None

    def fill_inbox(self, data: bytes) -> None:
        """Leave a recording, or a part of one, for the process. Raises Gone."""
        with self._lock:
            if self.is_ended:
                raise Gone
            descriptor = self._inbox.fileno()
            os.ftruncate(descriptor, len(data))
            view, at = memoryview(data), 0
            while at < len(data):
                at += os.pwrite(descriptor, view[at:], at)

    def _wait(self, for_writing: bool) -> None:
        if not self._polls[for_writing].poll(
            1000 * (self._patience_s if self.is_ready else max(_START_S, self._patience_s))
        ):
            raise Idle


def timed_out() -> DecoderTimeout:
    """Return the error of a recording that no decoder gets to the end of."""
    return DecoderTimeout(f"decoding got no further within the time that it may take; {_INSTEAD}")


def crashed(how: str) -> DecoderCrashed:
    """Return the error of a recording on which a decoder crashed."""
    return DecoderCrashed(f"the decoder crashed on this file ({how}); {_INSTEAD}")


def status_name(status: int) -> str:
    """Return how a process ended, in words."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def child_command(module: str) -> list[str]:
    """Return what runs `main` of a module in a Python that finds the modules that this one finds."""
    folders = [folder for folder in sys.path if folder]  # without the working folder's short name
    own = str(Path(__file__).resolve().parents[1])
    path = folders if own in folders else [*folders, own]
    return [sys.executable, "-I", "-S", "-B", "-c", _BOOTSTRAP, module, *path]


def child_environment() -> dict[str, str]:
    """Return what a decoder needs of this process's environment: no tokens, no credentials."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _SET_VARIABLES
