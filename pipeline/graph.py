"""The graph of the main job, on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apache_beam as beam

from endpoint.settings import EndpointSettings
from pipeline.resuming import Earlier
from pipeline.settings import RunSettings
from transforms.ask import Ask
from transforms.choose_rows import ChooseRows
from transforms.compact import Compact
from transforms.embed_packets import EmbedPackets
from transforms.make_packets import MakePackets
from transforms.plan_segments import PlanSegments
from transforms.sum_up import SumUp
from transforms.tidy_up import Leftovers, TidyUp
from transforms.write_bigquery import WriteBigQuery
from transforms.write_tables import ReadRows, WriteEmbeddings, WriteFailures, WriteRecordings


def build(
    pipeline: beam.Pipeline,
    run: RunSettings,
    endpoint: EndpointSettings,
    earlier: Earlier,
    facts: Mapping[str, Any],
    leftovers: Leftovers | None = None,
) -> None:
    """Adds the main job to `pipeline`.

    Neither audio nor embeddings cross a shuffle: between the bracketed parts only references and receipts do.

        inputs or manifest, receipts of earlier runs -> by recording -> what is left to do: segments -> packets -> Reshuffle
          -> [ fetch, decode, batch, send, store rows in the checkpoint ] -> receipts
          -> one row a clip -> [ read rows from the checkpoint, write ] -> tables merged -> summary -> old generations merged

    `leftovers` are removed at the end where no launcher waits for it.
    """
    asked = pipeline | "Read inputs" >> Ask(run.inputs, run.manifest, run.checkpoint, earlier.live)
    planned = asked["by_uri"] | "Plan segments" >> PlanSegments(run.plan_settings)
    packets = planned["tasks"] | "Make packets" >> MakePackets()
    embedded = packets | "Embed" >> EmbedPackets(run.embed_settings(endpoint))
    choose = ChooseRows(run.run_id, may_be_unfinished=run.max_requests is not None)
    chosen = (planned["plans"], embedded.receipts) | "Choose rows" >> choose
    write_tables(run, earlier, facts, leftovers, asked, chosen, (embedded.counts,))


def write_tables(
    run: RunSettings,
    earlier: Earlier,
    facts: Mapping[str, Any],
    leftovers: Leftovers | None,
    asked: Mapping[str, beam.PCollection],
    chosen: Mapping[str, beam.PCollection],
    counts: tuple[beam.PCollection, ...],
) -> None:
    """Adds what becomes of the rows that were chosen: tables, then the summary, then what is tidied up."""
    rows = {
        "embeddings": chosen["places"] | "Read rows" >> ReadRows(run.checkpoint),
        "recordings": chosen["recordings"],
        "failures": (chosen["failures"], asked["problems"]) | "Put failures together" >> beam.Flatten(),
    }
    files: tuple[beam.PCollection, ...] = ()
    merged: tuple[beam.PCollection, ...] = ()
    if run.output is not None:
        write = WriteEmbeddings(run.output, run.output_format, run.run_id, has_manifest=run.manifest is not None)
        embeddings = rows["embeddings"] | "Write embeddings" >> write
        recordings = rows["recordings"] | "Write recordings" >> WriteRecordings(
            run.output, run.run_id, after=embeddings
        )
        failures = rows["failures"] | "Write failures" >> WriteFailures(run.output, run.run_id, after=recordings)
        files = (embeddings, recordings, failures)
    if run.table_write is not None:
        merged = (rows | "Write to BigQuery" >> WriteBigQuery(run.table_write, after=files),)
    tables = {
        "recordings": rows["recordings"],
        "failures": rows["failures"],
        "counts": (*counts, chosen["counts"], asked["counts"]) | "Put counts together" >> beam.Flatten(),
        "ignored": asked["ignored"],
        "written": files,
        "merged": merged,
    }
    summary = tables | "Sum up" >> SumUp(run.summary_path, facts)
    if earlier.merge is not None:
        summary | "Compact" >> Compact(run.checkpoint, earlier.merge)
    if leftovers is not None:
        summary | "Tidy up" >> TidyUp(leftovers)
