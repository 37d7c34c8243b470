"""The arrivals log: one JSON line a request and two a job, for tests to count and compare."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass
class Arrival:
    """What is known of a request while it is served.

    Attributes:
        number: 1 for the first request; faults are drawn by it.
        t_s: monotonic clock, at arrival.
        transport: `grpc` or `rest`.
        in_flight: requests that were being served when it arrived, this one included.
        endpoint: the endpoint that it names, None until that is known to be an endpoint's name.
        instances: how many it holds, 0 until it is read.
        fault: the fault on purpose that it got, None if none.
        is_logged: whether its line is written.
    """

    number: int
    t_s: float
    transport: str
    in_flight: int
    endpoint: str | None = None
    instances: int = 0
    fault: str | None = None
    is_logged: bool = False


class ArrivalsLog:
    """Appends to a file, a line at a time, unbuffered: what arrived is on record even if this process is killed.

    A line holds the fields of `Arrival`, `unix_s` (its time by the wall clock), `status` (the answer's gRPC status,
    CANCELLED if the caller gave up first) and `clips`: for each clip that the model was given, in order, the first 16
    hex digits of the SHA-256 of its 32000 little-endian float32 samples. A request that is answered is logged before its
    answer goes out, but may be logged later than one that came after it. No sample and no token is ever written.

    A line with the key `job_event` is no request: it says that a batch prediction job was `created` (or refused: `job`
    is null) or has `ended`, with the `clips` that the model was given for it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens or creates the file, readable by its owner only; raises OSError."""
        self._file = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, arrival: Arrival, status: str, clips: Sequence[str] = ()) -> None:
        """Records one request; `clips` are digests, none for one that was refused."""
        line = {
            "number": arrival.number,
            "t_s": arrival.t_s,
            "unix_s": time.time() - (time.monotonic() - arrival.t_s),
            "transport": arrival.transport,
            "endpoint": arrival.endpoint,
            "status": status,
            "fault": arrival.fault,
            "in_flight": arrival.in_flight,
            "instances": arrival.instances,
            "clips": list(clips),
        }
        self._append(line)

    def write_job_created(
        self, t_s: float, transport: str, job: str | None, model: str | None, status: str, fault: str | None
    ) -> None:
        """Records a call to create a batch prediction job, which is None if none was made."""
        line = {"transport": transport, "model": model, "status": status, "fault": fault}
        self._append_job("created", job, t_s, line, ())

    def write_job_ended(self, job: str, state: str, clips: Sequence[str]) -> None:
        """Records a job's end; `clips` are digests of those that the model was given."""
        self._append_job("ended", job, time.monotonic(), {"state": state}, clips)

    def _append_job(
        self, event: str, job: str | None, t_s: float, more: dict[str, str | None], clips: Sequence[str]
    ) -> None:
        unix_s = time.time() - (time.monotonic() - t_s)
        self._append({"job_event": event, "job": job, "t_s": t_s, "unix_s": unix_s, **more, "clips": list(clips)})

    def _append(self, line: dict[str, Any]) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def __enter__(self) -> ArrivalsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
