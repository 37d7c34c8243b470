import json
import re
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from rows.model import FailureRow, RecordingRow
from tests.rows.samples import failure_row
from transforms.sum_up import MAX_IGNORED_NAMES, SumUp, add_counts, count_failure, count_recording, summarise

COUNT = st.integers(0, 10**12)


@st.composite
def recordings(draw: st.DrawFn) -> RecordingRow:
    embedded, failed, short, quiet = (draw(COUNT) for _ in range(4))
    return RecordingRow(
        "/in/a.wav",
        "1-1",
        0,
        draw(st.none() | st.integers(0, 10**8).map(lambda ms: ms / 1000)),
        *(None, None, None, None, None),
        draw(COUNT),
        0.0,
        embedded + failed + short + quiet,
        embedded,
        failed,
        short,
        quiet,
        draw(st.sampled_from(["embedded", "partial", "skipped", "failed"])),
        [],
    )


FAILURES = st.builds(
    lambda stage, code: failure_row(stage=stage, code=code),
    st.sampled_from(["list", "fetch", "decode", "endpoint"]),
    st.sampled_from(["truncated", "timeout", "rejected", "a/b"]),
)


def counts_of(rows: list[RecordingRow], failures: list[FailureRow]) -> list[dict[str, int]]:
    return [*map(count_recording, rows), *map(count_failure, failures)]


@given(st.lists(recordings(), max_size=20), st.lists(FAILURES, max_size=20))
def test_whole_and_parts_agree_with_the_rows(rows: list[RecordingRow], failures: list[FailureRow]) -> None:
    summary = summarise(add_counts(counts_of(rows, failures)), [], {})
    assert summary["recordings"] == len(rows) == sum(summary["recordings_by_status"].values())
    for status, count in summary["recordings_by_status"].items():
        assert count == len([row for row in rows if row.status == status])
    for name in ("clips", "embedded", "failed"):
        assert summary[name] == sum(getattr(row, name) for row in rows)
    assert summary["clips"] == summary["embedded"] + summary["failed"] + summary["skipped"]
    assert summary["skipped"] == sum(summary["skipped_by_reason"].values())
    for reason in ("too_short", "too_quiet"):
        assert summary["skipped_by_reason"].get(reason, 0) == sum(getattr(row, f"skipped_{reason}") for row in rows)
    assert summary["gaps_filled"] == sum(row.gaps for row in rows)
    assert round(summary["audio_s"] * 1000) == sum(round((row.duration_s or 0) * 1000) for row in rows)
    by_code = {(stage, code): n for stage, codes in summary["failures_by_stage"].items() for code, n in codes.items()}
    assert by_code == {
        pair: sum((failure.stage, failure.code) == pair for failure in failures)
        for pair in {(failure.stage, failure.code) for failure in failures}
    }


@given(st.lists(recordings(), max_size=20), st.lists(FAILURES, max_size=20), st.data())
def test_counts_add_up_in_any_order_and_grouping(
    rows: list[RecordingRow], failures: list[FailureRow], data: st.DataObject
) -> None:
    counts = data.draw(st.permutations(counts_of(rows, failures)))
    cut = data.draw(st.integers(0, len(counts)))
    assert add_counts([add_counts(counts[:cut]), add_counts([]), add_counts(counts[cut:])]) == add_counts(counts)


def test_a_summary_of_nothing_has_all_its_numbers() -> None:
    summary = summarise({}, [], {})
    assert {
        summary[name]
        for name in ("recordings", "clips", "embedded", "reused", "failed", "skipped", "requests", "retries")
    } == {0}
    assert summary["failures_by_stage"] == summary["skipped_by_reason"] == {}


def test_of_very_many_ignored_files_all_are_counted_and_the_first_named() -> None:
    names = [f"/in/{number:05d}.txt" for number in reversed(range(MAX_IGNORED_NAMES + 5))]
    summary = summarise({}, names, {})
    assert summary["ignored_files"] == MAX_IGNORED_NAMES + 5
    assert summary["ignored"] == sorted(names)[:MAX_IGNORED_NAMES]


def test_facts_about_the_run_stand_beside_the_counts() -> None:
    assert summarise({"clips": 3}, [], {"run_id": "r"}) | {"run_id": "r", "clips": 3} == summarise(
        {"clips": 3}, [], {"run_id": "r"}
    )


class NameTable(beam.DoFn):
    """Stands for a table's writer: it names a file, and there must be no summary yet."""

    def __init__(self, summary: Path) -> None:
        self._summary = str(summary)

    def process(self, element: str) -> list[str]:
        assert not Path(self._summary).exists()
        return [element]


def sum_up(
    path: Path, rows: list[RecordingRow], failures: list[FailureRow], sent: list[dict[str, int]]
) -> dict[str, Any]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        written = tuple(
            pipeline
            | name >> beam.Create([name])
            | f"Reshuffle {name}" >> beam.Reshuffle()
            | f"Write {name}" >> beam.ParDo(NameTable(path))
            for name in ("out/b", "out/a")
        )
        tables = {
            "recordings": pipeline | "recordings" >> beam.Create(rows),
            "failures": pipeline | "failures" >> beam.Create(failures),
            "counts": pipeline | "counts" >> beam.Create(sent),
            "ignored": pipeline | "ignored" >> beam.Create(["/in/z.txt", "/in/кашель.txt"]),
            "written": written,
            "merged": (pipeline | "merged" >> beam.Create([{"table": "p.d.t", "inserted": 1}]),),
        }
        assert_that(tables | SumUp(str(path), {"run_id": "r", "limit": None}), equal_to([str(path)]))
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "кашель" in text
    return json.loads(text)


def test_the_summary_is_written_when_all_tables_are(tmp_path: Path) -> None:
    rows = [
        RecordingRow("/a", "1", 5, 2.5, None, None, None, None, None, 1, 0.1, 3, 2, 1, 0, 0, "partial", ["timeout"]),
        RecordingRow("/b", "1", 5, None, None, None, None, None, None, 0, 0.0, 0, 0, 0, 0, 0, "failed", ["not_audio"]),
    ]
    failures = [failure_row("c", stage="endpoint", code="timeout", retryable=True), failure_row(code="not_audio")]
    sent = [
        {"requests": 2, "retries": 1, "retries/UNAVAILABLE": 1, "staged": 3},
        {"requests": 1, "retries": 0, "throttled_ms": 1500, "rejections": 2, "clipped_samples": 7},
        {"requests": 0, "retries": 0},
        {"reused": 1, "rows": 5, "left/clips": 2},
        {"damaged_files": 1},
    ]
    summary = sum_up(tmp_path / "out" / "a-summary.json", rows, failures, sent)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", summary.pop("finished"))
    assert summary == {
        "recordings": 2,
        "recordings_by_status": {"embedded": 0, "partial": 1, "skipped": 0, "failed": 1, "unfinished": 0},
        "clips": 3,
        "embedded": 2,
        "reused": 1,
        "failed": 1,
        "skipped": 0,
        "skipped_by_reason": {},
        "failures_by_stage": {"decode": {"not_audio": 1}, "endpoint": {"timeout": 1}},
        "retryable_failures": 1,
        "audio_s": 2.5,
        "gaps_filled": 1,
        "rows": 5,
        "left": {"recordings": 0, "clips": 2},
        "damaged_checkpoint_files": 1,
        "requests": 3,
        "retries": 1,
        "throttled_s": 1.5,
        "retries_by_code": {"UNAVAILABLE": 1},
        "rejections": 2,
        "staged_clips": 3,
        "clipped_samples": 7,
        "ignored_files": 2,
        "ignored": ["/in/z.txt", "/in/кашель.txt"],
        "run_id": "r",
        "limit": None,
        "files": ["out/a", "out/b"],
        "tables": [{"table": "p.d.t", "inserted": 1}],
    }


def test_a_run_that_found_nothing_has_a_summary_too(tmp_path: Path) -> None:
    assert sum_up(tmp_path / "a-summary.json", [], [], [])["recordings"] == 0
