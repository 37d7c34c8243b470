"""One run at a time on a checkpoint: a lease that names its holder, and ends with the holder's process.

On disk it is a lock on a file, which the system lets go of however the process ends. On Cloud Storage it is an object
that its holder renews: it is taken over when it has not been renewed for LEASE_S, or when its holder was a process of
this machine that is no longer there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from audio.fetch import storage_client

FILE: Final = "lease.json"
LEASE_S: Final = 120.0
_RENEW_S: Final = 30.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_GS: Final = "gs://"


class LeaseError(Exception):
    """The checkpoint cannot be had for this run alone; the message says why, and what to do."""


class LeaseTaken(LeaseError):
    """Another run is at work on the checkpoint."""


class Holder(NamedTuple):
    """Who has the lease."""

    run_id: str
    host: str
    process: int
    boot: str
    """Names the time since the host started, as far as the system has such a name."""
    started: str

    @classmethod
    def of_this_process(cls, run_id: str) -> Holder:
        """This process, on behalf of a run."""
        boot = ""
        with contextlib.suppress(OSError):
            boot = _BOOT_ID.read_text().strip()
        return cls(run_id, platform.node(), os.getpid(), boot, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def is_gone(self) -> bool:
        """Whether it surely is no longer there: a process of this machine that has ended."""
        if self.host != platform.node():
            return False
        if self.boot != Holder.of_this_process("").boot:
            return True
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


@contextmanager
def holding(checkpoint: str, run_id: str, on_lost: Callable[[str], None]) -> Iterator[None]:
    """While the context is open, no other run can hold the lease of `checkpoint`, a folder on disk or on Cloud Storage.

    Args:
      checkpoint: the folder.
      run_id: of this run.
      on_lost: called on another thread, with a sentence, when the lease was lost: the run must end.

    Raises LeaseTaken, LeaseError.
    """
    holder = Holder.of_this_process(run_id)
    if not checkpoint.startswith(_GS):
        with _locked(Path(checkpoint) / FILE, checkpoint, holder):
            yield
        return
    lease = BucketLease(checkpoint, holder, on_lost)
    lease.acquire()
    try:
        yield
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
        os.pwrite(file, _to_json(holder), 0)
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
            holder = _holder(os.pread(file, 4096, 0))
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise LeaseError(
                    f"the file system of the checkpoint {checkpoint!r} cannot lock files ({error.strerror}), so that a second "
                    "run on it would not be noticed: choose a --checkpoint on another one"
                ) from None
            raise _taken(checkpoint, holder, "it ends with that process") from None


def _is_at(path: Path, file: int) -> bool:
    """Whether the open file is the one that others find under its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


class BucketLease:
    """The lease of a checkpoint on Cloud Storage, renewed on a thread of its own while it is held."""

    def __init__(
        self,
        checkpoint: str,
        holder: Holder,
        on_lost: Callable[[str], None],
        *,
        lease_s: float = LEASE_S,
        renew_s: float = _RENEW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._checkpoint = checkpoint
        self._bucket, _, path = checkpoint.removeprefix(_GS).partition("/")
        self._name = f"{path}/{FILE}"
        self._holder = holder
        self._on_lost = on_lost
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._clock = clock
        self._generation = 0
        self._is_lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)

    def acquire(self) -> None:
        """Takes the lease, or one whose holder is gone. Raises LeaseTaken, LeaseError."""
        from google.api_core import exceptions

        try:
            self._write(0)
        except exceptions.PreconditionFailed:
            self._take_over()
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise self._failed(error) from None
        self._thread.start()

    def renew(self) -> None:
        """Writes the lease again. Raises LeaseTaken if somebody else has it, and what the storage client raises."""
        from google.api_core import exceptions

        try:
            self._write(self._generation)
        except (exceptions.PreconditionFailed, exceptions.NotFound):
            if (found := self._find()) is not None and found[0] == self._holder:
                self._generation = found[1]  # an earlier attempt's answer was lost
            else:
                self._is_lost = True
                raise _taken(self._checkpoint, None if found is None else found[0], "this run was cut off") from None

    def release(self) -> None:
        """Lets go of the lease; whatever fails then, it ends by itself."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._is_lost:
            return
        with contextlib.suppress(Exception):
            self._blob().delete(if_generation_match=self._generation)

    def _take_over(self) -> None:
        from google.api_core import exceptions

        try:
            found = self._find()
            if found is None:
                self._write(0)
                return
            holder, generation, renewed_s = found
            if holder == self._holder:  # written, and the answer was lost
                self._generation = generation
                return
            left_s = renewed_s + self._lease_s - self._clock()
            if left_s > 0 and not (holder is not None and holder.is_gone()):
                raise _taken(
                    self._checkpoint, holder, f"if that run is dead, its lease ends in {max(1, round(left_s))} s"
                )
            self._write(generation)
        except (exceptions.PreconditionFailed, exceptions.NotFound):
            raise _taken(self._checkpoint, None, "it has just been taken by another run") from None
        except LeaseError:
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            raise self._failed(error) from None

    def _find(self) -> tuple[Holder | None, int, float] | None:
        """Who has it, the object's generation, and when it was renewed (Unix time); None if there is no lease."""
        blob = storage_client().bucket(self._bucket).get_blob(self._name)
        if blob is None:
            return None
        data = blob.download_as_bytes(raw_download=True)
        return _holder(data), int(blob.generation), blob.updated.timestamp()

    def _write(self, generation: int) -> None:
        blob = self._blob()
        blob.upload_from_string(_to_json(self._holder), "application/json", if_generation_match=generation)
        self._generation = int(blob.generation)

    def _blob(self) -> Any:
        return storage_client().bucket(self._bucket).blob(self._name)

    def _renew_until_over(self) -> None:
        renewed_s = self._clock()
        while not self._over.wait(self._renew_s):
            try:
                self.renew()
                renewed_s = self._clock()
            except LeaseTaken as error:
                self._on_lost(str(error))
                return
            except Exception as error:  # noqa: BLE001 - likewise
                if self._clock() - renewed_s > self._lease_s - self._renew_s:
                    self._on_lost(str(self._failed(error)))
                    return

    def _failed(self, error: Exception) -> LeaseError:
        code = getattr(error, "code", None)
        because = f"HTTP {code}" if isinstance(code, int) else type(error).__name__
        return LeaseError(f"the lease of the checkpoint {self._checkpoint!r} cannot be written ({because}): may it be?")


def _to_json(holder: Holder) -> bytes:
    return json.dumps(holder._asdict()).encode()


def _holder(data: bytes) -> Holder | None:
    """Who has written a lease; None if that cannot be read."""
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _taken(checkpoint: str, holder: Holder | None, remedy: str) -> LeaseTaken:
    who = "another run"
    if holder is not None:
        who = f"run {holder.run_id} (process {holder.process} on {holder.host}, since {holder.started})"
    return LeaseTaken(
        f"{who} is at work on the checkpoint {checkpoint!r}: wait for its end, or stop it ({remedy}); or choose another --checkpoint"
    )
