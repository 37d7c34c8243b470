"""First stage, with `--manifest`: from the manifest to its rows, each under its recording's URI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from audio.manifest import ManifestProblem, ManifestSettings, read_manifest
from transforms.quiet import quiet_worker

PROBLEMS = "problems"


class _Read(beam.DoFn):
    def setup(self) -> None:
        quiet_worker()

    # The elements' types are not told to Beam: it would store rows as schema rows, with classes of its own making.
    def process(self, element: ManifestSettings) -> Iterator[Any]:
        for row in read_manifest(element):
            if isinstance(row, ManifestProblem):
                yield pvalue.TaggedOutput(PROBLEMS, row)
            else:
                yield row.uri, row


class ReadManifest(beam.PTransform):
    """Reads a manifest on a worker, row by row: a file of millions of rows passes through no memory as a whole.

    Args:
      settings: which manifest, and how it is read.

    Returns a dict of PCollections: `rows`, pairs of a recording's URI and a ManifestRow; `problems`, ManifestProblems.
    A manifest that cannot be read to its end fails the stage with ManifestError, and no row of it passes.
    """

    def __init__(self, settings: ManifestSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, begin: pvalue.PBegin) -> dict[str, beam.PCollection]:
        read = (
            begin
            | "Name manifest" >> beam.Create([self._settings])
            | "Read rows" >> beam.ParDo(_Read()).with_outputs(PROBLEMS, main="rows")
        )
        return {"rows": read.rows, PROBLEMS: read[PROBLEMS]}
