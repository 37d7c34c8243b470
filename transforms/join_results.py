"""What batch prediction jobs have answered, into rows of the checkpoint: by the samples that a result repeats, never by its place.

Results come in any order, in many files, and repeat their clips: a line of them is 310 kB, of which 2 kB are the answer. Those are put
into files; what is shuffled are references to them. Clips are found by their digests, and get their rows file by file.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from endpoint.errors import BadAnswer
from endpoint.job_lines import read_answer
from endpoint.results import Refused
from rows.checkpoint import Row
from rows.identity import packet_id
from rows.model import Receipt
from rows.pending import decode_clip
from rows.store import open_store
from rows.writer import CheckpointWriteError, CheckpointWriter
from transforms.group_packed import GroupPacked
from transforms.interruption import INTERRUPTION
from transforms.job_files import ANSWERS
from transforms.kept_answers import Answered, AnswerKeeper, Refusal, best, read_answers
from transforms.packed import AsBytes, Packing
from transforms.progress import NAMESPACE, PROGRESS
from transforms.quiet import quiet_worker
from transforms.read_pending import FindIndices, ReadIndices, clip_key
from transforms.result_files import PART_BYTES, ResultPart, find_parts, read_lines
from transforms.segment_rows import refused_row
from transforms.worker_stop import stop_when_told

COUNTS: Final = "counts"
NO_RESULT: Final = Refused(
    "no_result", "The batch prediction job gave no result for this clip; run again later.", retryable=True, attempts=1
)
_FLUSH_ROWS: Final = 1024
_MOST_HELD_ROWS: Final = 8192
"""Rows that may wait to be stored: about 20 MB."""
_ANSWERS: Packing[Answered | Refusal] = Packing(Answered, Refusal)
_CLIP_BEGINS: Final = b'["'
"""How a clip's line begins; a packed answer begins with the number of its type."""


class FinishedJob(NamedTuple):
    """A job whose results are there."""

    folder: str
    """Of the run that wrote its clips: `gs://bucket/.../`."""
    endpoint: str
    """What its rows say in `endpoint`: `projects/.../models/M@version`."""


class _FindResults(beam.DoFn):
    def setup(self) -> None:
        quiet_worker()

    def process(self, element: tuple[int, str]) -> Iterator[tuple[int, Any]]:
        number, folder = element
        for part in find_parts(folder, PART_BYTES):
            yield number, tuple(part)  # to Beam a NamedTuple would be a row with a schema


class _ReadResults(beam.DoFn):
    """Parts of result files into (key of job and digest, packed Answered or Refusal)."""

    def __init__(self, jobs: tuple[FinishedJob, ...], run_id: str) -> None:
        self._folders = [f"{job.folder}{ANSWERS}{run_id}/" for job in jobs]

    def setup(self) -> None:
        quiet_worker()

    def start_bundle(self) -> None:
        self._keepers: dict[int, AnswerKeeper] = {}
        self._counts: Counter[str] = Counter()

    def process(self, element: tuple[int, Any]) -> Iterator[tuple[str, bytes]]:
        number, part = element
        keeper = self._keepers.setdefault(number, AnswerKeeper(self._folders[number]))
        for line in read_lines(ResultPart(*part)):
            INTERRUPTION.raise_if_asked()
            if line is None:
                self._counts["results/unreadable"] += 1
                continue
            if line.isspace():
                continue
            try:
                answer = read_answer(line)
            except BadAnswer:
                self._counts["results/unreadable"] += 1
                continue
            digest, result = answer.digest, answer.result
            if digest is None:
                self._counts["results/without_instance"] += 1
            elif isinstance(result, Refused):
                refusal = Refusal(not result.retryable, result.code, result.message, result.attempts)
                yield clip_key(number, digest), _ANSWERS.pack(refusal)
            else:
                yield from _keyed(number, keeper.add(digest, result))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for number, keeper in self._keepers.items():
            for keyed in _keyed(number, keeper.flush()):
                yield WindowedValue(keyed, window.max_timestamp(), [window])
        if self._counts:
            yield pvalue.TaggedOutput(COUNTS, WindowedValue(dict(self._counts), window.max_timestamp(), [window]))


def _keyed(number: int, stored: list[tuple[str, Answered]]) -> Iterator[tuple[str, bytes]]:
    for digest, answered in stored:
        yield clip_key(number, digest), _ANSWERS.pack(answered)


class _StoresRows(beam.DoFn):
    """What stages that write to the checkpoint have in common: a writer for each bundle."""

    def __init__(self, checkpoint: str, run_id: str) -> None:
        self._checkpoint = checkpoint
        self._run_id = run_id

    def setup(self) -> None:
        quiet_worker()
        stop_when_told()
        self._writer: CheckpointWriter | None = None
        self._metrics = {kind: Metrics.counter(NAMESPACE, kind) for kind in ("embedded", "failed")}

    def start_bundle(self) -> None:
        self._close()
        self._writer = CheckpointWriter(self._run_id, open_store(self._checkpoint).write, flush_rows=_FLUSH_ROWS)
        self._held_rows = 0

    def _store(self, packet: str, segment_id: str, row: Row, kind: str) -> Iterator[Receipt]:
        """Stores a row, and waits for it if too many are waiting; receipts for what is stored by now."""
        INTERRUPTION.raise_if_asked()
        assert self._writer is not None
        self._writer.add(packet, segment_id, row)
        PROGRESS.add(kind, 1)
        self._metrics[kind].inc()
        self._held_rows += 1
        if self._held_rows >= _MOST_HELD_ROWS:
            self._held_rows = 0
            yield from self._writer.flush()

    def _finish(self) -> Iterator[WindowedValue]:
        assert self._writer is not None
        try:
            receipts = self._writer.flush()
        finally:
            self._close()
        window = GlobalWindow()
        for receipt in receipts:
            yield WindowedValue((receipt.recording_uri, receipt), window.max_timestamp(), [window])

    def teardown(self) -> None:
        self._close()  # after a bundle that was cut off

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(CheckpointWriteError):
                writer.flush()
            writer.close()


class _Match(_StoresRows):
    """(key of job and digest, lines of clips and packed answers) into (key of a file of answers, place in it and line of a clip).

    Clips without an embedding have their rows stored here; receipts and counts are tagged.
    """

    def start_bundle(self) -> None:
        super().start_bundle()
        self._counts: Counter[str] = Counter()
        self._packet = packet_id([f"{self._run_id}: clips without an embedding"])

    def process(self, element: tuple[str, list[bytes]]) -> Iterator[tuple[str, bytes] | pvalue.TaggedOutput]:
        key, values = element
        lines = [value for value in values if value.startswith(_CLIP_BEGINS)]
        counts = best(_ANSWERS.unpack(value) for value in values if not value.startswith(_CLIP_BEGINS))
        if not lines:
            self._counts["results/unmatched"] += 1
        elif isinstance(counts, Answered):
            of_file, place = f"{key.partition(':')[0]}:{counts.file}", b"%d " % counts.row
            for line in lines:
                yield of_file, place + line
        else:
            refused = NO_RESULT
            if counts is not None:
                refused = Refused(counts.code, counts.message, not counts.is_final, counts.attempts)
            for line in lines:
                clip = decode_clip(line)
                row = refused_row(clip, "endpoint", refused)
                for receipt in self._store(self._packet, clip.segment_id, row, "failed"):
                    yield pvalue.TaggedOutput("receipts", (receipt.recording_uri, receipt))

    def finish_bundle(self) -> Iterator[pvalue.TaggedOutput]:
        for receipt in self._finish():
            yield pvalue.TaggedOutput("receipts", receipt)
        if self._counts:
            window = GlobalWindow()
            yield pvalue.TaggedOutput(COUNTS, WindowedValue(dict(self._counts), window.max_timestamp(), [window]))


class _WriteRows(_StoresRows):
    """(key of a file of answers, places in it and lines of clips) into receipts for rows, keyed by recording."""

    def __init__(self, jobs: tuple[FinishedJob, ...], checkpoint: str, run_id: str) -> None:
        super().__init__(checkpoint, run_id)
        self._jobs = jobs

    def process(self, element: tuple[str, list[bytes]]) -> Iterator[tuple[str, Receipt]]:
        number, _, name = element[0].partition(":")
        job = self._jobs[int(number)]
        embeddings = read_answers(f"{job.folder}{ANSWERS}{self._run_id}/{name}")
        packet = packet_id([element[0]])
        for placed in element[1]:
            place, _, line = placed.partition(b" ")
            clip = decode_clip(line)
            row = clip.embedded(job.endpoint, embeddings[int(place)])
            for receipt in self._store(packet, clip.segment_id, row, "embedded"):
                yield receipt.recording_uri, receipt
        assert self._writer is not None
        self._writer.finish(packet)
        for receipt in self._writer.receipts():
            yield receipt.recording_uri, receipt

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._finish()


class JoinResults(beam.PTransform):
    """The results of jobs that are over into rows of the checkpoint; every clip that was written for them has one then.

    Args:
      jobs: the jobs. Each has a folder of its own, whose results count for its own clips only.
      checkpoint: the folder that takes the rows.
      run_id: the generation of the checkpoint that they belong to.

    Returns a dict of PCollections: `receipts` ((recording_uri, Receipt)) and `counts` (dicts of numbers): lines of results that were
    `results/unreadable` or `results/without_instance`, and `results/unmatched`, those of other clips than the jobs'.
    """

    def __init__(self, jobs: tuple[FinishedJob, ...], checkpoint: str, run_id: str) -> None:
        super().__init__()
        self._jobs = jobs
        self._checkpoint = checkpoint
        self._run_id = run_id

    def expand(self, begin: pvalue.PBegin) -> dict[str, beam.PCollection]:
        folders = begin | "Name jobs" >> beam.Create([(number, job.folder) for number, job in enumerate(self._jobs)])
        clips = (
            folders
            | "Find indices" >> beam.ParDo(FindIndices())
            | "Spread indices" >> beam.Reshuffle()
            | "Read indices" >> beam.ParDo(ReadIndices())
        )
        results = (
            folders
            | "Find results" >> beam.ParDo(_FindResults())
            | "Spread results" >> beam.Reshuffle()
            | "Read results" >> beam.ParDo(_ReadResults(self._jobs, self._run_id)).with_outputs(COUNTS, main="answers")
        )
        matched = (
            (clips, results.answers)
            | "Group by samples" >> GroupPacked(AsBytes())
            | "Match"
            >> beam.ParDo(_Match(self._checkpoint, self._run_id)).with_outputs("receipts", COUNTS, main="found")
        )
        embedded = (
            (matched.found,)
            | "Group by answers file" >> GroupPacked(AsBytes())
            | "Write rows" >> beam.ParDo(_WriteRows(self._jobs, self._checkpoint, self._run_id))
        )
        return {
            "receipts": (embedded, matched.receipts) | "All receipts" >> beam.Flatten(),
            COUNTS: (results[COUNTS], matched[COUNTS]) | "All counts" >> beam.Flatten(),
        }
