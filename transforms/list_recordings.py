"""First stage: from `--input` to recordings, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from audio.listing import Ignored, Unlisted, list_input
from audio.recording import Recording
from rows.identity import segment_id
from rows.model import Census, FailureRow, Receipt

IGNORED = "ignored"
UNLISTED = "unlisted"


def unlisted_receipt(unlisted: Unlisted) -> Receipt:
    """The receipt of something that is no recording: its row and its failure, with no checkpoint file behind them."""
    recording = Recording(unlisted.uri, "", 0)
    failure = FailureRow(
        unlisted.uri, "", None, None, None, "list", unlisted.code, unlisted.message, retryable=False, attempts=0
    )
    census = Census(unlisted.uri, "", 0, 0, 0, 0, None, None, None, None, None, None, 0, 0.0)
    return Receipt(segment_id(recording), "", (), (failure,), census)


class _ListInputs(beam.DoFn):
    def process(self, element: str) -> Iterator[Recording | pvalue.TaggedOutput]:
        for listed in list_input(element):
            match listed:
                case Recording():
                    yield listed
                case Ignored():
                    yield pvalue.TaggedOutput(IGNORED, listed.uri)
                case Unlisted():
                    yield pvalue.TaggedOutput(UNLISTED, (listed.uri, unlisted_receipt(listed)))


def _same_file_once(keyed: tuple[str, Iterable[Recording]]) -> Recording:
    """One recording of those listed under one URI: the latest, if the file changed while it was being listed."""
    return max(keyed[1], key=lambda recording: (_written(recording), recording))


def _written(recording: Recording) -> int:
    """What grows from version to version: an object's generation, a local file's time of modification."""
    return int(recording.version.rpartition("-")[2])


class ListRecordings(beam.PTransform):
    """Lists files, folders and globs into recordings, each once.

    Args:
      inputs: what the user named, at least one.
      limit: only this many recordings, the first in the order of their URIs; None for all.

    Returns a dict of PCollections: `recordings`; `ignored` (URIs of files in folders without an extension of audio
    files); `unlisted` (receipts of what cannot be a recording).
    """

    def __init__(self, inputs: tuple[str, ...], limit: int | None = None) -> None:
        super().__init__()
        if not inputs:
            raise ValueError("inputs is empty: expected at least one file, folder or glob")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}: expected at least 1, or None")
        self._inputs = inputs
        self._limit = limit

    def expand(self, begin: pvalue.PBegin) -> dict[str, beam.PCollection]:
        listed = (
            begin
            | "Name inputs" >> beam.Create(self._inputs)
            | "List inputs" >> beam.ParDo(_ListInputs()).with_outputs(IGNORED, UNLISTED, main="recordings")
        )
        recordings = (
            listed.recordings
            | "Key by URI" >> beam.Map(lambda recording: (recording.uri, recording))
            | "Group same files" >> beam.GroupByKey()
            | "Keep each once" >> beam.Map(_same_file_once)
        )
        if self._limit is not None:
            recordings = (
                recordings
                | "Take the first" >> beam.combiners.Top.Smallest(self._limit)
                | "Flatten the first" >> beam.FlatMap(lambda first: first)
            )
        return {
            "recordings": recordings,
            IGNORED: listed[IGNORED] | "Name ignored once" >> beam.Distinct(),
            UNLISTED: listed[UNLISTED]
            | "Group same unlisted" >> beam.GroupByKey()
            | "Keep one receipt" >> beam.Map(lambda keyed: next(iter(keyed[1]))),
        }
