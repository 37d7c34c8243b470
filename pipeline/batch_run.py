"""A run with a batch prediction job: one graph writes what is missing, the job is waited for, another one stores its results.

    jobs of earlier runs -> ended -> [ graph: their results stored; what is missing then written as clips ] -> closed
    this run's job -> submitted -> ended -> [ graph: its results stored; all rows into tables ] -> closed

Whatever ends the run in between, the next one with the same checkpoint goes on from there: clips that were written are in one job,
which is found again by what was noted (`rows.job_notes`) and by its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from endpoint.job_service import JobService
from endpoint.job_settings import JobSettings
from pipeline.batch_graphs import build_join, build_write
from pipeline.batch_jobs import BatchJobs, Ended
from pipeline.execution import Ending, Execution, left_to, say, where_is
from pipeline.facts import note_facts, run_facts
from pipeline.launch import running_job_service
from pipeline.preflight import check_credentials, check_staging, nothing_left_staged, own_batch
from pipeline.resuming import Earlier, look_again
from pipeline.settings import RunSettings
from pipeline.tables import tables_in_order
from pipeline.usage import UsageError
from transforms.tidy_up import Leftovers


def send_batch(run: RunSettings, execution: Execution, earlier: Earlier, existing: tuple[str, ...]) -> Ending:
    """Does the run, up to its summary, or the one of its halves that was asked for. Raises whatever ends it early.

    Args:
      run: its settings.
      execution: runs the graphs.
      earlier: what the checkpoint holds.
      existing: output files of earlier runs.
    """
    assert run.batch is not None
    with running_job_service(run) as settings:
        check_credentials(run, settings.host, on_dataflow=execution.pool is not None)
        facts = run_facts(run, settings.model)
        note_facts(run, facts)
        at_work = execution.is_at_work
        with (
            _job_service(settings) as service,
            nothing_left_staged(run, earlier, at_work),
            nullcontext() if run.batch.step == "write" else tables_in_order(run, earlier, at_work),
        ):
            check_staging(run, {batch.folder for batch in earlier.batches})
            jobs = BatchJobs(run, service, run.submission(settings), waits=execution.waits, say=say)
            if run.fresh_checkpoint:
                jobs.forget(earlier.batches)
                earlier = replace(earlier, batches=())
            ended = jobs.settled(earlier.batches)
            if run.batch.step != "join":
                ending = _write(run, execution, jobs, settings, earlier, ended)
                if ending is not None:
                    return ending
                facts["batch_jobs"] = [_described(one) for one in ended]
                own = own_batch(run)
                ended = [] if own is None else [jobs.ended(own)]
            return _join(run, execution, jobs, ended, facts, existing)


def _job_service(settings: JobSettings) -> JobService:
    try:
        return JobService(settings)
    except ValueError as error:  # its fields are named as the options are
        raise UsageError(f"--{error}") from None


def _write(
    run: RunSettings,
    execution: Execution,
    jobs: BatchJobs,
    settings: JobSettings,
    earlier: Earlier,
    ended: Sequence[Ended],
) -> Ending | None:
    """The first half; its ending, if no other half follows."""
    assert run.batch is not None
    for one in ended:
        if one.shortfall is not None:
            say(f"note: {one.shortfall}; clips without a result are sent again")
    finished = tuple(one.finished for one in ended)
    alone = None if execution.waits else _leftovers(run, ended)
    graph = partial(build_write, run=run, job=settings, earlier=earlier, finished=finished, alone=alone)
    goes_on = execution.run(graph, _part(run, "write"))
    if goes_on is not None:
        return Ending(
            f"{where_is(goes_on)}\nit submits a batch prediction job if clips are missing: once that has ended, start the step join"
        )
    for one in ended:
        jobs.close(one)
    batch = own_batch(run)
    if batch is not None:
        megabytes = batch.written.size_bytes / 1e6
        say(f"{batch.written.clips:,} clips are written for a batch prediction job ({megabytes:,.0f} MB)")
    if run.batch.step is None:
        return None
    if batch is None:
        return Ending("nothing is left to be sent: the step join makes the tables")
    return Ending(f"batch prediction job {jobs.submitted(batch).link}: once it has ended, start the step join")


def _join(
    run: RunSettings,
    execution: Execution,
    jobs: BatchJobs,
    ended: Sequence[Ended],
    facts: dict[str, Any],
    existing: tuple[str, ...],
) -> Ending:
    """The second half."""
    facts["batch_jobs"] = [*facts.get("batch_jobs", []), *(_described(one) for one in ended)]
    leftovers = None if execution.pool is None else _leftovers(run, ended, existing)
    finished = tuple(one.finished for one in ended)
    written = tuple(one.batch.written for one in ended)
    graph = partial(
        build_join,
        run=run,
        earlier=look_again(run),
        finished=finished,
        written=written,
        facts=facts,
        leftovers=leftovers,
    )
    goes_on = execution.run(graph, _part(run, "join"))
    if goes_on is not None:
        return left_to(goes_on, run)
    for one in ended:
        jobs.close(one)
    missed = next((one.shortfall for one in ended if one.shortfall is not None), None)
    return Ending(shortfall=None if missed is None else f"{missed}; the same command sends again what has no result")


def _part(run: RunSettings, half: str) -> str:
    """What tells the jobs on Dataflow of a run apart; nothing where it has one, which a template's launcher has named."""
    assert run.batch is not None
    return half if run.batch.step is None else ""


def _leftovers(run: RunSettings, ended: Sequence[Ended], existing: tuple[str, ...] = ()) -> Leftovers:
    """What a graph itself removes once the results of jobs are stored."""
    return Leftovers(
        existing,
        tuple(one.batch.folder for one in ended if not one.batch.is_kept),
        tuple((run.checkpoint, one.batch.run_id, one.job.state) for one in ended),
    )


def _described(ended: Ended) -> dict[str, Any]:
    """What the summary says of a job whose results the run has stored."""
    batch, job = ended.batch, ended.job
    return {
        "job": job.name,
        "state": job.state,
        "run_id": batch.run_id,
        "clips": batch.written.clips,
        "size_bytes": batch.written.size_bytes,
    }
