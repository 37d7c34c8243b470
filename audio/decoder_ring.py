"""The memory that a decoding process and its parent share: clips' samples, and messages that are not sent yet.

Samples in shared memory are half as dear as through a pipe. Messages are sent some at a time, since waking the parent for
each is dear, too; so that none is lost when the process dies, they wait here.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from audio.clips import CLIP_SAMPLES

SLOTS: Final = 8
"""How many clips a process may be ahead of its parent, which may itself have taken as many that nobody has asked for yet."""
TAKEN_AT_ONCE: Final = SLOTS // 2
"""The parent says so when it has taken at least this many, so that a job of some clips needs no word about them."""

_SLOT_BYTES = -(-4 * CLIP_SAMPLES // 4096) * 4096
_HELD_BYTES = 65536
_ALL_BYTES = SLOTS * _SLOT_BYTES + _HELD_BYTES
_HELD_HEADER = struct.Struct("<II")
"""How many bytes of messages follow, and how many messages came before them."""


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
    return memory_file(_ALL_BYTES, is_fixed=True)


class Ring:
    """Slots of a clip each, used in turn: both sides count for themselves. And the messages that are held back."""

    def __init__(self, descriptor: int) -> None:
        memory = memoryview(mmap.mmap(descriptor, _ALL_BYTES))
        slots = np.frombuffer(memory[: SLOTS * _SLOT_BYTES], np.float32).reshape(SLOTS, -1)
        self._slots = [slot[:CLIP_SAMPLES] for slot in slots]
        self._next = 0
        self._held = memory[SLOTS * _SLOT_BYTES :]
        self._held_bytes = 0

    def restart(self) -> None:
        """Begin with the first slot again, as the other side does at the same job: few slots stay in the cores' caches."""
        self._next = 0

    @property
    def slot(self) -> npt.NDArray[np.float32]:
        """The next slot, float32 of shape (32000,): shared memory, to be written only when it has been taken."""
        return self._slots[self._next]

    def go_on(self) -> None:
        """Go on to the slot after the next one."""
        self._next = (self._next + 1) % SLOTS

    def take(self) -> npt.NDArray[np.float32]:
        """Return a copy of the next slot's samples, and go on."""
        samples = self.slot.copy()
        self.go_on()
        return samples

    def hold(self, message: bytes) -> bool:
        """Keep a message after those that are held; return whether there was room."""
        at = _HELD_HEADER.size + self._held_bytes
        if at + len(message) > _HELD_BYTES:
            return False
        self._held[at : at + len(message)] = message
        self._held_bytes += len(message)
        self._held[:4] = self._held_bytes.to_bytes(4, "little")
        return True

    def release(self, sent: int) -> None:
        """Keep no message any more: so many have been sent."""
        self._held[:4] = bytes(4)
        self._held[4:8] = sent.to_bytes(4, "little")
        self._held_bytes = 0

    def held(self) -> tuple[int, bytes]:
        """Return how many messages came before those that are held, and those."""
        size, sent = _HELD_HEADER.unpack_from(self._held)
        return sent, bytes(self._held[_HELD_HEADER.size : _HELD_HEADER.size + size])

    def close(self) -> None:
        """Free the memory, or as soon as nobody copies out of it any more."""
        self._slots = []
        self._held = memoryview(bytes(_HELD_HEADER.size))
