import io
from typing import Any

import pytest
from rich.console import Console

from pipeline.report import print_summary, shortfall
from transforms.sum_up import summarise

COUNTS = {
    "recordings": 4,
    "recordings/embedded": 1,
    "recordings/partial": 1,
    "recordings/skipped": 1,
    "recordings/failed": 1,
    "clips": 12345,
    "embedded": 12000,
    "failed": 300,
    "skipped/too_short": 40,
    "skipped/too_quiet": 5,
    "failures/decode/truncated": 1,
    "failures/endpoint/timeout": 300,
    "gaps": 7,
    "audio_ms": 3_723_500,
    "requests": 3100,
    "retries": 12,
}


def summary(counts: dict[str, int] | None = None, ignored: list[str] | None = None, **facts: Any) -> dict[str, Any]:
    return summarise(
        COUNTS if counts is None else counts, ignored or [], {"model_id": "hear", "files": [], "tables": [], **facts}
    )


def printed(some: dict[str, Any]) -> list[str]:
    """Lines with their columns' spaces made one."""
    file = io.StringIO()
    print_summary(some, Console(file=file, width=200))
    return [" ".join(line.replace("│", " ").split()) for line in file.getvalue().splitlines()]


def test_all_counts_are_shown() -> None:
    lines = printed(summary())
    for line in (
        "recordings 4 1 embedded, 1 partial, 1 skipped, 1 failed",
        "clips 12,345 1 h 2 min of audio decoded",
        "embedded 12,000 0 reused from the checkpoint",
        "failed 300",
        "skipped 45 5 too quiet, 40 too short",
        "requests 3,100 12 of them retries",
        "failures in decode 1 truncated",
        "failures in endpoint 300 timeout",
        "gaps filled 7 with silence, where frames are missing",
        "model hear",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("audio_ms", "said"), [(0, "0.0 s"), (59_400, "59.4 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")]
)
def test_how_much_audio_it_was(audio_ms: int, said: str) -> None:
    assert f"clips 0 {said} of audio decoded" in printed(summary({"audio_ms": audio_ms}))


def test_what_is_not_is_not_shown() -> None:
    lines = printed(summary({}))
    assert not [line for line in lines if any(word in line for word in ("gaps", "failures", "ignored", "throttled"))]


def test_waiting_for_the_quota_is_said() -> None:
    lines = printed(summary({"requests": 9, "retries": 2, "throttled_ms": 61_000}))
    assert "requests 9 2 of them retries, 1 min 1 s throttled" in lines


def test_ignored_files_are_counted_and_the_first_named() -> None:
    assert printed(summary(ignored=["/in/b.txt", "/in/a.txt"]))[-1] == (
        "ignored 2 files without an extension of audio files: '/in/a.txt', '/in/b.txt'"
    )
    last = printed(summary(ignored=[f"/in/{number:04d}.txt" for number in range(1500)]))[-1]
    assert last.startswith("ignored 1,500 files")
    assert last.endswith("'/in/0009.txt' and 1,490 more")


def test_where_the_results_are_is_said_last_each_on_a_line() -> None:
    files = ["out/[bold]r-00000-of-00001.tfrecord", "out/" + "x" * 300]
    assert printed(summary(files=files))[-2:] == files


def test_what_users_named_is_shown_as_it_is() -> None:
    assert "model [/b] [red]mine" in printed(summary(model_id="[/b] [red]mine"))
    assert printed(summary(ignored=["/in/[/b].txt"]))[-1].endswith("'/in/[/b].txt'")


@pytest.mark.parametrize(
    ("counts", "allowed", "said"),
    [
        (COUNTS, 1.0, None),
        (COUNTS, 0.5, None),
        (COUNTS, 0.49, "2 of 4 recordings have failures, more than --max_failure_fraction 0.49 allows"),
        (COUNTS, 0.0, "2 of 4 recordings have failures, more than --max_failure_fraction 0 allows"),
        ({"recordings": 1, "recordings/embedded": 1, "clips": 1, "embedded": 1}, 0.0, None),
        ({"recordings": 1, "recordings/failed": 1}, 1.0, "nothing could be embedded"),
        (
            {"recordings": 1, "recordings/skipped": 1, "clips": 1, "skipped/too_quiet": 1},
            1.0,
            "nothing was embedded: all clips were skipped (1 too quiet)",
        ),
        ({}, 1.0, "nothing could be embedded"),
    ],
)
def test_when_a_finished_run_is_no_success(counts: dict[str, int], allowed: float, said: str | None) -> None:
    missed = shortfall(summary(counts), allowed)
    assert missed is None if said is None else missed is not None and missed.startswith(said)
