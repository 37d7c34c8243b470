"""First stage: from `--input` to recordings."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from audio.listing import Ignored, Unlisted, list_input
from audio.recording import Recording
from transforms.quiet import quiet_worker

IGNORED = "ignored"


class _ListInputs(beam.DoFn):
    def setup(self) -> None:
        quiet_worker()

    def process(self, element: str) -> Iterator[tuple[str, Recording | Unlisted] | pvalue.TaggedOutput]:
        for listed in list_input(element):
            if isinstance(listed, Ignored):
                yield pvalue.TaggedOutput(IGNORED, listed.uri)
            else:
                yield listed.uri, listed


class ListRecordings(beam.PTransform):
    """Lists files, folders and globs.

    Args:
      inputs: what the user named, at least one.

    Returns a dict of PCollections: `listed` ((uri, Recording | Unlisted), as often as inputs name it); `ignored` (URIs of
    files in folders without an extension of audio files).
    """

    def __init__(self, inputs: tuple[str, ...]) -> None:
        super().__init__()
        if not inputs:
            raise ValueError("inputs is empty: expected at least one file, folder or glob")
        self._inputs = inputs

    def expand(self, begin: pvalue.PBegin) -> dict[str, beam.PCollection]:
        listed = (
            begin
            | "Name inputs" >> beam.Create(self._inputs)
            | "List inputs" >> beam.ParDo(_ListInputs()).with_outputs(IGNORED, main="listed")
        )
        return {"listed": listed.listed, IGNORED: listed[IGNORED] | "Name ignored once" >> beam.Distinct()}
