"""Objects fetched while earlier ones are decoded, so that storage's latency is hidden."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeAlias

from audio.fetch import ONE_GET_BYTES, is_object, open_recording
from audio.recording import Recording

THREADS = 32

Source: TypeAlias = bytes | BinaryIO | None
"""Where a decoder finds a recording: its bytes, an open seekable file, or None for a local path, which it opens itself."""


def fetch(recording: Recording) -> Source:
    """Return where a decoder finds `recording`: a small object's bytes by one request. Raises FetchError."""
    if not is_object(recording):
        return None
    file = open_recording(recording)
    return file.read() if recording.size_bytes <= ONE_GET_BYTES else file


def held_bytes(recording: Recording) -> int:
    """Return how much memory a recording takes up at most once it is fetched: the most that one request brings."""
    return min(recording.size_bytes, ONE_GET_BYTES) if is_object(recording) else 0


def fetched_bytes(source: Source) -> int:
    """Return how much of an object was fetched by now; 0 of a local file."""
    return len(source) if isinstance(source, bytes) else getattr(getattr(source, "raw", None), "fetched_bytes", 0)


class FetchAhead:
    """Fetches recordings on threads of its own, for all bundles of a process.

    Args:
      fetch_one: fetches a recording; AudioError says why it cannot.
      threads: as many requests are out at a time.
    """

    def __init__(self, fetch_one: Callable[[Recording], Source] = fetch, threads: int = THREADS) -> None:
        self._fetch = fetch_one
        self._threads = threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, recording: Recording) -> Future[Source]:
        """Begin to fetch `recording`; how much is fetched ahead is the caller's to bound."""
        if not is_object(recording):
            local: Future[Source] = Future()
            local.set_result(None)
            return local
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fetch")
            return self._pool.submit(self._fetch, recording)

    def close(self) -> None:
        """End the threads; what has not begun to be fetched is given up."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None
