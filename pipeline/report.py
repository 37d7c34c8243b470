"""The summary for people: a table in the terminal, and the exit status."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_SHOWN_IGNORED = 10


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Prints the summary as a table, with failures by stage and code, ignored files and where the results are."""
    table = Table(title="summary", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    by_status = summary["recordings_by_status"]
    statuses = ", ".join(f"{count:,} {status}" for status, count in by_status.items() if count)
    table.add_row("recordings", f"{summary['recordings']:,}", statuses)
    table.add_row("clips", f"{summary['clips']:,}", f"{_duration(summary['audio_s'])} of audio decoded")
    table.add_row("  embedded", f"{summary['embedded']:,}", f"{summary['reused']:,} reused from the checkpoint")
    table.add_row("  failed", f"{summary['failed']:,}", "")
    skipped = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["skipped_by_reason"].items()
    )
    table.add_row("  skipped", f"{summary['skipped']:,}", skipped)
    throttled = f", {_duration(summary['throttled_s'])} throttled" if summary["throttled_s"] else ""
    if summary["rows"] != summary["embedded"]:
        table.add_row("rows", f"{summary['rows']:,}", "of the table: one for each clip and row of the manifest")
    if summary["left"]["recordings"]:
        clips = f", {summary['left']['clips']:,} clips of what was decoded" if summary["left"]["clips"] else ""
        table.add_row(
            "left",
            f"{summary['left']['recordings']:,}",
            f"recordings not finished{clips}: the same command goes on",
        )
    if summary["damaged_checkpoint_files"]:
        table.add_row(
            "damaged files",
            f"{summary['damaged_checkpoint_files']:,}",
            "of the checkpoint: what they lost was sent again",
        )
    for job in summary.get("batch_jobs", []):
        number = job["job"].rpartition("/")[2]
        table.add_row("batch job", f"{job['clips']:,}", Text(f"clips; {number} {job['state'].replace('_', ' ')}"))
    table.add_row("requests", f"{summary['requests']:,}", f"{summary['retries']:,} of them retries{throttled}")
    if summary["staged_clips"]:
        staged = "JSON lines" if summary["send"] == "batch" else "16-bit WAV"
        table.add_row("  staged clips", f"{summary['staged_clips']:,}", f"{staged} on Cloud Storage while in flight")
    if summary["clipped_samples"]:
        table.add_row("clipped samples", f"{summary['clipped_samples']:,}", "beyond full scale, in clips sent as WAV")
    for stage, codes in summary["failures_by_stage"].items():
        for code, count in codes.items():
            table.add_row(f"failures in {stage}", f"{count:,}", code)
    if summary["retryable_failures"]:
        table.add_row("of these failures", f"{summary['retryable_failures']:,}", "may pass in another run")
    if summary["gaps_filled"]:
        table.add_row("gaps filled", f"{summary['gaps_filled']:,}", "with silence, where frames are missing")
    table.add_row("model", "", Text(summary["model_id"]))
    console.print(table)
    if summary["ignored_files"]:
        names = ", ".join(repr(name) for name in summary["ignored"][:_SHOWN_IGNORED])
        rest = summary["ignored_files"] - min(_SHOWN_IGNORED, len(summary["ignored"]))
        console.print(
            f"ignored {summary['ignored_files']:,} files without an extension of audio files: {names}"
            + (f" and {rest:,} more" if rest else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for file in summary["files"]:
        console.print(file, markup=False, highlight=False, soft_wrap=True)
    for table in summary["tables"]:
        changes = ", ".join(f"{table[what]:,} rows {what}" for what in ("inserted", "updated", "deleted"))
        console.print(f"{table['table']}: {changes}", markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{seconds:.1f} s"


def shortfall(summary: dict[str, Any], max_failure_fraction: float) -> str | None:
    """Why a finished run is no success, or None if it is one."""
    by_status = summary["recordings_by_status"]
    if not summary["embedded"]:
        if summary["left"]["recordings"]:
            return None
        if summary["skipped"] == summary["clips"] > 0 and not summary["failures_by_stage"]:
            reasons = ", ".join(
                f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["skipped_by_reason"].items()
            )
            return f"nothing was embedded: all clips were skipped ({reasons})"
        return "nothing could be embedded: the failures file and the recordings table say why"
    failed = by_status["failed"] + by_status["partial"]
    if failed / summary["recordings"] > max_failure_fraction:
        return (
            f"{failed} of {summary['recordings']} recordings have failures, "
            f"more than --max_failure_fraction {max_failure_fraction:g} allows"
        )
    return None
