"""The memory in which a decoding process leaves clips' samples for its parent: half as dear as a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from audio.clips import CLIP_SAMPLES

SLOTS: Final = 8
"""How many clips a process may be ahead of its parent."""
TAKEN_AT_ONCE: Final = SLOTS // 2
"""The parent says so when it has taken this many, so that a job of some clips needs no word about them."""

_SLOT_BYTES = -(-4 * CLIP_SAMPLES // 4096) * 4096


def memory_file(size_bytes: int, *, is_fixed: bool = False) -> IO[bytes]:
    """Return a file in memory, where the system has such; if `is_fixed`, nobody can change its size any more."""
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by whoever called
    os.ftruncate(file.fileno(), size_bytes)
    if is_fixed:
        # Else a process that runs wild could make its parent die of reading beyond the end.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return file


def ring_file() -> IO[bytes]:
    """Return the file that parent and child share."""
    return memory_file(SLOTS * _SLOT_BYTES, is_fixed=True)


class Ring:
    """Slots of a clip each, used in turn; both sides count for themselves."""

    def __init__(self, descriptor: int) -> None:
        memory = mmap.mmap(descriptor, SLOTS * _SLOT_BYTES)
        slots = np.frombuffer(memory, np.float32).reshape(SLOTS, -1)
        self._slots = [slot[:CLIP_SAMPLES] for slot in slots]
        self._next = 0

    def put(self, samples: npt.NDArray[np.float32]) -> None:
        """Leave a clip's samples in the next slot, which must have been taken."""
        self._slots[self._next][:] = samples
        self._next = (self._next + 1) % SLOTS

    def take(self) -> npt.NDArray[np.float32]:
        """Return a copy of the next slot's samples."""
        samples = self._slots[self._next].copy()
        self._next = (self._next + 1) % SLOTS
        return samples

    def close(self) -> None:
        """Free the memory, or as soon as nobody copies out of it any more."""
        self._slots = []
