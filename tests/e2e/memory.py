"""Memory of a process and all its child processes together, sampled while they run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """The processes that `pid` has started, and those that they have, which still run; on Linux."""
    found: list[int] = []
    for task in _entries(_PROC / str(pid) / "task"):
        try:
            own = [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it has ended
            continue
        for child in own:
            found += [child, *children(child)]
    return found


def pss_bytes(pid: int) -> int:
    """A process's memory, with its part of what it shares with others; 0 once it has ended."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


class MemoryPeak:
    """Samples a process and its children until it is left; a context manager.

    Args:
      pid: the process.
      every_s: how often.
    """

    def __init__(self, pid: int, every_s: float = 0.2) -> None:
        self.together = 0
        """The most bytes that all of them had at a time."""
        self.parts: dict[str, int] = {}
        """What each had then: `PID command`."""
        self.samples = 0
        self._pid = pid
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            sizes = {pid: pss_bytes(pid) for pid in (self._pid, *children(self._pid))}
            together = sum(sizes.values())
            self.samples += together > 0
            if together > self.together:
                self.together = together
                self.parts = {f"{pid} {_name(pid)}": size for pid, size in sizes.items()}


def _name(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(word for word in words[1:12] if word and not word.startswith(b"\n") and b"/" not in word).decode()


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208
    except OSError:
        return []
