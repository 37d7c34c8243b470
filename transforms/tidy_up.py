"""Last stage on Dataflow: what a launcher that waits does once the tables are written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam

from rows.job_notes import note_closed
from rows.store import open_store
from transforms.files import absolute, read_whole, remove
from transforms.leftovers import sweep


class Leftovers(NamedTuple):
    """What is to go once a run has ended well."""

    outputs: tuple[str, ...]
    """Files of the run before; those that this one wrote again stay."""
    staged: tuple[str, ...] = ()
    """Folders of staged clips: what workers that were lost have left there, or what a batch prediction job is done with."""
    closed: tuple[tuple[str, str, str], ...] = ()
    """(checkpoint, run, state) for each batch prediction job whose results are stored: the run that wrote its clips."""


def remove_replaced(existing: Iterable[str], written: Iterable[str]) -> None:
    """Removes those of the earlier run's output files that the finished run did not write again. Raises FileError."""
    for path in sorted(set(map(absolute, existing)) - set(map(absolute, written))):
        remove(path)


class _TidyUp(beam.DoFn):
    def __init__(self, leftovers: Leftovers) -> None:
        self._leftovers = leftovers

    def process(self, element: str) -> None:
        remove_replaced(self._leftovers.outputs, [*json.loads(read_whole(element))["files"], element])
        _close(self._leftovers)


class _CloseJobs(beam.DoFn):
    def __init__(self, leftovers: Leftovers) -> None:
        self._leftovers = leftovers

    def process(self, _element: object) -> None:
        _close(self._leftovers)


def _close(leftovers: Leftovers) -> None:
    for checkpoint, run_id, state in leftovers.closed:
        note_closed(open_store(checkpoint), run_id, state)
    for folder in leftovers.staged:
        sweep(folder)


class TidyUp(beam.PTransform):
    """Removes leftovers; expects the path of the summary, once that is written."""

    def __init__(self, leftovers: Leftovers) -> None:
        super().__init__()
        self._leftovers = leftovers

    def expand(self, summary: beam.PCollection) -> beam.PCollection:
        return summary | "Remove leftovers" >> beam.ParDo(_TidyUp(self._leftovers))


class CloseJobs(beam.PTransform):
    """Closes batch prediction jobs, and removes their files; expects one element, once their results are stored."""

    def __init__(self, leftovers: Leftovers) -> None:
        super().__init__()
        self._leftovers = leftovers

    def expand(self, stored: beam.PCollection) -> beam.PCollection:
        return stored | "Close" >> beam.ParDo(_CloseJobs(self._leftovers))
