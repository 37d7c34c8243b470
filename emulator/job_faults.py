"""What goes wrong with batch prediction jobs on purpose, written as `emulator.faults` is: `key=value,key=value`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from emulator.job_messages import JobState
from emulator.specification import Reader, count, divisor, drawn, rate, read_specification, seconds, share

ROW_FAULTS = ("invalid", "unavailable", "lost")
"""What may become of a row instead of a prediction: an error for good, an error for now, nothing at all."""

_ENDS = {
    "succeeded": JobState.JOB_STATE_SUCCEEDED,
    "partially_succeeded": JobState.JOB_STATE_PARTIALLY_SUCCEEDED,
    "failed": JobState.JOB_STATE_FAILED,
    "cancelled": JobState.JOB_STATE_CANCELLED,
    "expired": JobState.JOB_STATE_EXPIRED,
}


@dataclass(frozen=True)
class JobFaults:
    """What goes wrong with jobs.

    Attributes:
        seed: other seeds choose other rows, and shuffle them otherwise.
        rates: share of the rows for each of `ROW_FAULTS` that is not 0.
        die_after: the share of its input, in bytes, after which a job fails; what it has done until then is written.
        die_code: the code of the error that such a job has.
        end: the state in which jobs end, whatever became of them; None: the one that fits.
        shards: files of results of a job; None: as many as its input's size suggests.
        old_names: whether they are called `predictions_0001.jsonl`.
        bare_errors: whether lines of errors leave out the instance.
        least_s: jobs run for so long at least, their rows spread over that time.
        refuse: the status that calls to create a job get; None: they are served.
        refuse_first: how many calls get it; None: all.
        lose_answers: after so many of the first jobs have been made, their caller is told UNAVAILABLE.
        get_503: share of the calls for a job's state that are UNAVAILABLE.
    """

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    die_after: float | None = None
    die_code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    end: JobState | None = None
    shards: int | None = None
    old_names: bool = False
    bare_errors: bool = False
    least_s: float = 0.0
    refuse: grpc.StatusCode | None = None
    refuse_first: int | None = None
    lose_answers: int = 0
    get_503: float = 0.0

    def of_row(self, job: int, row: int) -> str | None:
        """The fault of a job's row, both counted from 1: one of `ROW_FAULTS`, or None."""
        return drawn(self.rates, ROW_FAULTS, share(self.seed, "row", f"{job}:{row}"))

    def refuses(self, number: int) -> grpc.StatusCode | None:
        """What the call to create a job with this number, from 1, is refused with; None if it is not."""
        return self.refuse if self.refuse_first is None or number <= self.refuse_first else None

    def loses_get(self, number: int) -> bool:
        """Whether the call with this number that asks for a job's state is UNAVAILABLE."""
        return share(self.seed, "get", number) < self.get_503


def parse_job_faults(text: str) -> JobFaults:
    """Reads a specification.

    Raises:
        ValueError: in one line, which part is wrong and what is expected.
    """
    rates, values = read_specification(text, ROW_FAULTS, _READERS)
    return JobFaults(rates=rates, **values)


def _status(key: str, value: str) -> grpc.StatusCode:
    if value not in grpc.StatusCode.__members__ or value == "OK":
        raise ValueError(f"{key}={value} is no status: expected gRPC's name of an error, such as UNAVAILABLE")
    return grpc.StatusCode[value]


def _end(key: str, value: str) -> JobState:
    if value not in _ENDS:
        raise ValueError(f"{key}={value} is no state: expected one of {', '.join(_ENDS)}")
    return _ENDS[value]


def _flag(key: str, value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError(f"{key}={value} is neither 0 nor 1")
    return value == "1"


_READERS: dict[str, Reader] = {
    "seed": count,
    "die_after": rate,
    "die_code": _status,
    "end": _end,
    "shards": divisor,
    "old_names": _flag,
    "bare_errors": _flag,
    "least_s": seconds,
    "refuse": _status,
    "refuse_first": count,
    "lose_answers": count,
    "get_503": rate,
}
