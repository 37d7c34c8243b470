"""What the C library does with memory that was freed: kept while it will be needed again, given back after that."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

MMAP_THRESHOLD_BYTES: Final = 8 << 20
TRIM_THRESHOLD_BYTES: Final = 32 << 20
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let this process keep up to 32 MB of what it frees, for each of malloc's arenas, where the C library is glibc.

    Else the arrays of each block and clip, about 128 kB, go to the system and come back page by page, which is about a fifth
    of what decoding costs. Decoding processes are told the same by their environment, and variables that are set here already are heeded.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
            mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
            mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def give_back_freed_memory() -> None:
    """Gives back what the C library keeps of freed memory, where it is glibc.

    It keeps what requests took up, tens of megabytes, for each thread that made one, and gives none of it to other threads:
    what comes after a stage that sends would take its memory on top of that.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
