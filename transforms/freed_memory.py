"""Memory that was freed, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def give_back_freed_memory() -> None:
    """Gives back what the C library keeps of freed memory, where it is glibc.

    It keeps what requests took up, tens of megabytes, for each thread that made one, and gives none of it to other threads:
    what comes after a stage that sends would take its memory on top of that.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
