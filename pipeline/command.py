"""The command: from arguments to an exit status."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions
from rich.console import Console

from audio.listing import Ignored, ListingError, PatternError, list_input
from audio.manifest import ManifestError, check_manifest
from endpoint.errors import EndpointError
from pipeline.batch_run import send_batch
from pipeline.dataflow import described
from pipeline.dataflow_jobs import Jobs
from pipeline.execution import Execution
from pipeline.launch import RunFailed
from pipeline.on_dataflow import JobGoesOn
from pipeline.options import Arguments, parse
from pipeline.outputs import make_folders, remove_unfinished, replaced_outputs
from pipeline.planned import plan
from pipeline.preflight import staged_in
from pipeline.reach import check_job_files, check_readable, check_signed_in, explained, prove_writable
from pipeline.report import print_summary, shortfall
from pipeline.requests_run import send_requests
from pipeline.resampling import check_resampler
from pipeline.resuming import alone_on_checkpoint, find_earlier, take_over
from pipeline.settings import RunSettings
from pipeline.stopping import INTERRUPTED, INTERRUPTED_TEXT, stopping
from pipeline.tables import check_tables
from pipeline.usage import PROGRAM, UsageError
from rows.generations import remove_all
from rows.lease import LeaseError, remove_lease
from rows.store import StoreError, open_store
from transforms.bigquery_jobs import TableError
from transforms.files import FileError, read_whole
from transforms.staging import StagingError
from transforms.tidy_up import remove_replaced

DONE, FAILED, WRONG_USAGE = 0, 1, 2
_FAILURES = (
    EndpointError,
    FileError,
    LeaseError,
    ListingError,
    ManifestError,
    RunFailed,
    StagingError,
    StoreError,
    TableError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (design: 0 done, 1 failed, 2 wrong usage)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        run = arguments.run
        check_signed_in(run)
        _check_inputs(run)
        check_readable(run)
        check_tables(run)
        existing = replaced_outputs(run, find_earlier(run).runs)
        if arguments.pool is not None:
            print(*described(arguments.beam, arguments.pool), sep="\n", file=sys.stderr)
        if arguments.plan:
            print(json.dumps(plan(run), indent=2, ensure_ascii=False))
            return DONE
        if arguments.pool is None:  # else workers do it, elsewhere
            check_resampler(run.clips.resampler)
        make_folders(run)
        prove_writable(run)
        if arguments.pool is not None:
            cloud = arguments.beam.view_as(GoogleCloudOptions)
            check_job_files(run.run_id, cloud.temp_location, cloud.staging_location)
        return _run(arguments, existing)
    except UsageError as error:
        return _say(error, WRONG_USAGE)
    except _FAILURES as error:
        return _say(error, FAILED)
    except JobGoesOn as left:
        return _say(left, left.status)
    except KeyboardInterrupt:
        return _say(INTERRUPTED_TEXT, INTERRUPTED)


def _say(message: object, status: int) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return status


def _check_inputs(run: RunSettings) -> None:
    """Refuses inputs that name nothing, and a manifest that cannot be one, before anything runs."""
    if run.manifest is not None:
        try:
            check_manifest(run.manifest)
        except ManifestError as error:
            raise UsageError(f"--manifest is {run.manifest.path!r}: {error}") from None
    for text in run.inputs:
        try:
            nothing = all(isinstance(listed, Ignored) for listed in list_input(text))
        except PatternError as error:
            raise UsageError(f"--input is {text!r}: {error}") from None
        except ListingError as error:
            raise explained("input", text, error) from None
        if nothing:
            raise UsageError(
                f"--input is {text!r}, which matches no recording: expected a file, a folder with audio files, or a glob "
                "that matches files (add /** for those in folders)"
            )


def _run(arguments: Arguments, existing: list[str]) -> int:
    run = arguments.run
    jobs = Jobs(arguments.beam)
    with stopping(staged_in=staged_in(run)), alone_on_checkpoint(run, jobs.ask) as lease:
        send = send_requests if run.batch is None else send_batch
        ending = send(run, Execution(arguments, lease, jobs), take_over(run), tuple(existing))
        if ending.said is not None:
            print(ending.said)
            return DONE
        summary = _read_summary(run)
        missed = _tidy_up(run, existing, summary, ending.shortfall)
    with contextlib.suppress(OSError):  # whoever read the output has left; the summary is in its file
        print_summary(summary, Console())
    return DONE if missed is None else _say(missed, FAILED)


def _tidy_up(run: RunSettings, existing: list[str], summary: dict[str, Any], fallen_short: str | None) -> str | None:
    """Removes what the finished run needs no more; why it is no success, or None."""
    remove_replaced(existing, [*summary["files"], run.summary_path])
    remove_unfinished(run.output)
    missed = fallen_short or shortfall(summary, run.max_failure_fraction)
    if run.delete_checkpoint and missed is None and not summary["left"]["recordings"]:
        remove_all(open_store(run.checkpoint))
        remove_lease(run.checkpoint)
    return missed


def _read_summary(run: RunSettings) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(read_whole(run.summary_path))
    except Exception as error:  # noqa: BLE001 - file systems fail in many ways; their texts are not ours to show
        raise RunFailed(
            f"the run has ended, but its summary {run.summary_path!r} cannot be read ({type(error).__name__}): may it be?"
        ) from None
    return summary
