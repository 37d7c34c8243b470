"""One run at a time on a checkpoint: a lease that names its holder, and ends with the holder.

On disk it is a lock on a file, which the system lets go of however the process ends. On Cloud Storage it is an object
(`BucketLease`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rows.bucket_lease import FILE, BucketLease, nobody_to_ask
from rows.lease_holder import AskJob, Holder, LeaseError, LeaseTaken, from_json, taken, to_json

__all__ = ["BucketLease", "Holder", "LeaseError", "LeaseTaken", "holding", "remove_lease"]

_GS = "gs://"


@contextmanager
def holding(
    checkpoint: str, run_id: str, on_lost: Callable[[str], None], ask_job: AskJob = nobody_to_ask
) -> Iterator[BucketLease | None]:
    """While the context is open, no other run can hold the lease of `checkpoint`, a folder on disk or on Cloud Storage.

    Gives the lease where it can be handed over to a job: on Cloud Storage.

    Args:
      checkpoint: the folder.
      run_id: of this run.
      on_lost: called on another thread, with a sentence, when the lease was lost: the run must end.
      ask_job: finds out whether a job that has the lease is still there.

    Raises LeaseTaken, LeaseError.
    """
    holder = Holder.of_this_process(run_id)
    if not checkpoint.startswith(_GS):
        with _locked(Path(checkpoint) / FILE, checkpoint, holder):
            yield None
        return
    lease = BucketLease(checkpoint, holder, on_lost, ask_job)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def remove_lease(checkpoint: str) -> None:
    """Removes what the lease leaves on disk, while this process holds it; and the folder, if nothing else is in it."""
    if not checkpoint.startswith(_GS):
        with contextlib.suppress(OSError):
            (Path(checkpoint) / FILE).unlink()
            Path(checkpoint).rmdir()


@contextmanager
def _locked(path: Path, checkpoint: str, holder: Holder) -> Iterator[None]:
    file = _lock(path, checkpoint)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, to_json(holder), 0)
        yield
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def _lock(path: Path, checkpoint: str) -> int:
    """The open file, locked."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LeaseError(
                f"cannot open {str(path)!r} of the checkpoint ({error.strerror}): may it be written?"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                return file
            os.close(file)  # its holder has removed it just before letting go of it
        except OSError as error:
            holder = from_json(os.pread(file, 4096, 0))
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise LeaseError(
                    f"the file system of the checkpoint {checkpoint!r} cannot lock files ({error.strerror}), so that a second "
                    "run on it would not be noticed: choose a --checkpoint on another one"
                ) from None
            raise taken(checkpoint, holder, "it ends with that process") from None


def _is_at(path: Path, file: int) -> bool:
    """Whether the open file is the one that others find under its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
