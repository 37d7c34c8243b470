"""Second stage: for each recording what is wanted of it, what the checkpoint holds already, and the segments left to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from audio.clips import ClipSettings
from audio.errors import AudioError
from audio.fetch import open_recording
from audio.listing import Unlisted
from audio.lookup import resolve
from audio.manifest import ManifestRow
from audio.recording import Recording, Segment, Take, take_order
from audio.segments import cut, may_be_cut
from rows.held import Held
from rows.identity import segment_id
from rows.model import FailureRow, Receipt
from transforms.group_packed import GroupPacked
from transforms.packed import Packing
from transforms.quiet import quiet_worker

TASKS = "tasks"
PLANS = "plans"

_RESOLVED_AT_A_TIME = 512

Asked = Recording | Unlisted | ManifestRow | FailureRow | Receipt
"""What is grouped under a recording's URI: what was listed, what the manifest says, why a row of it cannot be used, and what the
checkpoint holds."""

_ASKED: Packing[Asked] = Packing(Recording, Unlisted, ManifestRow, FailureRow, Receipt)


class Task(NamedTuple):
    """A segment that is to be decoded."""

    segment_id: str
    segment: Segment
    settled: tuple[str, ...]
    """Ids of clips of it that need not be sent: the checkpoint held them at launch."""


class RecordingPlan(NamedTuple):
    """All that the tables need to know of a recording besides what this run finds out."""

    recording: Recording
    segments: tuple[tuple[str, tuple[Take, ...]], ...]
    """Id and takes of each segment."""
    rows: tuple[ManifestRow, ...]
    """What the manifest says of it, each row once; empty without a manifest."""
    receipts: tuple[Receipt, ...]
    """What the checkpoint held of this version at launch."""
    failures: tuple[FailureRow, ...]
    """Why there is no recording, or which rows of the manifest cannot be used."""
    is_whole: bool = True
    """Whether the segments are all of the recording: where only events are wanted, parts without any are not decoded."""


@dataclass(frozen=True)
class PlanSettings:
    """Everything that planning depends on."""

    clips: ClipSettings
    retry_failed: bool = False
    limit: int | None = None
    """Only so many recordings, the first in the order of their URIs; None for all."""
    fingerprint: str = ""
    """Of how samples are made and of the model: what was found out with another one never counts."""

    @property
    def choice(self) -> str:
        """What a segment's identity names besides the recording's part and takes."""
        return f"{self.clips.choice} {self.fingerprint}".rstrip()


def plan(
    group: Iterable[Asked],
    resolved: Recording | Unlisted | None,
    settings: PlanSettings,
) -> tuple[RecordingPlan, list[Task]]:
    """What is to be done about one recording.

    Args:
      group: all that stands under its URI.
      resolved: what the URI stands for, if a manifest names it; None where it was listed.
      settings: of the run.
    """
    group = list(group)
    rows = _each_once(item for item in group if isinstance(item, ManifestRow))
    problems = tuple(item for item in group if isinstance(item, FailureRow))
    found = (
        resolved if resolved is not None else _latest(item for item in group if isinstance(item, Recording | Unlisted))
    )
    if found is None:
        return RecordingPlan(Recording(problems[0].recording_uri, "", 0), (), (), (), problems), []
    if isinstance(found, Unlisted):
        failures = tuple(_unlisted(found, row) for row in rows or (None,))
        return RecordingPlan(Recording(found.uri, "", 0), (), rows, (), problems + failures), []
    takes = tuple(sorted({row.take for row in rows}, key=take_order)) or (Take(settings.clips.channel),)
    receipts = tuple(item for item in group if isinstance(item, Receipt) and item.recording_version == found.version)
    segments = [(segment_id(segment, settings.choice), segment) for segment in _cut(found, takes, settings.clips)]
    held = Held(receipts)
    settled = held.settled(retry_failed=settings.retry_failed)
    tasks = [
        Task(identity, segment, _within(segment, settled))
        for identity, segment in segments
        if not held.is_done(identity, settled, retry_failed=settings.retry_failed)
    ]
    wanted = tuple((identity, segment.takes) for identity, segment in segments)
    ours = {identity for identity, _ in segments}
    # What runs with other settings found out about other segments says nothing; their clips may be wanted here, too.
    kept = tuple(
        receipt if receipt.segment_id in ours else receipt._replace(census=None)
        for receipt in receipts
        if receipt.segment_id in ours or receipt.clips or receipt.failures
    )
    return RecordingPlan(found, wanted, rows, kept, problems, _are_whole([segment for _, segment in segments])), tasks


def _each_once(rows: Iterable[ManifestRow]) -> tuple[ManifestRow, ...]:
    """The rows in the manifest's order; of those equal in every column the first."""
    first: dict[str, ManifestRow] = {}
    for row in sorted(rows, key=lambda row: row.row):
        first.setdefault(row.digest, row)
    return tuple(first.values())


def _latest(listed: Iterable[Recording | Unlisted]) -> Recording | Unlisted | None:
    """One of what is listed under one URI: the latest recording, if the file changed while it was being listed."""
    found = list(listed)
    recordings = [item for item in found if isinstance(item, Recording)]
    if recordings:
        return max(recordings, key=lambda recording: (_written(recording), recording))
    return found[0] if found else None


def _written(recording: Recording) -> int:
    """What grows from version to version: an object's generation, a local file's time of modification."""
    return int(recording.version.rpartition("-")[2])


def _cut(recording: Recording, takes: tuple[Take, ...], clips: ClipSettings) -> Sequence[Segment]:
    if may_be_cut(recording):
        try:
            with open_recording(recording) as file:
                return cut(recording, file, takes, clips)
        except AudioError:  # who decodes it meets that again, and says so
            pass
    return (Segment(recording, takes),)


def _are_whole(segments: list[Segment]) -> bool:
    ends = [0, *(segment.stop_s for segment in segments)]
    return ends[:-1] == [segment.start_s for segment in segments] and ends[-1] is None


def _within(segment: Segment, settled: dict[str, float | None]) -> tuple[str, ...]:
    """The settled clips that the segment may have: a clip's audio can begin a little before or after its place."""
    if segment.start_s == 0 and segment.stop_s is None:
        return tuple(sorted(settled))
    first, last = segment.start_s - _SLACK_S, (segment.stop_s or float("inf")) + _SLACK_S
    return tuple(sorted(clip for clip, start_s in settled.items() if start_s is None or first <= start_s <= last))


_SLACK_S = 4.0


def _unlisted(unlisted: Unlisted, row: ManifestRow | None) -> FailureRow:
    line = "" if row is None else f"line {row.line}: "
    return FailureRow.at_no_place(
        unlisted.uri,
        "",
        "list",
        unlisted.code,
        f"{line}{unlisted.message}",
        retryable=unlisted.retryable,
        manifest_row=None if row is None else row.row,
    )


def _is_asked_for(group: tuple[str, list[Asked]]) -> bool:
    """Whether today's inputs name the recording; of all others the checkpoint keeps the rows, and the tables have none."""
    return not all(isinstance(item, Receipt) for item in group[1])


def _uri(group: tuple[str, list[Asked]]) -> str:
    return group[0]


class _Plan(beam.DoFn):
    def __init__(self, settings: PlanSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        quiet_worker()

    def start_bundle(self) -> None:
        self._unresolved: list[tuple[str, list[Asked]]] = []

    def process(self, element: tuple[str, list[Asked]]) -> Iterator[Task | pvalue.TaggedOutput]:
        uri, group = element
        if not any(isinstance(item, ManifestRow) for item in group):
            yield from self._planned(uri, group, None)
            return
        # Objects that a manifest names are looked up many at a time.
        self._unresolved.append((uri, group))
        if len(self._unresolved) == _RESOLVED_AT_A_TIME:
            yield from self._resolve()

    def finish_bundle(self) -> Iterator[WindowedValue | pvalue.TaggedOutput]:
        window = GlobalWindow()
        for output in self._resolve():
            if isinstance(output, pvalue.TaggedOutput):
                output.value = WindowedValue(output.value, window.max_timestamp(), [window])
                yield output
            else:
                yield WindowedValue(output, window.max_timestamp(), [window])

    def _resolve(self) -> Iterator[Task | pvalue.TaggedOutput]:
        groups, self._unresolved = self._unresolved, []
        for (uri, group), found in zip(groups, resolve([uri for uri, _ in groups]), strict=True):
            yield from self._planned(uri, group, found)

    def _planned(
        self, uri: str, group: list[Asked], found: Recording | Unlisted | None
    ) -> Iterator[Task | pvalue.TaggedOutput]:
        planned, tasks = plan(group, found, self._settings)
        yield from tasks
        yield pvalue.TaggedOutput(PLANS, (uri, planned))


class PlanSegments(beam.PTransform):
    """Whatever is asked and known, keyed by recordings' URIs (`Asked`), into tasks and plans.

    Returns a dict of PCollections: `tasks` (Task), `plans` ((uri, RecordingPlan), one for each recording).
    """

    def __init__(self, settings: PlanSettings) -> None:
        super().__init__()
        if settings.limit is not None and settings.limit < 1:
            raise ValueError(f"limit is {settings.limit}: expected at least 1, or None")
        self._settings = settings

    def expand(self, asked: tuple[beam.PCollection, ...]) -> dict[str, beam.PCollection]:
        groups = (
            asked
            | "Group by recording" >> GroupPacked(_ASKED)
            | "Leave out what is not asked for" >> beam.Filter(_is_asked_for)
        )
        if self._settings.limit is not None:
            groups = (
                groups
                | "Take the first" >> beam.combiners.Top.Smallest(self._settings.limit, key=_uri)
                | "One by one" >> beam.FlatMap(lambda first: first)
            )
        planned = groups | "Cut into segments" >> beam.ParDo(_Plan(self._settings)).with_outputs(PLANS, main=TASKS)
        return {TASKS: planned[TASKS], PLANS: planned[PLANS]}
