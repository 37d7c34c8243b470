"""The two graphs of a run with a batch prediction job, between which the job does its work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apache_beam as beam

from endpoint.job_settings import JobSettings
from pipeline.graph import write_tables
from pipeline.resuming import Earlier
from pipeline.settings import RunSettings
from rows.job_notes import Written
from transforms.ask import Ask
from transforms.choose_rows import ChooseRows
from transforms.join_results import FinishedJob, JoinResults
from transforms.make_packets import MakePackets
from transforms.plan_segments import PlanSegments
from transforms.submit_job import SubmitJob
from transforms.tidy_up import CloseJobs, Leftovers
from transforms.write_clips import WriteClips


def build_write(
    pipeline: beam.Pipeline,
    run: RunSettings,
    job: JobSettings,
    earlier: Earlier,
    finished: tuple[FinishedJob, ...],
    alone: Leftovers | None,
) -> None:
    """Adds the first one to `pipeline`: results of jobs of earlier runs are stored, then what is missing is written for a new one.

        inputs or manifest, receipts of earlier runs, results of their jobs -> by recording -> what is left to do
          -> segments -> packets -> Reshuffle -> [ fetch, decode, write clips as JSON lines, store what is known of them ]

    With `alone`, which is where no launcher waits for its end, its last steps submit the job, and close those of earlier runs.
    """
    asked = pipeline | "Read inputs" >> Ask(run.inputs, run.manifest, run.checkpoint, earlier.live)
    by_uri = asked["by_uri"]
    if finished:
        joined = pipeline | "Join results" >> JoinResults(finished, run.checkpoint, run.run_id)
        by_uri = (*by_uri, joined["receipts"])
    planned = by_uri | "Plan segments" >> PlanSegments(run.plan_settings)
    packets = planned["tasks"] | "Make packets" >> MakePackets()
    written = packets | "Write" >> WriteClips(run.write_settings(job.model))
    if alone is not None:
        written | "Submit" >> SubmitJob(run.submission(job))
        written | "Close jobs" >> CloseJobs(alone)


def build_join(
    pipeline: beam.Pipeline,
    run: RunSettings,
    earlier: Earlier,
    finished: tuple[FinishedJob, ...],
    written: tuple[Written, ...],
    facts: Mapping[str, Any],
    leftovers: Leftovers | None,
) -> None:
    """Adds the second one to `pipeline`: results become rows in the checkpoint, and all rows become tables, as in the main job.

        inputs or manifest, receipts of earlier runs, results of the job -> by recording
          -> one row a clip -> [ read rows from the checkpoint, write ] -> tables merged -> summary -> old generations merged

    What the job was not asked for, as it has come since, is left for the next run.
    """
    asked = pipeline | "Read inputs" >> Ask(run.inputs, run.manifest, run.checkpoint, earlier.live)
    by_uri = asked["by_uri"]
    of_jobs = [{"staged": one.clips, "clipped_samples": one.clipped_samples} for one in written]
    counts: tuple[beam.PCollection, ...] = (pipeline | "Counts of jobs" >> beam.Create(of_jobs),)
    if finished:
        joined = pipeline | "Join results" >> JoinResults(finished, run.checkpoint, run.joined_id)
        by_uri, counts = (*by_uri, joined["receipts"]), (*counts, joined["counts"])
    planned = by_uri | "Plan segments" >> PlanSegments(run.plan_settings)
    nothing = pipeline | "No receipts" >> beam.Create([])
    chosen = (planned["plans"], nothing) | "Choose rows" >> ChooseRows(run.run_id, may_be_unfinished=True)
    write_tables(run, earlier, facts, leftovers, asked, chosen, counts)
