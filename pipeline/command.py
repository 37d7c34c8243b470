"""The command: from arguments to an exit status."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions
from rich.console import Console

from audio.listing import Ignored, ListingError, PatternError, list_input
from audio.manifest import ManifestError, check_manifest
from endpoint.errors import EndpointError
from endpoint.settings import EndpointSettings
from pipeline.dataflow import described
from pipeline.dataflow_jobs import Jobs
from pipeline.launch import RunFailed, launch, running_endpoint
from pipeline.on_dataflow import JobGoesOn, follow, submit
from pipeline.options import Arguments, parse
from pipeline.outputs import make_folders, remove_unfinished, replaced_outputs
from pipeline.planned import plan
from pipeline.preflight import check, check_credentials, nothing_left_staged, staged_in
from pipeline.reach import check_job_files, check_readable, check_signed_in, explained, prove_writable
from pipeline.report import print_summary, shortfall
from pipeline.resuming import alone_on_checkpoint, find_earlier, take_over
from pipeline.settings import RunSettings
from pipeline.stopping import INTERRUPTED, INTERRUPTED_TEXT, stopping
from pipeline.tables import check_tables, table_facts, tables_in_order
from pipeline.usage import PROGRAM, UsageError
from pipeline.versions import versions
from rows.generations import note_run, remove_all
from rows.lease import LeaseError, remove_lease
from rows.lease_holder import Job
from rows.store import StoreError, open_store
from transforms.bigquery_jobs import TableError
from transforms.files import FileError, absolute, read_whole
from transforms.staging import StagingError
from transforms.tidy_up import Leftovers, remove_replaced

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


def _facts(run: RunSettings, endpoint: EndpointSettings) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "inputs": list(run.inputs),
        "manifest": None if run.manifest is None else run.manifest.path,
        "limit": run.limit,
        "model_id": run.model_id,
        "endpoint": endpoint.name,
        "fingerprint": run.fingerprint,
        "fingerprint_settings": run.fingerprint_settings,
        "clip_choice": run.clip_choice,
        "send": run.send,
        "instance_format": run.instance_format,
        "transport": run.transport,
        "staged": None if run.staging is None else run.staging.run_uri,
        "keep_staged": run.keep_staged,
        "checkpoint": run.checkpoint,
        **table_facts(run),
        "max_requests": run.max_requests,
        "versions": versions(),
    }


def _run(arguments: Arguments, existing: list[str]) -> int:
    run = arguments.run
    jobs = Jobs(arguments.beam)
    with stopping(staged_in=staged_in(run)), alone_on_checkpoint(run, jobs.ask) as lease:

        def is_at_work() -> bool:
            """Whether a job has taken over what this process would otherwise clean up."""
            return lease is not None and lease.is_handed_over

        earlier = take_over(run)
        with running_endpoint(run) as endpoint:
            check_credentials(run, endpoint, on_dataflow=arguments.pool is not None)
            facts = _facts(run, endpoint)
            output = None if run.output is None else absolute(run.output)
            note_run(open_store(run.checkpoint), run.run_id, {"output": output, **facts})
            with nothing_left_staged(run, earlier, is_at_work), tables_in_order(run, earlier, is_at_work):
                facts["probe"] = check(run, endpoint, earlier)
                # Whatever the probe has shown, the run's own clients need not find out by a canary.
                endpoint = replace(endpoint, is_proven=run.probe)
                if arguments.pool is None:
                    launch(run, endpoint, earlier, arguments.beam, facts)
                else:
                    assert lease is not None
                    leftovers = Leftovers(tuple(existing), staged_in(run))
                    job = submit(
                        run,
                        endpoint,
                        earlier,
                        arguments.beam,
                        facts,
                        pool=arguments.pool,
                        lease=lease,
                        leftovers=leftovers,
                        jobs=jobs,
                    )
                    if not arguments.waits:
                        return _leave(run, job)
                    _say_on_the_way(job.link)
                    follow(job, lease, jobs, _say_on_the_way)
        summary = _read_summary(run)
        missed = _tidy_up(run, existing, summary)
    with contextlib.suppress(OSError):  # whoever read the output has left; the summary is in its file
        print_summary(summary, Console())
    return DONE if missed is None else _say(missed, FAILED)


def _tidy_up(run: RunSettings, existing: list[str], summary: dict[str, Any]) -> str | None:
    """Removes what the finished run needs no more; why it is no success, or None."""
    remove_replaced(existing, [*summary["files"], run.summary_path])
    remove_unfinished(run.output)
    missed = shortfall(summary, run.max_failure_fraction)
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


def _say_on_the_way(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _leave(run: RunSettings, job: Job) -> int:
    """Says where to look for a job that is not followed."""
    print(job.link if job.id else f"the graph is written, for a job named {job.name}")
    print(f"its summary will be {run.summary_path}")
    return DONE
