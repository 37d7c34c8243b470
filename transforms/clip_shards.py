"""Clips written down for a batch prediction job: lines of JSON in shards on Cloud Storage, and an index beside each.

Lines are made on the caller's thread, and uploaded on others while later clips are decoded: a few shards at a time, in turn, as each
upload waits for an answer after every few megabytes.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from endpoint.items import ClipObject
from endpoint.job_lines import LineWriter
from endpoint.results import Outcome
from endpoint.settings import InstanceFormat
from rows import objects
from rows.pending import PendingClip, encode_index
from transforms import job_files
from transforms.outbox import Count, OnDone
from transforms.packet_work import Ticket
from transforms.staged_objects import staging_error

SHARD_BYTES: Final = 128 << 20
"""A shard is ended by the clip that makes it as long: at some 400 clips."""
LANES: Final = 6
"""Shards that are uploaded at a time."""
_PIECE_BYTES: Final = 1 << 20
_PIECES: Final = 1
"""Of a shard, that waits for its upload while the next one is filled."""
_UPLOAD_BYTES: Final = 2 << 20
"""That a request uploads."""
_WRITTEN: Final = Outcome((None,), requests=0, retries=0)


class Shard(NamedTuple):
    """A shard that is complete, with its index."""

    name: str
    clips: int
    size_bytes: int


@dataclass(slots=True)
class _Open:
    """A shard that is being written."""

    name: str
    file: objects.ObjectWriter
    clips: list[PendingClip] = field(default_factory=list)
    size_bytes: int = 0


class _Lane:
    """Shards one after the other, uploaded on a thread of their own."""

    def __init__(self, folder: str, shard_bytes: int) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._open: _Open | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clip-shards")
        self._room = threading.Semaphore(_PIECES)
        self.error: Exception | None = None
        self.shards: list[Shard] = []
        """Those that are complete."""

    def add(self, line: bytes, clip: PendingClip) -> bool:
        """Appends a line; whether others should have their turn. Blocks while too much waits for its upload."""
        if self._open is None:
            name = uuid.uuid4().hex
            file = objects.ObjectWriter(job_files.written_shard(self._folder, name), _UPLOAD_BYTES)
            self._open = _Open(name, file)
        shard = self._open
        shard.clips.append(clip)
        shard.size_bytes += len(line)
        self._held.append(line)
        self._held_bytes += len(line)
        if shard.size_bytes >= self._shard_bytes:
            self._end(shard)
        elif self._held_bytes >= _PIECE_BYTES:
            self._upload_held(shard)
        return not self._held

    def flush(self) -> None:
        """Ends the shard that is open."""
        if self._open is not None:
            self._end(self._open)

    def wait(self) -> None:
        """Waits until all is on Cloud Storage, or something has failed."""
        self._pool.shutdown()

    def abandon(self) -> None:
        """Begins no more uploads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _upload_held(self, shard: _Open) -> None:
        piece, self._held, self._held_bytes = b"".join(self._held), [], 0
        self._room.acquire()
        self._pool.submit(self._do, shard.file.write, piece).add_done_callback(lambda _: self._room.release())

    def _end(self, shard: _Open) -> None:
        self._upload_held(shard)
        self._open = None
        self._pool.submit(self._do, self._complete, shard)

    def _complete(self, shard: _Open) -> None:
        shard.file.close()
        index = objects.blob_at(job_files.index(self._folder, shard.name))
        objects.write_new(index, encode_index(shard.clips))
        self.shards.append(Shard(shard.name, len(shard.clips), shard.size_bytes))

    def _do(self, what: Callable[..., object], *arguments: object) -> None:
        """On the uploading thread: after an error nothing is uploaded any more."""
        if self.error is None:
            try:
                what(*arguments)
            except Exception as error:  # noqa: BLE001 - raised again on the caller's thread
                self.error = error


class ClipShards:
    """An outbox (see `outbox.ClipOutbox`) that writes clips down.

    Args:
      folder: the run's, `gs://bucket/.../`.
      instance_format: of the model.
      on_done: called with each clip's ticket once its line is on its way: its outcome has no result, for a job is to give that.
      count: told of clips that were written, and of samples that were clipped.
      shard_bytes: see SHARD_BYTES.

    For one thread. `add` and `flush` raise StagingError where Cloud Storage fails for too long or refuses.
    """

    def __init__(
        self,
        folder: str,
        instance_format: InstanceFormat,
        on_done: OnDone[Ticket],
        count: Count,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._folder = folder
        self._lines = LineWriter(instance_format)
        self._on_done = on_done
        self._count = count
        self._lanes = deque(_Lane(folder, shard_bytes) for _ in range(LANES))
        """The first one has its turn."""

    def add(self, ticket: Ticket, samples: npt.NDArray[np.float32]) -> None:
        """Writes a clip down, float32 of shape (32000,). Blocks while too much waits for its upload."""
        self._raise_error()
        line = self._lines.line(samples)
        if self._lanes[0].add(line.data, PendingClip.of(line.digest, ticket.segment_id, ticket.row)):
            self._lanes.rotate(-1)
        self._count("written", 1)
        if line.clipped_samples:
            self._count("clipped_samples", line.clipped_samples)
        self._on_done([ticket], _WRITTEN)

    def add_object(self, _ticket: Ticket, _item: ClipObject) -> NoReturn:
        """A job gets samples only."""
        raise NotImplementedError

    def flush(self) -> None:
        """Ends the shards that are open, and waits until all is on Cloud Storage."""
        for lane in self._lanes:
            lane.flush()
        for lane in self._lanes:
            lane.wait()
        self._raise_error()

    def wait(self, at_most_s: float | None = None) -> None:
        """Returns: `flush` has waited."""

    def abandon(self, *, wait_s: float) -> None:  # noqa: ARG002 - nothing is paid for yet
        """Lets go of what was not uploaded; what was is swept with the run's folder, and so is what is just being uploaded."""
        for lane in self._lanes:
            lane.abandon()
        for lane in self._lanes:
            lane.wait()

    def shards(self) -> list[Shard]:
        """Those that are complete, after `flush`."""
        return [shard for lane in self._lanes for shard in lane.shards]

    def _raise_error(self) -> None:
        error = next((lane.error for lane in self._lanes if lane.error is not None), None)
        if error is not None:
            bucket, _ = objects.split(self._folder)
            raise staging_error(error, bucket, "writing", "storage.objects.create") from None
