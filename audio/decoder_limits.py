"""What a decoding process may take: of time, of memory, and of what it has no need of at all."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_LIBRARIES_BYTES = 512 << 20
"""Address space that loading further libraries may take."""
_BLOATED_BYTES = 128 << 20
_FILES = 64
_PRECISION = 0.02
"""The part of the time limit by which a process may be ended too early."""
_OOM_SCORE = 500
_NO_NEW_PRIVILEGES = 38


@dataclass(frozen=True)
class DecoderLimits:
    """What decoding may take. Wrong values raise ValueError with a message for the user."""

    idle_s: float = 60.0
    """Seconds of decoding without any sign of progress."""
    memory_bytes: int = 1 << 30
    """Memory of a decoding process, beyond what it takes up before it decodes anything."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.idle_s) and self.idle_s > 0):
            raise ValueError(f"idle_s is {self.idle_s!r}; expected a positive number of seconds")
        if self.memory_bytes <= 0:
            raise ValueError(f"memory_bytes is {self.memory_bytes!r}; expected a positive number of bytes")


class Timer:
    """Ends this process by SIGALRM when decoding gets no further, even within a library that never returns."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._next_s = 0.0
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Whoever started this process may have held the signal back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def start(self) -> None:
        """Count from now on, or from a moment ago: this is called often, and setting a timer is dear."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            signal.setitimer(signal.ITIMER_REAL, self._idle_s)
            self._next_s = now_s + self._idle_s * _PRECISION

    def stop(self) -> float:
        """Count no more; return the seconds that were left, 0 if none were counted."""
        self._next_s = 0.0
        return signal.setitimer(signal.ITIMER_REAL, 0)[0]

    def go_on(self, left_s: float) -> None:
        """Count on from what `stop` returned."""
        signal.setitimer(signal.ITIMER_REAL, left_s)


class Memory:
    """Bounds this process's memory, when made: beyond what it takes up now."""

    def __init__(self, memory_bytes: int) -> None:
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._statm = -1
        self._bloated_bytes = self._resident_bytes() + min(_BLOATED_BYTES, memory_bytes // 2)
        taken = _status_bytes()
        # The data limit leaves out libraries' code, which costs nothing; not every system heeds it.
        for kind, name, more in (
            (resource.RLIMIT_DATA, "VmData", memory_bytes),
            (resource.RLIMIT_AS, "VmSize", memory_bytes + _LIBRARIES_BYTES),
        ):
            if name in taken:
                _limit(kind, taken[name] + more)

    def is_bloated(self) -> bool:
        """Whether much more memory stays taken up than before anything was decoded."""
        return self._resident_bytes() > self._bloated_bytes

    def _resident_bytes(self) -> int:
        """Return the memory that this process takes up now; 0 where the system does not say."""
        if self._statm < 0:
            return 0
        return int(os.pread(self._statm, 256, 0).split()[1]) * resource.getpagesize()


def give_up_rights() -> None:
    """Do without core dumps, written files, many open files and new privileges; be what is ended when memory is short."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _status_bytes() -> dict[str, int]:
    """Return the sizes in /proc/self/status."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines) if "kB" in value
    }


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (value, value))
