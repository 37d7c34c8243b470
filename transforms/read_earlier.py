"""What earlier runs stored: receipts for the undamaged rows of the checkpoint, keyed by recording."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from rows.checkpoint import read_receipts
from rows.generations import row_files
from rows.model import Receipt
from rows.store import open_store
from transforms.quiet import quiet_worker

DAMAGED = "damaged"


class NameFiles(beam.DoFn):
    """Names of generations into those of their files of rows."""

    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = checkpoint

    def setup(self) -> None:
        quiet_worker()

    def process(self, element: str) -> Iterator[str]:
        yield from row_files(open_store(self._checkpoint), element)


class _ReadReceipts(beam.DoFn):
    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = checkpoint

    def setup(self) -> None:
        quiet_worker()
        self._store = open_store(self._checkpoint)

    def process(self, element: str) -> Iterator[tuple[str, Receipt] | pvalue.TaggedOutput]:
        receipts, damaged_bytes = read_receipts(self._store.read(element), element, element.partition("/")[0])
        for receipt in receipts:
            yield receipt.recording_uri, receipt
        if damaged_bytes:
            yield pvalue.TaggedOutput(DAMAGED, element)


class ReadEarlier(beam.PTransform):
    """Reads what the checkpoint held at launch.

    Args:
      checkpoint: its folder.
      generations: the names of the runs' folders that were there; what others write meanwhile is not read.

    Returns a dict of PCollections: `receipts` ((uri, Receipt)) and `damaged` (names of files with damage, which costs
    the rows that it hits: they are sent again).
    """

    def __init__(self, checkpoint: str, generations: tuple[str, ...]) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._generations = generations

    def expand(self, begin: pvalue.PBegin) -> dict[str, beam.PCollection]:
        read = (
            begin
            | "Name runs" >> beam.Create(self._generations)
            | "Name files" >> beam.ParDo(NameFiles(self._checkpoint))
            | "Spread files" >> beam.Reshuffle()
            | "Read receipts" >> beam.ParDo(_ReadReceipts(self._checkpoint)).with_outputs(DAMAGED, main="receipts")
        )
        return {"receipts": read.receipts, DAMAGED: read[DAMAGED]}
