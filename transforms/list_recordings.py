"""First stage: from `--input` to recordings, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from audio.listing import Ignored, Unlisted, list_input
from audio.recording import Recording, Segment
from rows.identity import segment_id
from rows.model import Census, FailureRow, Receipt
from transforms.quiet import quiet_worker

IGNORED = "ignored"
UNLISTED = "unlisted"


def unlisted_receipt(unlisted: Unlisted) -> Receipt:
    """The receipt of something that is no recording: its row and its failure, with no checkpoint file behind them."""
    recording = Recording(unlisted.uri, "", 0)
    failure = FailureRow(
        unlisted.uri, "", None, None, None, "list", unlisted.code, unlisted.message, retryable=False, attempts=0
    )
    census = Census(unlisted.uri, "", 0, 0, 0, 0, None, None, None, None, None, None, 0, 0.0)
    return Receipt(segment_id(Segment(recording), ""), "", (), (failure,), census)


class _ListInputs(beam.DoFn):
    def setup(self) -> None:
        quiet_worker()

    def process(self, element: str) -> Iterator[tuple[str, Recording | Unlisted] | pvalue.TaggedOutput]:
        for listed in list_input(element):
            if isinstance(listed, Ignored):
                yield pvalue.TaggedOutput(IGNORED, listed.uri)
            else:
                yield listed.uri, listed


def _once(keyed: tuple[str, Iterable[Recording | Unlisted]]) -> Recording | Unlisted:
    """One of what is listed under one URI: the latest recording, if the file changed while it was being listed."""
    listed = list(keyed[1])
    recordings = [item for item in listed if isinstance(item, Recording)]
    return max(recordings, key=lambda recording: (_written(recording), recording)) if recordings else listed[0]


def _written(recording: Recording) -> int:
    """What grows from version to version: an object's generation, a local file's time of modification."""
    return int(recording.version.rpartition("-")[2])


def _by_uri(listed: Recording | Unlisted) -> str:
    return listed.uri


class _TellApart(beam.DoFn):
    def process(self, element: Recording | Unlisted) -> Iterator[Recording | pvalue.TaggedOutput]:
        if isinstance(element, Recording):
            yield element
        else:
            yield pvalue.TaggedOutput(UNLISTED, unlisted_receipt(element))


class ListRecordings(beam.PTransform):
    """Lists files, folders and globs into recordings, each once.

    Args:
      inputs: what the user named, at least one.
      limit: only this many, the first in the order of their URIs; None for all.

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
            | "List inputs" >> beam.ParDo(_ListInputs()).with_outputs(IGNORED, main="by_uri")
        )
        each = listed.by_uri | "Group same files" >> beam.GroupByKey() | "Keep each once" >> beam.Map(_once)
        if self._limit is not None:
            each = (
                each
                | "Take the first" >> beam.combiners.Top.Smallest(self._limit, key=_by_uri)
                | "Flatten the first" >> beam.FlatMap(lambda first: first)
            )
        told_apart = each | "Tell apart" >> beam.ParDo(_TellApart()).with_outputs(UNLISTED, main="recordings")
        return {
            "recordings": told_apart.recordings,
            UNLISTED: told_apart[UNLISTED],
            IGNORED: listed[IGNORED] | "Name ignored once" >> beam.Distinct(),
        }
