"""The arrivals log: one JSON line a request, written when it arrives, for tests to count and compare."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt


class ArrivalsLog:
    """Appends to a file, a line at a time, unbuffered: what arrived is on record even if this process is killed.

    A line holds `t_s` (monotonic clock, at arrival), `unix_s`, `status` (the answer's gRPC status), `in_flight`
    (requests that were being served, this one included) and `clips`: for each clip of an accepted request, in order,
    the first 16 hex digits of the SHA-256 of its 32000 little-endian float32 samples. No sample is ever written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens or creates the file, readable by its owner only; raises OSError."""
        self._file = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, t_s: float, status: str, in_flight: int, clips: npt.NDArray[np.float32]) -> None:
        """Records one request; `clips` is float32 (n, 32000), n = 0 for one that was refused."""
        line = {
            "t_s": t_s,
            "unix_s": time.time() - (time.monotonic() - t_s),
            "status": status,
            "in_flight": in_flight,
            "clips": [clip_digest(clip) for clip in clips],
        }
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def __enter__(self) -> ArrivalsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def clip_digest(clip: npt.NDArray[np.float32]) -> str:
    """Names a clip by its samples: 16 hex digits."""
    return hashlib.sha256(clip.astype("<f4", copy=False).tobytes()).hexdigest()[:16]
