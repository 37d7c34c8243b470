"""The lease of a checkpoint on Cloud Storage: an object that its holder's process renews, or that a job on Dataflow has."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from rows.lease_holder import (
    AskJob,
    Holder,
    Job,
    JobState,
    JobUnclear,
    LeaseError,
    LeaseTaken,
    from_json,
    taken,
    to_json,
)
from rows.objects import blob_at

FILE: Final = "lease.json"
LEASE_S: Final = 120.0
JOB_APPEARS_WITHIN_S: Final = 600.0
"""A launcher writes the lease before the job is created, which a template's launcher does not see."""
_RENEW_S: Final = 30.0


def nobody_to_ask(_job: Job, _handed_over_s: float) -> JobState:
    """Knows nothing about jobs."""
    raise JobUnclear("nobody was asked")


class BucketLease:
    """Held by this process it is renewed on a thread of its own; it is taken over when it was not renewed for `lease_s`, or when
    its holder was a process of this machine that is no longer there. Held by a job it lasts as long as the job.

    Args:
      checkpoint: `gs://bucket/folder`.
      holder: who is to have it: a process.
      on_lost: called on another thread, with a sentence, when it was lost: the run must end.
      ask_job: finds out about the job that has it.
      lease_s: how long it lasts without being renewed.
      renew_s: how often it is renewed.
      clock: Unix seconds.
    """

    def __init__(
        self,
        checkpoint: str,
        holder: Holder,
        on_lost: Callable[[str], None],
        ask_job: AskJob = nobody_to_ask,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = _RENEW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._checkpoint = checkpoint
        self._holder = holder
        self._on_lost = on_lost
        self._ask_job = ask_job
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._clock = clock
        self._generation = 0
        self._is_lost = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_handed_over(self) -> bool:
        """Whether a job has it, which may be at work."""
        return self._holder.job is not None

    def acquire(self) -> None:
        """Takes the lease, or one whose holder is gone. Raises LeaseTaken, LeaseError."""
        from google.api_core import exceptions

        try:
            self._write(0)
        except exceptions.PreconditionFailed:
            self._take_over()
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise self._failed(error) from None
        self._begin_to_renew()

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
                raise taken(self._checkpoint, None if found is None else found[0], "this run was cut off") from None

    def hand_over(self, job: Job) -> None:
        """Gives the lease to a job, before that is submitted, and once more when its id is known.

        It is no longer renewed then, and stays when this process ends. Raises LeaseTaken, LeaseError.
        """
        self._stop_renewing()
        before, self._holder = self._holder, self._holder._replace(job=job)
        try:
            self._rewrite()
        except LeaseError:
            self._holder = before
            raise

    def take_back(self) -> None:
        """Makes this process the holder again, once the job has ended or was refused. Raises LeaseTaken, LeaseError."""
        self._holder = self._holder._replace(job=None)
        self._rewrite()
        self._begin_to_renew()

    def release(self) -> None:
        """Lets go of the lease, unless a job has it; whatever fails then, it ends by itself."""
        self._stop_renewing()
        if self._is_lost or self.is_handed_over:
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
            holder, generation, written_s = found
            if holder == self._holder:  # written, and the answer was lost
                self._generation = generation
                return
            if holder is not None and holder.job is not None:
                self._check_job(holder, holder.job, written_s)
            else:
                self._check_process(holder, written_s)
            self._write(generation)
        except (exceptions.PreconditionFailed, exceptions.NotFound):
            raise taken(self._checkpoint, None, "it has just been taken by another run") from None
        except LeaseError:
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            raise self._failed(error) from None

    def _check_process(self, holder: Holder | None, written_s: float) -> None:
        """Raises LeaseTaken unless the process is gone, or has not renewed its lease for long."""
        left_s = written_s + self._lease_s - self._clock()
        if left_s > 0 and not (holder is not None and holder.is_gone()):
            raise taken(self._checkpoint, holder, f"if that run is dead, its lease ends in {max(1, round(left_s))} s")

    def _check_job(self, holder: Holder, job: Job, written_s: float) -> None:
        """Raises LeaseTaken unless the job has ended, or was never created."""
        try:
            state = self._ask_job(job, written_s)
        except JobUnclear as error:
            raise taken(
                self._checkpoint,
                holder,
                f"whether it still runs could not be asked ({error}), which needs the role Dataflow Viewer; if it has ended, "
                f"delete {self._checkpoint}/{FILE}; {job.link}",
            ) from None
        if state == "active":
            raise taken(self._checkpoint, holder, job.link)
        age_s = self._clock() - written_s
        if state == "absent" and age_s < JOB_APPEARS_WITHIN_S:
            left_s = max(1, round(JOB_APPEARS_WITHIN_S - age_s))
            raise taken(
                self._checkpoint,
                holder,
                f"it is not there yet; if it was never created, its lease ends in {left_s} s; {job.link}",
            )

    def _rewrite(self) -> None:
        """Raises LeaseTaken, LeaseError."""
        try:
            self.renew()
        except LeaseTaken:
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            raise self._failed(error) from None

    def _find(self) -> tuple[Holder | None, int, float] | None:
        """Who has it, the object's generation, and when it was written (Unix time); None if there is no lease."""
        blob = self._blob()
        blob = blob.bucket.get_blob(blob.name)
        if blob is None:
            return None
        data = blob.download_as_bytes(raw_download=True)
        return from_json(data), int(blob.generation), blob.updated.timestamp()

    def _write(self, generation: int) -> None:
        blob = self._blob()
        blob.upload_from_string(to_json(self._holder), "application/json", if_generation_match=generation)
        self._generation = int(blob.generation)

    def _blob(self) -> Any:
        return blob_at(f"{self._checkpoint}/{FILE}")

    def _begin_to_renew(self) -> None:
        self._over.clear()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)
        self._thread.start()

    def _stop_renewing(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

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
