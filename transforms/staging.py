"""Staging of clips: written to a bucket while later ones are decoded, deleted while later ones are answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from audio.fetch import storage_client, widen_pool
from endpoint.items import ClipObject
from rows.objects import RETRY_FOR_S
from transforms import staged_objects
from transforms.staged_objects import (
    ClientFactory,
    StagingError,
    StagingRefused,
    staging_error,
)
from transforms.staging_area import StagingArea

if TYPE_CHECKING:
    from google.cloud import storage

__all__ = ["Staged", "Stager", "StagingArea", "StagingError", "StagingRefused", "StagingStats", "prove_rights"]

_PENDING_UPLOADS_PER_THREAD = 2
_PENDING_REMOVALS = 20_000
"""Names only, about 300 bytes each: answers to 30 requests of 640 objects can come at once."""


@dataclass(frozen=True)
class StagingStats:
    """What a stager has done so far. Objects whose removal was asked for count as removed or failed once that is over."""

    staged_objects: int = 0
    staged_bytes: int = 0
    failed_uploads: int = 0
    removed_objects: int = 0
    failed_removals: int = 0


class Staged:
    """A clip that is being written to the bucket, or was."""

    def __init__(self, target: ClipObject, upload: Future[StagingError | None]) -> None:
        self._target = target
        self._upload = upload
        self._removal_asked = False

    @property
    def bucket(self) -> str:
        """The object's bucket."""
        return self._target.bucket

    @property
    def name(self) -> str:
        """The object's whole name in its bucket, known before it is there."""
        return self._target.name

    def result(self) -> StagingError | None:
        """Wait until the object is there; returns why it is not, or not surely."""
        return self._upload.result()


class Stager:
    """Writes and deletes objects of one staging area on threads of its own; may be called from any thread.

    Every object that was put is to be removed, whatever became of it, its upload's failure included: an upload whose
    answers were lost may be there.

    Args:
      area: the run's folder.
      client: returns the Cloud Storage client, at first use and on a thread of the pool.
      threads: as many requests are out at a time.
      keep: objects are not removed.
      retry_for_s: how long an upload or a deletion is tried. After a deletion has failed for so long, others
        are not tried for this time: they are left for the sweep, and the run's end does not wait for each of them.
      first_pause_s: the longest pause before the first retry.
      clock: monotonic seconds.
    """

    def __init__(
        self,
        area: StagingArea,
        client: ClientFactory = storage_client,
        threads: int = 32,
        *,
        keep: bool = False,
        retry_for_s: float = RETRY_FOR_S,
        first_pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._area = area
        self._client_factory = client
        self._client_lock = threading.Lock()
        self._made: storage.Client | None = None
        self._threads = threads
        self._keep = keep
        self._retry_for_s = retry_for_s
        self._first_pause_s = first_pause_s
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="staging")
        self._max_uploading = _PENDING_UPLOADS_PER_THREAD * threads
        self._changed = threading.Condition()
        self._uploading = 0
        self._removing: set[Staged] = set()
        self._stats = StagingStats()
        self._leftovers: set[ClipObject] = set()
        self._no_removals_until_s = -float("inf")
        self._closed = False

    def put(self, wav: bytes) -> Staged:
        """Name an object for a clip and begin to write it; blocks while too much is pending.

        Raises RuntimeError after `close`; everything else that can go wrong is told by the result.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed or (self._uploading < self._max_uploading and len(self._removing) < _PENDING_REMOVALS)
                )
            )
            if self._closed:
                raise RuntimeError("the stager is closed")
            self._uploading += 1
            target = self._area.new_object()
            return Staged(target, self._pool.submit(self._upload, target, wav))

    def remove(self, staged: Staged) -> None:
        """Have an object deleted once its upload is over; returns at once. A second call for it does nothing.

        After `close` the object is one of the leftovers.
        """
        if self._keep:
            return
        with self._changed:
            if staged._removal_asked:
                return
            staged._removal_asked = True
            if self._closed:
                self._leftovers.add(staged._target)
                return
            self._removing.add(staged)
        # Deletions run where uploads do; the callback may run on any thread, `close` waits for it.
        staged._upload.add_done_callback(lambda _: self._pool.submit(self._remove, staged))

    def drain(self) -> None:
        """Wait for the deletions that were asked for until now."""
        with self._changed:
            asked = set(self._removing)
            self._changed.wait_for(lambda: asked.isdisjoint(self._removing))

    def leftovers(self) -> tuple[str, ...]:
        """URIs of the objects whose deletion failed, sorted: `leftovers.sweep` tries them again."""
        with self._changed:
            return tuple(sorted(target.uri for target in self._leftovers))

    def stats(self) -> StagingStats:
        """What was done so far."""
        with self._changed:
            return self._stats

    def close(self) -> None:
        """Wait for all uploads and deletions and end the threads. Objects that were not removed stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._uploading and not self._removing)
        self._pool.shutdown()

    def _upload(self, target: ClipObject, wav: bytes) -> StagingError | None:
        failed: StagingError | None = None
        try:
            staged_objects.upload(self._client(), target, wav, self._retry_for_s, self._first_pause_s)
        except Exception as error:  # noqa: BLE001 - the client's own making fails in many ways, too
            failed = staging_error(error, target.bucket, "writing", "storage.objects.create").with_traceback(None)
            failed.__context__ = None  # its frames hold the clip
        with self._changed:
            self._uploading -= 1
            stats = self._stats
            if failed is None:
                self._stats = replace(
                    stats, staged_objects=stats.staged_objects + 1, staged_bytes=stats.staged_bytes + len(wav)
                )
            else:
                self._stats = replace(stats, failed_uploads=stats.failed_uploads + 1)
            self._changed.notify_all()
        return failed

    def _remove(self, staged: Staged) -> None:
        with self._changed:
            is_out = self._clock() < self._no_removals_until_s
        removed = not is_out and self._delete(staged._target)
        with self._changed:
            stats = self._stats
            if removed:
                self._stats = replace(stats, removed_objects=stats.removed_objects + 1)
            else:
                self._stats = replace(stats, failed_removals=stats.failed_removals + 1)
                self._leftovers.add(staged._target)
            self._removing.remove(staged)
            self._changed.notify_all()

    def _delete(self, target: ClipObject) -> bool:
        try:
            staged_objects.delete(self._client(), target, self._retry_for_s, self._first_pause_s)
        except Exception:  # noqa: BLE001 - why is asked by the sweep, which tries again and reports
            with self._changed:
                self._no_removals_until_s = self._clock() + self._retry_for_s
            return False
        return True

    def _client(self) -> storage.Client:
        with self._client_lock:
            if self._made is None:
                made = self._client_factory()
                widen_pool(made, self._threads)
                self._made = made
            return self._made


def prove_rights(area: StagingArea, client: ClientFactory = storage_client) -> None:
    """Write and delete an object in the run's folder. Raises StagingError: what is missing, and what to grant."""
    target = area.new_object()
    try:
        made = client()
        staged_objects.upload(made, target, b"")
        staged_objects.delete(made, target)
    except Exception as error:  # noqa: BLE001 - the client's own making fails in many ways, too
        raise staging_error(error, area.bucket, "writing", "storage.objects.create") from None
