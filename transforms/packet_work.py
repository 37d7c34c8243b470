"""The work on packets, without Beam: fetch ahead, decode, send, and store the rows as the answers come."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from audio.clip import ClipResult
from audio.clips import Clip, FailedClip, SkippedClip
from audio.decoders import DecodersClosed, Decoding
from audio.errors import FetchError
from audio.fetch_ahead import Source, fetched_bytes
from audio.ready_made import ReadyMade, ready_made
from endpoint.errors import BudgetSpent
from endpoint.items import ClipObject
from endpoint.results import Embedded, Outcome, Refused
from rows.checkpoint import read_receipts
from rows.held import Held
from rows.model import EmbeddingRow, Receipt
from rows.store import Store
from rows.writer import CheckpointWriter
from transforms.interruption import INTERRUPTION
from transforms.make_packets import Packet
from transforms.outbox import OpenOutbox
from transforms.plan_segments import Task
from transforms.progress import PROGRESS
from transforms.segment_line import Decoder, Fetcher, Opened, SegmentLine, close_source
from transforms.segment_rows import RowSettings, SegmentRows, refused_row
from transforms.staging import StagingError


@dataclass(slots=True)
class _Packet:
    """A packet whose clips do not all have their rows yet."""

    packet_id: str
    waiting: int = 1
    """Clips without a row, segments that are not decoded, and 1 while the packet is still being looked at."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A segment in the line."""

    packet: _Packet
    task: Task
    settled: Container[str]
    """Clips of it that are not sent: the checkpoint has what became of them."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is kept of a clip while it is on its way. Its samples are not: while a request is out, the client has them."""

    packet: _Packet
    segment_id: str
    row: EmbeddingRow
    """But for the embedding."""


@contextmanager
def _interrupted_if_closed() -> Iterator[None]:
    """Whoever is interrupted closes the decoders, which then are no error of their own."""
    try:
        yield
    except DecodersClosed:
        INTERRUPTION.raise_if_asked()
        raise


class PacketWork:
    """Works on packets, one after the other, while requests for earlier ones are in flight.

    `work`, `flush`, `drain` and `abandon` are called on one thread; answers are handled on the client's. After an error that
    ends the run, the first three raise it; what was answered before is stored first. Segments and clips of several packets
    are under way at a time: a packet's last rows come after `work` has returned. Once the run's budget of requests is used up
    nothing is sent or decoded any more, and nothing is raised.

    Args:
      rows: what is the same in all rows.
      open_outbox: returns what takes the clips.
      writer: where the rows go; closed by the caller.
      store: the checkpoint, for what an earlier attempt at the same packet has stored.
      run_id: of this run.
      fetcher: fetches recordings ahead.
      decoder: decodes their segments.
      takes_objects: recordings that are such clips already are given to the outbox as the objects that they are.
      wait_s: how long answers to what is out are waited for once the budget is used up.
      retry_failed: clips that failed for good in an earlier attempt are sent again, too.
      clock: seconds, by which decoding is timed.
    """

    def __init__(
        self,
        rows: RowSettings,
        open_outbox: OpenOutbox[Ticket],
        writer: CheckpointWriter,
        store: Store,
        run_id: str,
        fetcher: Fetcher,
        decoder: Decoder,
        *,
        takes_objects: bool = False,
        wait_s: float = 0.0,
        retry_failed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._takes_objects = takes_objects
        self._wait_s = wait_s
        self._writer = writer
        self._store = store
        self._run_id = run_id
        self._retry_failed = retry_failed
        self._line = SegmentLine[_Turn](fetcher, decoder)
        self._outbox = open_outbox(self._answered, self._unstaged, self._count)
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._spent: BudgetSpent | None = None
        self._is_stopped = False
        self._counts: Counter[str] = Counter()
        self._clock = clock
        self._decoded_s = 0.0

    @_interrupted_if_closed()
    def work(self, packet: Packet) -> list[Receipt]:
        """Takes on a packet, and decodes and sends what is ahead of it in line.

        Returns receipts for rows stored so far, of this and earlier packets; of those that an earlier attempt at this
        packet has stored, too: the runner has dropped those that it returned.
        """
        if self._is_stopped:
            return self._writer.receipts()
        stored = self._stored(packet)
        held = Held(stored)
        before = held.settled(retry_failed=self._retry_failed).keys()
        state = _Packet(packet.packet_id)
        try:
            for task in packet.tasks:
                settled = before | frozenset(task.settled)
                if held.is_done(task.segment_id, settled, retry_failed=self._retry_failed):
                    continue
                with self._lock:
                    state.waiting += 1
                self._line.add(_Turn(state, task, settled), task.segment)
                while self._line.is_full:
                    self._next()
        except BudgetSpent:
            self._stop()
        self._one_less(state)
        return stored + self._writer.receipts()

    @_interrupted_if_closed()
    def flush(self) -> None:
        """Decodes what is in line, and sends the clips that wait for others to fill up a request."""
        while len(self._line):
            self._next()
        self._outbox.flush()

    def drain(self) -> list[Receipt]:
        """Does what is left, waits until all is answered and stored; returns the receipts not yet returned."""
        try:
            self.flush()
        except BudgetSpent:
            self._stop()
        self._outbox.wait()
        receipts = self._writer.flush()
        self._raise_error()
        return receipts

    def abandon(self, *, wait_s: float) -> None:
        """Lets go of clips that were not sent, after `work` or `drain` has raised, and stores what is answered.

        Args:
          wait_s: how long to wait for the answers to requests that are out, for they are paid for.
        """
        self._line.close()
        self._outbox.abandon(wait_s=wait_s)
        self._writer.flush()

    def take_counts(self) -> Counter[str]:
        """What happened since the last call, by name: for metrics, which only count on the bundle's thread.

        `decode_ms` is the time in which this thread decoded, or waited for the processes that do.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if decode_ms := int(1000 * self._decoded_s):
            counts["decode_ms"] = decode_ms
            self._decoded_s -= decode_ms / 1000
        return counts

    def _stored(self, packet: Packet) -> list[Receipt]:
        """Receipts for what is in the packet's own folder: an earlier attempt at it stored that before it failed."""
        names = sorted(self._store.names(f"{self._run_id}/{packet.packet_id}/"))
        return [receipt for name in names for receipt in read_receipts(self._store.read(name), name, self._run_id)[0]]

    def _stop(self) -> None:
        """The budget is used up: what is out is waited for, and all else is left for the next run."""
        self._is_stopped = True
        self._line.close()
        self._outbox.abandon(wait_s=self._wait_s)

    def _next(self) -> None:
        """Works on the first segment in the line."""
        opened = self._line.take()
        turn = opened.ticket
        rows = SegmentRows(self._rows, turn.task)
        decoding = opened.decoding
        try:
            if decoding is not None:
                self._clips(turn, rows, decoding, opened.source)
            INTERRUPTION.raise_if_asked()  # or what was decoded until then would be taken for all there is
        finally:
            if decoding is not None:
                decoding.close()
            if size_bytes := fetched_bytes(opened.source):
                self._count("fetched_bytes", size_bytes)
            close_source(opened.source)
        self._conclude(turn, rows, opened)
        self._one_less(turn.packet)

    def _clips(self, turn: _Turn, rows: SegmentRows, decoding: Decoding, source: Source) -> None:
        recording = turn.task.segment.recording
        itself = ready_made(recording, BytesIO(source)) if self._takes_objects and isinstance(source, bytes) else None
        for item in self._timed(decoding):
            INTERRUPTION.raise_if_asked()
            match item:
                case Clip():
                    row = rows.clip(item, decoding.source)
                    if row.clip_id not in turn.settled:
                        self._send(Ticket(turn.packet, turn.task.segment_id, row), item, itself)
                case SkippedClip():
                    rows.skipped(item)
                    self._count("skipped", 1)
                case FailedClip():
                    self._writer.add(turn.packet.packet_id, turn.task.segment_id, rows.failed_clip(item))
                    self._count("failed", 1)

    def _timed(self, decoding: Decoding) -> Iterator[ClipResult]:
        """What comes of decoding, whose time is counted."""
        while True:
            began_s = self._clock()
            item = next(decoding, None)
            self._decoded_s += self._clock() - began_s
            if item is None:
                return
            yield item

    def _conclude(self, turn: _Turn, rows: SegmentRows, opened: Opened[_Turn]) -> None:
        packet_id, segment_id = turn.packet.packet_id, turn.task.segment_id
        decoding = opened.decoding
        error = opened.error if decoding is None else decoding.error
        if error is not None:
            # What is on Cloud Storage is fetched while it is decoded.
            stage = "fetch" if isinstance(error, FetchError) else "decode"
            start_s = None if decoding is None else decoding.error_s
            self._writer.add(packet_id, segment_id, rows.failed(stage, error, start_s))
        census = rows.census(None, []) if decoding is None else rows.census(decoding.info, decoding.failed_takes)
        self._writer.add(packet_id, segment_id, census)
        if turn.task.segment.start_s == 0:
            self._count("recordings", 1)

    def _send(self, ticket: Ticket, clip: Clip, itself: ReadyMade | None) -> None:
        self._raise_error()
        if self._spent is not None:
            raise self._spent
        self._writer.raise_error()
        with self._lock:
            ticket.packet.waiting += 1
        if itself is not None and itself.holds(clip):
            self._outbox.add_object(ticket, ClipObject(itself.bucket, itself.name))
        else:
            self._outbox.add(ticket, clip.samples)

    def _answered(self, tickets: Sequence[Ticket], outcome: Outcome) -> None:
        try:
            self._count("requests", outcome.requests)
            self._count("retries", outcome.retries)
            if outcome.error is not None:
                if isinstance(outcome.error, BudgetSpent):
                    self._spent = outcome.error
                else:
                    self._error = self._error or outcome.error
            for ticket, result in zip(tickets, outcome.results, strict=True):
                if result is None:
                    continue  # the run ended before its answer, or a job will give it
                if isinstance(result, Embedded):
                    endpoint = f"{ticket.row.endpoint}@{result.deployed_model_id}"
                    row = ticket.row._replace(embedding=result.embedding, endpoint=endpoint)
                    self._writer.add(ticket.packet.packet_id, ticket.segment_id, row)
                    self._count("embedded", 1)
                else:
                    self._fail_sent(ticket, "endpoint", result)
        except Exception as error:  # noqa: BLE001  (raised again on the bundle's thread)
            self._error = self._error or error
        finally:
            for ticket in tickets:
                self._one_less(ticket.packet)

    def _unstaged(self, ticket: Ticket, error: StagingError) -> None:
        self._fail_sent(ticket, "staging", Refused(error.code, error.message, error.retryable, attempts=0))
        self._one_less(ticket.packet)

    def _one_less(self, state: _Packet) -> None:
        with self._lock:
            state.waiting -= 1
            finished = state.waiting == 0
        if finished:
            self._writer.finish(state.packet_id)

    def _fail_sent(self, ticket: Ticket, stage: str, refused: Refused) -> None:
        self._writer.add(ticket.packet.packet_id, ticket.segment_id, refused_row(ticket.row, stage, refused))
        self._count("failed", 1)

    def _count(self, name: str, by: int) -> None:
        PROGRESS.add(name, by)
        with self._lock:
            self._counts[name] += by

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
