"""A large object read from some place on, several pieces at a time: each request's way to the storage and back hides the others'."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from audio.ranged_file import RangedFile

PIECE_BYTES: Final = 2 << 20
PIECES: Final = 4
"""That are fetched, or wait to be read."""


class AheadFile(RangedFile):
    """A seekable file that is fetched ahead of where it is read; after a seek, from there on.

    Args:
      fetch: returns the bytes from the first to the last place, both included; called on other threads.
      size_bytes: of the file.
      until: what lies at this place and behind it is fetched only when it is read.
      piece_bytes: see PIECE_BYTES.
      pieces: see PIECES.

    `readinto` raises what `fetch` raises. To be closed.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        size_bytes: int,
        until: int,
        piece_bytes: int = PIECE_BYTES,
        pieces: int = PIECES,
    ) -> None:
        super().__init__(size_bytes)
        self._fetch = fetch
        self._until = min(until, size_bytes)
        self._piece_bytes = piece_bytes
        self._pieces = pieces
        self._pool = ThreadPoolExecutor(pieces, thread_name_prefix="read-ahead")
        self._coming: deque[Future[bytes]] = deque()
        self._fetched_to = 0
        self._piece = memoryview(b"")
        """What is left of the piece that is being read."""
        self._piece_at = 0
        """Where that begins."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size_bytes:
            return 0
        if self._piece_at != self._position:
            self._begin_anew()
        if not self._piece:
            self._fetch_ahead()
            self._piece = memoryview(self._coming.popleft().result())
            self._fetch_ahead()
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._position += count
        self._piece_at = self._position
        return count

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _begin_anew(self) -> None:
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        self._piece = memoryview(b"")
        self._piece_at = self._fetched_to = self._position

    def _fetch_ahead(self) -> None:
        while len(self._coming) < self._pieces and (self._fetched_to < self._until or not self._coming):
            stop = min(self._fetched_to + self._piece_bytes, self._size_bytes)
            if stop <= self._fetched_to:
                return
            self._coming.append(self._pool.submit(self._fetch, self._fetched_to, stop - 1))
            self._fetched_to = stop
