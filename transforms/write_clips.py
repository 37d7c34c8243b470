"""Instead of the fourth stage, for a batch prediction job: packets into shards of clips, written where the clips are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import apache_beam as beam
from apache_beam import pvalue

from endpoint.settings import InstanceFormat
from rows import objects
from rows.job_notes import Written, note_written
from rows.store import open_store
from transforms import job_files
from transforms.clip_shards import SHARD_BYTES, ClipShards, Shard
from transforms.interruption import INTERRUPTION
from transforms.outbox import Count, OnDone, OnUnstaged
from transforms.packet_bundles import COUNTS, PacketBundles, WorkSettings
from transforms.packet_work import Ticket
from transforms.quiet import quiet_worker
from transforms.staged_objects import staging_error
from transforms.sum_up import Counts, add_counts

_SHARDS: Final = "shards"


@dataclass(frozen=True)
class WriteSettings:
    """Everything that writing clips down depends on."""

    work: WorkSettings
    folder: str
    """The run's on Cloud Storage, `gs://bucket/.../`."""
    instance_format: InstanceFormat
    shard_bytes: int = SHARD_BYTES


class _Write(PacketBundles):
    def __init__(self, settings: WriteSettings) -> None:
        super().__init__(settings.work, ("written",), ("clipped_samples",))
        self._write = settings

    def open_outbox(self, on_done: OnDone[Ticket], _on_unstaged: OnUnstaged[Ticket], count: Count) -> ClipShards:
        to = self._write
        self._shards = ClipShards(to.folder, to.instance_format, on_done, count, to.shard_bytes)
        return self._shards

    def drained(self) -> Iterator[tuple[str, object]]:
        for shard in self._shards.shards():
            yield _SHARDS, shard


class _Commit(beam.DoFn):
    """Puts shards where the job reads them: those of bundles that were tried again are never there."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def setup(self) -> None:
        quiet_worker()

    def process(self, element: Shard) -> Iterator[Counts]:
        name = element.name
        INTERRUPTION.raise_if_asked()
        try:
            objects.move(job_files.written_shard(self._folder, name), job_files.shard(self._folder, name))
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            bucket, _ = objects.split(self._folder)
            raise staging_error(error, bucket, "moving", "storage.objects.create, get and delete") from None
        yield {"clips": element.clips, "shards": 1, "size_bytes": element.size_bytes}


class _Note(beam.DoFn):
    def __init__(self, settings: WriteSettings) -> None:
        self._settings = settings

    def process(self, _once: None, counts: Counts) -> Iterator[Written]:
        work = self._settings.work
        written = Written(
            instance_format=self._settings.instance_format,
            clips=counts.get("clips", 0),
            shards=counts.get("shards", 0),
            size_bytes=counts.get("size_bytes", 0),
            clipped_samples=counts.get("clipped_samples", 0),
        )
        note_written(open_store(work.checkpoint), work.run_id, written)
        yield written


class WriteClips(beam.PTransform):
    """Packets into shards of clips below `folder`, and a note in the checkpoint once all of them are there.

    What became known of the recordings is stored in the checkpoint as always. Returns a PCollection with the note.
    """

    def __init__(self, settings: WriteSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, packets: beam.PCollection) -> beam.PCollection:
        write = beam.ParDo(_Write(self._settings)).with_outputs(COUNTS, _SHARDS, main="receipts")
        written = packets | "Write clips" >> write
        committed = (
            written[_SHARDS]
            | "Spread shards" >> beam.Reshuffle()
            | "Commit shards" >> beam.ParDo(_Commit(self._settings.folder))
        )
        counts = (
            (committed, written[COUNTS])
            | "Put counts together" >> beam.Flatten()
            | "Add up" >> beam.CombineGlobally(add_counts)
        )
        once = packets.pipeline | "Once" >> beam.Create([None])
        return once | "Note what is written" >> beam.ParDo(_Note(self._settings), pvalue.AsSingleton(counts))
