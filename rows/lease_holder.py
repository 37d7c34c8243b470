"""Who has the lease of a checkpoint: a process on some machine, or a job on Dataflow to which a launcher has handed it over."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_CONSOLE: Final = "https://console.cloud.google.com/dataflow/jobs"


class LeaseError(Exception):
    """The checkpoint cannot be had for this run alone; the message says why, and what to do."""


class LeaseTaken(LeaseError):
    """Another run is at work on the checkpoint."""


class Job(NamedTuple):
    """A job on Dataflow."""

    project: str
    region: str
    name: str
    id: str = ""
    """Empty as long as it is not known: a template's job is created after its launcher has ended."""

    @property
    def link(self) -> str:
        """Its page in the console; of a job whose id is not known, the page that lists it."""
        page = f"{_CONSOLE}/{self.region}/{self.id}" if self.id else _CONSOLE
        return f"{page}?project={self.project}"

    def __str__(self) -> str:
        return f"{self.name} ({self.id})" if self.id else self.name


JobState = Literal["active", "ended", "absent"]
"""`absent`: there is none of that name, or only such as are older than the lease."""

AskJob = Callable[[Job, float], JobState]
"""What becomes of a job that was given the lease at a time (Unix seconds). Raises JobUnclear."""


class JobUnclear(Exception):
    """Nobody could be asked about the job; the message says why in a few words, such as `HTTP 403`."""


class Holder(NamedTuple):
    """Who has the lease."""

    run_id: str
    host: str
    process: int
    boot: str
    """Names the time since the host started, as far as the system has such a name."""
    started: str
    job: Job | None = None
    """Has it in place of the process, however that ends."""

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


def to_json(holder: Holder) -> bytes:
    """What is written into a lease."""
    return json.dumps(holder._asdict()).encode()


def from_json(data: bytes) -> Holder | None:
    """Who has written a lease; None if that cannot be read."""
    try:
        holder = Holder(**json.loads(data))
        return holder if holder.job is None else holder._replace(job=Job(*holder.job))
    except (ValueError, TypeError):
        return None


def taken(checkpoint: str, holder: Holder | None, remedy: str) -> LeaseTaken:
    """The error that says who has the lease."""
    who = "another run"
    if holder is not None and holder.job is not None:
        job = holder.job
        who = (
            f"run {holder.run_id} (job {job} on Dataflow, project {job.project}, {job.region}, since {holder.started})"
        )
    elif holder is not None:
        who = f"run {holder.run_id} (process {holder.process} on {holder.host}, since {holder.started})"
    return LeaseTaken(
        f"{who} is at work on the checkpoint {checkpoint!r}: wait for its end, or stop it ({remedy}); or choose another --checkpoint"
    )
