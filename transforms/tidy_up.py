"""Last stage on Dataflow: what a launcher that waits does once the tables are written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam

from transforms.files import absolute, read_whole, remove
from transforms.leftovers import sweep


class Leftovers(NamedTuple):
    """What is to go once a run has ended well."""

    outputs: tuple[str, ...]
    """Files of the run before; those that this one wrote again stay."""
    staged: str | None
    """The folder of this run's staged clips: what workers that were lost have left there."""


def remove_replaced(existing: Iterable[str], written: Iterable[str]) -> None:
    """Removes those of the earlier run's output files that the finished run did not write again. Raises FileError."""
    for path in sorted(set(map(absolute, existing)) - set(map(absolute, written))):
        remove(path)


class _TidyUp(beam.DoFn):
    def __init__(self, leftovers: Leftovers) -> None:
        self._leftovers = leftovers

    def process(self, element: str) -> None:
        remove_replaced(self._leftovers.outputs, [*json.loads(read_whole(element))["files"], element])
        if self._leftovers.staged is not None:
            sweep(self._leftovers.staged)


class TidyUp(beam.PTransform):
    """Removes leftovers; expects the path of the summary, once that is written."""

    def __init__(self, leftovers: Leftovers) -> None:
        super().__init__()
        self._leftovers = leftovers

    def expand(self, summary: beam.PCollection) -> beam.PCollection:
        return summary | "Remove leftovers" >> beam.ParDo(_TidyUp(self._leftovers))
