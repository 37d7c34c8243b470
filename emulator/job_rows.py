"""The rows of a job: a line of its input becomes a line of its results, or one of its errors, never the job's end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from emulator.clips import ClipReader
from emulator.digests import clip_digest, clip_digest_16_bit
from emulator.endpoints import InstanceFormat
from emulator.faults import Faults
from emulator.garden_rules import InstanceError
from emulator.job_faults import JobFaults
from emulator.standin import FloatArray, embed
from emulator.values import NotAClipError, clip_numbers, wrong_type

_INVALID, _UNAVAILABLE = 3, 14
"""Of https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto."""


class _NoJson:
    """A line that is none."""


_NO_JSON: Final = _NoJson()


class OutputLine(NamedTuple):
    """What a row becomes: a line of predictions, or one of errors."""

    is_error: bool
    data: bytes


class Output(NamedTuple):
    """What became of some rows.

    Attributes:
        lines: one for each row but those that were lost.
        clips: digests of the clips that the model was given, as in the arrivals log.
    """

    lines: list[OutputLine]
    clips: list[str]


@dataclass
class _Row:
    instance: Any
    """As JSON has it, numbers of a clip as float64 (32000,); `_NO_JSON` for a line that is none."""
    clip: FloatArray | InstanceError | None = None
    error: tuple[int, str] | None = None
    """Code and message of a row that fails."""


class RowWorker:
    """Works on a job's rows, some at a time, on threads."""

    def __init__(
        self, job: int, instance_format: InstanceFormat, clips: ClipReader, faults: Faults, job_faults: JobFaults
    ) -> None:
        """`job` is the job's number, by which its faults are drawn."""
        self._job = job
        self._as_objects = instance_format is InstanceFormat.MODEL_GARDEN
        self._clips = clips
        self._faults = faults
        self._job_faults = job_faults

    async def work(self, first: int, lines: Sequence[bytes]) -> Output:
        """What becomes of these lines, the first of which has this number, counted from 1."""
        rows = await asyncio.to_thread(self._read, first, lines)
        if self._as_objects:
            unread = [row for row in rows if row.error is None]
            if unread:
                instances = [row.instance for row in unread]
                found = await self._clips.read(InstanceFormat.MODEL_GARDEN, instances, lambda _: None)
                for row, clip in zip(unread, found, strict=True):
                    row.clip = clip
        return await asyncio.to_thread(self._written, rows)

    def _read(self, first: int, lines: Sequence[bytes]) -> list[_Row]:
        drawn = ((line, self._job_faults.of_row(self._job, number)) for number, line in enumerate(lines, first))
        return [self._row(line, fault) for line, fault in drawn if fault != "lost"]

    def _row(self, line: bytes, fault: str | None) -> _Row:
        try:
            row = _Row(orjson.loads(line))
        except orjson.JSONDecodeError:
            return _Row(_NO_JSON, error=(_INVALID, f"The line is no JSON: {line[:80]!r}"))
        if fault == "invalid":
            row.error = _INVALID, f"The model cannot process this instance: {line[:80]!r}"
        elif fault == "unavailable":
            row.error = _UNAVAILABLE, f"The model was not available for this instance: {line[:80]!r}"
        elif not self._as_objects:
            try:
                row.instance = clip_numbers(row.instance)
                row.clip = row.instance.astype(np.float32)
            except NotAClipError as error:
                row.error = _INVALID, str(error)
        elif not isinstance(row.instance, dict):
            row.error = _INVALID, wrong_type(row.instance, "object")
        return row

    def _written(self, rows: Sequence[_Row]) -> Output:
        output = Output([], [])
        for row in rows:
            if row.error is None and row.clip is not None and not isinstance(row.clip, InstanceError):
                digest = clip_digest(row.clip)
                if self._faults.rejects_clips and self._faults.rejects(digest, clip_digest_16_bit(row.clip)):
                    if self._as_objects:
                        row.clip = InstanceError("The model cannot process this clip.")
                    else:
                        row.error = _INVALID, "The model cannot process this clip."
                else:
                    output.clips.append(digest)
            output.lines.append(self._line(row))
        return output

    def _line(self, row: _Row) -> OutputLine:
        content = {} if row.instance is _NO_JSON else {"instance": row.instance}
        if row.error is not None:
            if self._job_faults.bare_errors:
                content = {}
            content["error"] = {"code": row.error[0], "message": row.error[1]}
        elif isinstance(row.clip, InstanceError):
            content["prediction"] = {"error": {"description": row.clip.description}}
        else:
            assert row.clip is not None
            embedding = embed([row.clip])[0].astype(np.float64)
            content["prediction"] = {"embedding": embedding} if self._as_objects else embedding
        data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        return OutputLine(row.error is not None, data)
