"""Seventh stage: the summary of the run, combined from rows, since a templated job has no launcher that could count."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from rows.model import FailureRow, RecordingRow
from transforms.files import write_whole

MAX_IGNORED_NAMES = 1000

Counts = dict[str, int]

T = TypeVar("T")


def count_recording(row: RecordingRow) -> Counts:
    """A recording's part of the summary's counts."""
    return {
        "recordings": 1,
        f"recordings/{row.status}": 1,
        "clips": row.clips,
        "embedded": row.embedded,
        "failed": row.failed,
        "skipped/too_short": row.skipped_too_short,
        "skipped/too_quiet": row.skipped_too_quiet,
        "gaps": row.gaps,
        "audio_ms": round((row.duration_s or 0.0) * 1000),
    }


def count_failure(row: FailureRow) -> Counts:
    """A failure's part of the summary's counts."""
    return {f"failures/{row.stage}/{row.code}": 1, "retryable_failures": int(row.retryable)}


def add_counts(counts: Iterable[Counts]) -> Counts:
    """The sums, by name."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def _below(counts: Counts, group: str) -> Counts:
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix): count for name, count in sorted(counts.items()) if name.startswith(prefix) and count
    }


def summarise(counts: Counts, ignored: list[str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The summary: whole numbers for recordings and clips with their break-down beside them, and facts about the run."""
    failures: dict[str, Counts] = {}
    for name, count in _below(counts, "failures").items():
        stage, code = name.split("/", 1)
        failures.setdefault(stage, {})[code] = count
    skipped = _below(counts, "skipped")
    statuses = ("embedded", "partial", "skipped", "failed", "unfinished")
    return {
        "recordings": counts.get("recordings", 0),
        "recordings_by_status": {status: counts.get(f"recordings/{status}", 0) for status in statuses},
        "clips": counts.get("clips", 0),
        "embedded": counts.get("embedded", 0),
        "reused": counts.get("reused", 0),
        "failed": counts.get("failed", 0),
        "skipped": sum(skipped.values()),
        "skipped_by_reason": skipped,
        "failures_by_stage": failures,
        "retryable_failures": counts.get("retryable_failures", 0),
        "audio_s": counts.get("audio_ms", 0) / 1000,
        "gaps_filled": counts.get("gaps", 0),
        "rows": counts.get("rows", 0),
        "left": {"recordings": counts.get("recordings/unfinished", 0), "clips": counts.get("left/clips", 0)},
        "damaged_checkpoint_files": counts.get("damaged_files", 0),
        "requests": counts.get("requests", 0),
        "retries": counts.get("retries", 0),
        "retries_by_code": _below(counts, "retries"),
        "rejections": counts.get("rejections", 0),
        "throttled_s": counts.get("throttled_ms", 0) / 1000,
        "staged_clips": counts.get("staged", 0),
        "clipped_samples": counts.get("clipped_samples", 0),
        "ignored_files": len(ignored),
        "ignored": sorted(ignored)[:MAX_IGNORED_NAMES],
        **facts,
    }


class _WriteSummary(beam.DoFn):
    def __init__(self, path: str, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._facts = dict(facts)

    def process(
        self,
        _once: None,
        counts: Counts,
        ignored: Iterable[str],
        merged: Iterable[dict[str, Any]],
        *written: Iterable[str],
    ) -> Iterator[str]:
        files = sorted(name for names in written for name in names)
        tables = sorted(merged, key=lambda table: str(table["table"]))
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        facts = {**self._facts, "finished": finished, "files": files, "tables": tables}
        summary = summarise(counts, list(ignored), facts)
        write_whole(self._path, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
        yield self._path


class _CountAll(beam.DoFn, Generic[T]):
    """Adds up what a function counts of elements: one element a bundle instead of one for each."""

    def __init__(self, count: Callable[[T], Counts]) -> None:
        self._count = count

    def start_bundle(self) -> None:
        self._counts: Counter[str] = Counter()

    def process(self, element: T) -> None:
        self._counts.update(self._count(element))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._counts:
            window = GlobalWindow()
            yield WindowedValue(dict(self._counts), window.max_timestamp(), [window])


class SumUp(beam.PTransform):
    """Writes the summary once all tables are written.

    Args:
      path: of the summary's file.
      facts: what is known about the run before it starts, JSON values.

    Expects a dict of PCollections: `recordings`, `failures` (rows), `counts` (dicts of numbers), `ignored` (URIs), and
    `written`, a tuple of PCollections of file names, and `merged`, one of what was
    done to tables; either may be empty. It waits for both.
    """

    def __init__(self, path: str, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self._path = path
        self._facts = facts

    def expand(self, tables: dict[str, Any]) -> beam.PCollection:
        recordings = tables["recordings"] | "Count recordings" >> beam.ParDo(_CountAll(count_recording))
        failures = tables["failures"] | "Count failures" >> beam.ParDo(_CountAll(count_failure))
        counts = (
            (recordings, failures, tables["counts"])
            | "All counts" >> beam.Flatten()
            | "Add up" >> beam.CombineGlobally(add_counts)
        )
        once = recordings.pipeline | "Once" >> beam.Create([None])
        nothing = recordings.pipeline | "Nothing" >> beam.Create([])
        (merged,) = tables["merged"] or (nothing,)
        return once | "Write summary" >> beam.ParDo(
            _WriteSummary(self._path, self._facts),
            beam.pvalue.AsSingleton(counts),
            beam.pvalue.AsIter(tables["ignored"]),
            beam.pvalue.AsIter(merged),
            *map(beam.pvalue.AsIter, tables["written"] or (nothing,)),  # Beam wants one for `*written`
        )
