"""Rows into checkpoint files as they arrive, on a thread of its own, so that neither decoding nor answers wait for storage."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
import weakref
from collections.abc import Callable

from rows.checkpoint import FileBuilder, Row
from rows.model import Receipt
from rows.store import StoreError

FLUSH_ROWS = 256
FLUSH_S = 5.0
"""A row waits at most about this long before it is stored, whatever the thread that decodes is doing."""


_LIVE: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def flush_all() -> None:
    """Stores what this process's writers hold: for a run that is being interrupted."""
    for writer in list(_LIVE):
        with contextlib.suppress(CheckpointWriteError):
            writer.flush()


class CheckpointWriteError(Exception):
    """Rows could not be stored."""


class CheckpointWriter:
    """Stores rows in the folders of their packets, and gives a receipt for what is stored.

    Args:
      run_id: of the run; its rows are in a folder of this name, in one for each packet.
      write: stores bytes under a name in the checkpoint, all of them or nothing.
      flush_rows: a packet's rows are stored when there are so many of them.
      flush_s: and when the oldest of them has waited for so long.
      clock: seconds, monotonic.

    Thread-safe. `close` must be called.
    """

    def __init__(
        self,
        run_id: str,
        write: Callable[[str, bytes], None],
        *,
        flush_rows: int = FLUSH_ROWS,
        flush_s: float = FLUSH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._write = write
        self._flush_rows = flush_rows
        self._flush_s = flush_s
        self._clock = clock
        self._changed = threading.Condition()
        self._open: dict[str, tuple[FileBuilder, float]] = {}
        self._full: list[tuple[str, FileBuilder]] = []
        self._writing = False
        self._receipts: list[Receipt] = []
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()
        _LIVE.add(self)

    def add(self, packet_id: str, segment_id: str, row: Row) -> None:
        """Takes a row; returns at once. After a write has failed, rows are dropped: the run is about to end."""
        with self._changed:
            if self._error is not None:
                return
            opened = self._open.get(packet_id)
            if opened is None:
                opened = self._open[packet_id] = FileBuilder(self._run_id), self._clock()
                self._changed.notify_all()  # the thread must know when this packet's rows are due
            builder, _ = opened
            builder.add(segment_id, row)
            if builder.rows >= self._flush_rows:
                self._take(packet_id)
                self._changed.notify_all()

    def finish(self, packet_id: str) -> None:
        """Says that no more rows of the packet come: what there is of it is stored at once."""
        with self._changed:
            if packet_id in self._open:
                self._take(packet_id)
                self._changed.notify_all()

    def receipts(self) -> list[Receipt]:
        """Receipts for rows stored since the last call. Raises CheckpointWriteError once a write has failed."""
        with self._changed:
            self.raise_error()
            receipts, self._receipts = self._receipts, []
            return receipts

    def flush(self) -> list[Receipt]:
        """Stores all that has been added, waits for it, and returns the receipts not yet returned."""
        with self._changed:
            for packet_id in list(self._open):
                self._take(packet_id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or self._closed or not (self._full or self._writing))
        return self.receipts()

    def close(self) -> None:
        """Ends the thread; what has not been flushed is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        _LIVE.discard(self)
        self._thread.join()

    def raise_error(self) -> None:
        """Raises CheckpointWriteError if a write has failed: nothing more should be paid for that cannot be kept."""
        if self._error is not None:
            if isinstance(self._error, StoreError):
                raise CheckpointWriteError(str(self._error)) from self._error
            raise CheckpointWriteError(
                f"cannot write to the checkpoint ({type(self._error).__name__})"
            ) from self._error

    def _take(self, packet_id: str) -> None:
        builder, _ = self._open.pop(packet_id)
        self._full.append((packet_id, builder))

    def _run(self) -> None:
        attempt, number = uuid.uuid4().hex[:12], 0
        while True:
            with self._changed:
                while not self._full and not self._closed:
                    due_s = self._take_due()
                    if not self._full:
                        self._changed.wait(due_s)
                if self._closed:
                    return
                packet_id, builder = self._full.pop(0)
                self._writing = True
            name = f"{self._run_id}/{packet_id}/{attempt}-{number:05d}.rows"
            number += 1
            try:
                self._write(name, builder.data())
            except Exception as error:  # noqa: BLE001  (whatever the storage raises must reach the bundle's thread)
                with self._changed:
                    self._error, self._writing = error, False
                    self._changed.notify_all()
                return
            with self._changed:
                self._receipts += builder.receipts(name)
                self._writing = False
                self._changed.notify_all()

    def _take_due(self) -> float | None:
        """Takes the packets whose oldest row has waited long enough; seconds until the next is due, None if there is none."""
        now_s = self._clock()
        for packet_id, (_, since_s) in list(self._open.items()):
            if now_s - since_s >= self._flush_s:
                self._take(packet_id)
        return min((since_s + self._flush_s - now_s for _, since_s in self._open.values()), default=None)
