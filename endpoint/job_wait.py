"""A batch prediction job is followed to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from endpoint.errors import JobUnreachable
from endpoint.job_service import JobService
from endpoint.job_state import PredictionJob
from endpoint.job_verdicts import out_of_reach

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_UNREACHABLE_S: Final = 600.0
"""So long may the service not answer until a job is no longer followed."""


def wait(
    service: JobService,
    name: str,
    say: Callable[[str], None],
    *,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> PredictionJob:
    """The job in its final state.

    Args:
        service: asked again and again, more and more rarely, once a minute at last.
        name: the job's.
        say: told each new state, and the counts whenever they have changed; a line each.
        pause: waits for some seconds.
        clock: seconds that only go forward.

    Raises:
        JobUnreachable: if the service has not answered for ten minutes; the job goes on.
        JobRefused: if the service will not tell about the job any more, see `JobService.get`.
    """
    said, pause_s = "", _FIRST_PAUSE_S
    answered_s = clock()
    job = PredictionJob(name)
    while True:
        try:
            job = service.get(name)
            answered_s = clock()
        except JobUnreachable:
            is_lost = clock() - answered_s >= _UNREACHABLE_S
        else:
            is_lost = False
            if (line := _line(job)) != said:
                say(line)
                said = line
            if job.is_final:
                return job
        if is_lost:
            raise out_of_reach(service.settings, name, job.link, _UNREACHABLE_S / 60)
        pause(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _line(job: PredictionJob) -> str:
    number = job.name.rpartition("/")[2]
    line = f"batch prediction job {number} is {job.state.replace('_', ' ')}"
    if job.done is None or job.failed is None or not job.done + job.failed + (job.total or 0):
        return line
    # As long as a job goes through its input, all may be those that it has come across.
    of = f" of {job.total:,}" if job.total is not None and job.total > job.done + job.failed else ""
    return f"{line}: {job.done:,}{of} clips done, {job.failed:,} failed"
