"""Fifth stage: for each recording one row a clip and manifest row, of those that the receipts point at, and its own row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from audio.manifest import ManifestRow
from audio.recording import Take
from rows.held import Held
from rows.model import Census, FailureRow, Metadata, Receipt, RecordingRow, Status
from transforms.group_packed import GroupPacked
from transforms.packed import Packing
from transforms.plan_segments import RecordingPlan

RECORDINGS = "recordings"
FAILURES = "failures"
COUNTS = "counts"


class LostClip(Exception):
    """A clip that was decoded has neither an embedding nor a failure: the run must not pretend to be complete."""


class Use(NamedTuple):
    """A row of the table that a clip's stored row is to become."""

    clip_index: int
    manifest_row: int | None
    metadata: Metadata

    def __repr__(self) -> str:
        return f"Use(clip_index={self.clip_index}, manifest_row={self.manifest_row})"


class Place(NamedTuple):
    """A clip's stored row, and what becomes of it."""

    offset: int
    uses: tuple[Use, ...]


class Places(NamedTuple):
    """Those of a recording in one file."""

    places: tuple[Place, ...]


class Chosen(NamedTuple):
    """What is written about a recording."""

    places: list[tuple[str, Place]]
    """(checkpoint file, place in it) of each embedded clip."""
    recording: RecordingRow
    failures: list[FailureRow]
    left_clips: int
    """Clips that are known and were neither embedded nor refused, as the run's budget was used up."""


def choose(plan: RecordingPlan, receipts: Iterable[Receipt], *, may_be_unfinished: bool) -> Chosen:
    """One row for each clip, and manifest row that wants it, of those that are asked for today.

    Args:
      plan: of the recording; what the checkpoint held at launch is in it.
      receipts: of this run.
      may_be_unfinished: whether segments and clips may be left for the next run, as the budget of requests was used up.

    Raises LostClip unless clips = embedded + failed + skipped, and nothing is left without a reason.
    """
    held = Held([*plan.receipts, *receipts])
    rows_by_take: dict[Take, list[ManifestRow]] = defaultdict(list)
    for row in plan.rows:
        rows_by_take[row.take].append(row)
    clips: dict[str, list[Use]] = {}
    censuses: list[Census] = []
    failures: dict[tuple[str | None, str, int | None], FailureRow] = {
        (None, failure.code, failure.manifest_row): failure for failure in plan.failures
    }
    unread = 0
    for segment_id, takes in plan.segments:
        census = held.census(segment_id)
        if census is None:
            unread += 1
            continue
        censuses.append(census)
        for failure in held.segment_failures(segment_id):
            failures.setdefault((None, failure.code, None), failure)
        for number, code, message in census.failed_takes:
            for row in rows_by_take[takes[number]]:
                failures.setdefault((None, code, row.row), _failed_take(census, row, code, message))
        for clip in census.clips:
            uses = clips.setdefault(clip.clip_id, [])
            for number, clip_index in clip.wanted:
                uses.extend(
                    _uses(rows_by_take[takes[number]], clip_index) if plan.rows else [Use(clip_index, None, ())]
                )
    places: list[tuple[str, Place]] = []
    left = failed = 0
    for clip_id, uses in clips.items():
        if (found := held.embedded.get(clip_id)) is not None:
            file, reference = found
            places.append((file, Place(reference.offset, tuple(uses))))
        elif (refused := held.clip_failure(clip_id)) is not None:
            failures[clip_id, "", None] = refused
            failed += 1
        else:
            left += 1
    if (unread or left) and not may_be_unfinished:
        raise LostClip(
            f"{plan.recording.uri!r} has {unread} segments without a census and {left} clips that are neither embedded nor "
            "failed: please report this as a bug"
        )
    found_failures = sorted(failures.values(), key=lambda f: (f.start_s or 0.0, f.manifest_row or 0, f.code))
    recording = _recording_row(plan, censuses, len(places), failed, found_failures, is_unfinished=bool(unread or left))
    return Chosen(places, recording, found_failures, left)


def _uses(rows: list[ManifestRow], clip_index: int) -> list[Use]:
    return [Use(clip_index, row.row, row.metadata) for row in rows]


def _failed_take(census: Census, row: ManifestRow, code: str, message: str) -> FailureRow:
    return FailureRow.at_no_place(
        census.recording_uri,
        census.recording_version,
        "manifest",
        code,
        f"line {row.line}: {message}",
        manifest_row=row.row,
    )


def _recording_row(
    plan: RecordingPlan,
    censuses: list[Census],
    embedded: int,
    failed: int,
    failures: list[FailureRow],
    *,
    is_unfinished: bool,
) -> RecordingRow:
    facts = next((census for census in censuses if census.source_rate_hz is not None), None)
    too_short = sum(census.skipped_too_short for census in censuses)
    too_quiet = sum(census.skipped_too_quiet for census in censuses)
    durations = [census.duration_s for census in censuses if census.duration_s is not None]
    status: Status
    if is_unfinished:
        status = "unfinished"
    elif failures:
        status = "partial" if embedded else "failed"
    else:
        status = "embedded" if embedded else "skipped"
    return RecordingRow(
        recording_uri=plan.recording.uri,
        recording_version=plan.recording.version,
        size_bytes=plan.recording.size_bytes,
        duration_s=sum(durations) if durations and plan.is_whole else None,
        container=facts.container if facts else None,
        codec=facts.codec if facts else None,
        decoder=facts.decoder if facts else None,
        source_rate_hz=facts.source_rate_hz if facts else None,
        source_channels=facts.source_channels if facts else None,
        gaps=sum(census.gaps for census in censuses),
        gap_s=sum(census.gap_s for census in censuses),
        clips=embedded + failed + too_short + too_quiet,
        embedded=embedded,
        failed=failed,
        skipped_too_short=too_short,
        skipped_too_quiet=too_quiet,
        status=status,
        failure_codes=sorted({failure.code for failure in failures}),
    )


_KNOWN: Packing[RecordingPlan | Receipt] = Packing(RecordingPlan, Receipt)
_PLACES: Packing[Places] = Packing(Places)


def _unpack_places(of_file: tuple[str, Iterable[bytes]]) -> tuple[str, list[tuple[Place, ...]]]:
    return of_file[0], [_PLACES.unpack(places).places for places in of_file[1]]


class _Choose(beam.DoFn):
    def __init__(self, run_id: str, *, may_be_unfinished: bool) -> None:
        self._own_files = run_id
        self._may_be_unfinished = may_be_unfinished

    def process(
        self, element: tuple[str, list[RecordingPlan | Receipt]]
    ) -> Iterator[tuple[str, bytes] | pvalue.TaggedOutput]:
        known = element[1]
        (plan,) = (item for item in known if isinstance(item, RecordingPlan))
        receipts = [item for item in known if isinstance(item, Receipt)]
        chosen = choose(plan, receipts, may_be_unfinished=self._may_be_unfinished)
        by_file: dict[str, list[Place]] = {}
        for file, place in chosen.places:
            by_file.setdefault(file, []).append(place)
        for file, places in by_file.items():
            yield file, _PLACES.pack(Places(tuple(places)))
        yield pvalue.TaggedOutput(RECORDINGS, chosen.recording)
        for failure in chosen.failures:
            yield pvalue.TaggedOutput(FAILURES, failure)
        counts = {
            "reused": sum(not file.startswith(self._own_files) for file, _ in chosen.places),
            "rows": sum(len(place.uses) for _, place in chosen.places),
            "left/clips": chosen.left_clips,
        }
        yield pvalue.TaggedOutput(COUNTS, {name: count for name, count in counts.items() if count})


class ChooseRows(beam.PTransform):
    """Plans and this run's receipts into the places of the rows to write, keyed by checkpoint file, recordings' rows and failures.

    Only references are grouped here: the embeddings stay in their files until they are written.

    Args:
      run_id: of this run: what is in other runs' files is reused.
      may_be_unfinished: see `choose`.

    Expects (plans, receipts), both keyed by the recording's URI.
    """

    def __init__(self, run_id: str, *, may_be_unfinished: bool) -> None:
        super().__init__()
        self._choose = _Choose(run_id, may_be_unfinished=may_be_unfinished)

    def expand(self, known: tuple[beam.PCollection, beam.PCollection]) -> dict[str, beam.PCollection]:
        chosen = (
            known
            | "Group receipts" >> GroupPacked(_KNOWN)
            | "Choose a row a clip"
            >> beam.ParDo(self._choose).with_outputs(RECORDINGS, FAILURES, COUNTS, main="places")
        )
        return {
            "places": chosen.places
            | "Group by checkpoint file" >> beam.GroupByKey()
            | "Unpack places" >> beam.Map(_unpack_places),
            RECORDINGS: chosen[RECORDINGS],
            FAILURES: chosen[FAILURES],
            COUNTS: chosen[COUNTS],
        }
