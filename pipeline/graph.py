"""The graph of the main job, on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apache_beam as beam

from endpoint.settings import EndpointSettings
from pipeline.settings import RunSettings
from transforms.choose_rows import ChooseRows
from transforms.embed_packets import EmbedPackets
from transforms.list_recordings import ListRecordings
from transforms.make_packets import MakePackets
from transforms.sum_up import SumUp
from transforms.write_tables import WriteEmbeddings, WriteFailures, WriteRecordings


def build(pipeline: beam.Pipeline, run: RunSettings, endpoint: EndpointSettings, facts: Mapping[str, Any]) -> None:
    """Adds the main job to `pipeline`.

    Neither audio nor embeddings cross a shuffle: between the bracketed parts only references and receipts do.

        inputs -> recordings -> packets -> Reshuffle
          -> [ fetch, decode, batch, send, store rows in the checkpoint ] -> receipts
          -> one row a clip -> [ read rows from the checkpoint, write ] -> summary
    """
    listed = pipeline | "List" >> ListRecordings(run.inputs, run.limit)
    packets = listed["recordings"] | "Packets" >> MakePackets()
    embedded = packets | "Embed" >> EmbedPackets(run.embed_settings(endpoint))
    receipts = (embedded.receipts, listed["unlisted"]) | "All receipts" >> beam.Flatten()
    chosen = receipts | "Choose" >> ChooseRows()
    write = WriteEmbeddings(run.run_folder, run.output, run.output_format, run.run_id)
    embeddings = chosen["places"] | "Embeddings" >> write
    recordings = chosen["recordings"] | "Recordings" >> WriteRecordings(run.output, run.run_id, after=embeddings)
    failures = chosen["failures"] | "Failures" >> WriteFailures(run.output, run.run_id, after=recordings)
    tables = {
        "recordings": chosen["recordings"],
        "failures": chosen["failures"],
        "counts": embedded.counts,
        "ignored": listed["ignored"],
        "written": (embeddings, recordings, failures),
    }
    tables | "Sum up" >> SumUp(run.summary_path, facts)
