"""Fourth stage: for each segment one row a clip of those that the receipts point at, and the recording's own row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from rows.model import Census, ClipReference, FailureRow, Receipt, RecordingRow, Status

RECORDINGS = "recordings"
FAILURES = "failures"


class LostClip(Exception):
    """A clip that was decoded has neither an embedding nor a failure: the run must not pretend to be complete."""


def choose(receipts: Iterable[Receipt]) -> tuple[list[tuple[str, ClipReference]], RecordingRow, list[FailureRow]]:
    """One row for each clip of a segment: the embeddings' places as (file, reference), the recording's row, the failures.

    A clip that was embedded more than once (a bundle was tried again) keeps the row of the first file by name, and
    an embedding is preferred to a failure. Raises LostClip unless clips = embedded + failed + skipped.
    """
    receipts = sorted(receipts, key=lambda receipt: receipt.file)
    census = max(
        (receipt.census for receipt in receipts if receipt.census is not None), key=lambda c: c.clips, default=None
    )
    if census is None:
        raise LostClip(f"segment {receipts[0].segment_id} has rows but no census")
    embedded: dict[str, tuple[str, ClipReference]] = {}
    for receipt in receipts:
        for reference in receipt.clips:
            embedded.setdefault(reference.clip_id, (receipt.file, reference))
    failures: dict[tuple[str | None, str], FailureRow] = {}
    for failure in sorted(
        (f for receipt in receipts for f in receipt.failures), key=lambda f: (f.start_s or 0.0, f.code)
    ):
        if failure.clip_id not in embedded:
            failures.setdefault((failure.clip_id, "" if failure.clip_id else failure.code), failure)
    row = _recording_row(census, len(embedded), list(failures.values()))
    if row.clips != row.embedded + row.failed + row.skipped_too_short + row.skipped_too_quiet:
        raise LostClip(
            f"{census.recording_uri!r} has {row.clips} clips, but {row.embedded} embedded, {row.failed} failed and "
            f"{row.skipped_too_short + row.skipped_too_quiet} skipped: please report this as a bug"
        )
    return list(embedded.values()), row, list(failures.values())


def _recording_row(census: Census, embedded: int, failures: list[FailureRow]) -> RecordingRow:
    status: Status = ("partial" if embedded else "failed") if failures else ("embedded" if embedded else "skipped")
    return RecordingRow(
        recording_uri=census.recording_uri,
        recording_version=census.recording_version,
        size_bytes=census.size_bytes,
        duration_s=census.duration_s,
        container=census.container,
        codec=census.codec,
        decoder=census.decoder,
        source_rate_hz=census.source_rate_hz,
        source_channels=census.source_channels,
        gaps=census.gaps,
        gap_s=census.gap_s,
        clips=census.clips,
        embedded=embedded,
        failed=sum(failure.clip_id is not None for failure in failures),
        skipped_too_short=census.skipped_too_short,
        skipped_too_quiet=census.skipped_too_quiet,
        status=status,
        failure_codes=sorted({failure.code for failure in failures}),
    )


class _Choose(beam.DoFn):
    def process(
        self, element: tuple[str, Iterable[Receipt]]
    ) -> Iterator[tuple[str, tuple[int, ...]] | pvalue.TaggedOutput]:
        places, recording, failures = choose(element[1])
        offsets: dict[str, list[int]] = {}
        for file, reference in places:
            offsets.setdefault(file, []).append(reference.offset)
        for file, of_file in offsets.items():
            yield file, tuple(of_file)
        yield pvalue.TaggedOutput(RECORDINGS, recording)
        for failure in failures:
            yield pvalue.TaggedOutput(FAILURES, failure)


class ChooseRows(beam.PTransform):
    """Receipts into the places of the rows to write, keyed by checkpoint file, recordings' rows and failures.

    Only references are grouped here: the embeddings stay in their files until they are written.
    """

    def expand(self, receipts: beam.PCollection) -> dict[str, beam.PCollection]:
        chosen = (
            receipts
            | "Key by segment" >> beam.Map(lambda receipt: (receipt.segment_id, receipt))
            | "Group receipts" >> beam.GroupByKey()
            | "Choose a row a clip" >> beam.ParDo(_Choose()).with_outputs(RECORDINGS, FAILURES, main="places")
        )
        return {
            "places": chosen.places | "Group by checkpoint file" >> beam.GroupByKey(),
            RECORDINGS: chosen[RECORDINGS],
            FAILURES: chosen[FAILURES],
        }
