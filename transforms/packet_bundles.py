"""Bundles of packets: fetched, decoded and handed to an outbox, their rows stored, and given back as receipts."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.decoders import Decoders
from audio.fetch_ahead import FetchAhead
from audio.heap import give_back_freed_memory, keep_freed_memory
from endpoint.quiet import keep_secrets_out_of_logs
from rows.model import Receipt
from rows.store import open_store
from rows.writer import CheckpointWriteError, CheckpointWriter
from transforms.interruption import INTERRUPTION
from transforms.make_packets import Packet
from transforms.outbox import ClipOutbox, Count, OnDone, OnUnstaged
from transforms.packet_work import PacketWork, Ticket
from transforms.progress import NAMESPACE
from transforms.quiet import quiet_worker
from transforms.segment_rows import RowSettings
from transforms.worker_stop import stop_when_told

COUNTS: Final = "counts"
_COUNTERS: Final = ("recordings", "failed", "skipped", "clipped_samples", "fetched_bytes", "decode_ms")


@dataclass(frozen=True)
class WorkSettings:
    """Everything that making clips and storing rows depends on."""

    clips: ClipSettings
    rows: RowSettings
    checkpoint: str
    """The folder that takes the rows."""
    run_id: str
    """The name of this run's folder in the checkpoint."""
    decoder_processes: int = 0
    """Child processes that decode, for each process of the runner; 0: it decodes itself."""
    decoder_limits: DecoderLimits = field(default_factory=DecoderLimits)
    retry_failed: bool = False
    """Whether clips that failed for good in an earlier attempt at their packet are sent again."""


class ProcessParts:
    """What a process has one of: Shared keeps weak references, and all is closed with its last user."""

    closed_in_order: tuple[str, ...] = ("decoders", "fetcher")
    """Names of those that are to be closed."""

    def __init__(self, settings: WorkSettings) -> None:
        keep_freed_memory()
        self.decoders = Decoders(settings.clips, settings.decoder_processes, settings.decoder_limits)
        self.fetcher = FetchAhead()
        self._lock = threading.Lock()
        self._told: Counter[str] = Counter()
        _LIVE.add(self)

    def take_counts(self) -> Counter[str]:
        """What was counted since the last call by any of its users; times in ms."""
        with self._lock:
            total = self._total()
            new = total - self._told
            self._told = total
            return new

    def close(self) -> None:
        """Ends them: nothing is sent any more, nor answered."""
        for name in self.closed_in_order:
            if (part := getattr(self, name, None)) is not None:
                with contextlib.suppress(Exception):  # it may have no user left to whom it could matter
                    part.close()

    def _total(self) -> Counter[str]:
        """All that was counted so far."""
        return Counter()

    def __del__(self) -> None:
        self.close()


_LIVE: Final[weakref.WeakSet[ProcessParts]] = weakref.WeakSet()


class _Nothing:
    """What takes their place when nobody needs them any more."""


def release_shared() -> None:
    """Ends this process's client and child processes, before the endpoint that a run started.

    Shared keeps its latest object alive until it is asked for another one; and threads of a run that was interrupted may still
    use it, whose answers nobody would store.
    """
    Shared().acquire(_Nothing)
    for parts in list(_LIVE):
        parts.close()


class PacketBundles(beam.DoFn):
    """Works on packets; a subclass says what takes the clips.

    Args:
      settings: of the work.
      counted: names of counters that are there from the start; others come as they are needed.
      summed_up: names of counts that the summary needs, tagged COUNTS.
    """

    def __init__(self, settings: WorkSettings, counted: tuple[str, ...], summed_up: tuple[str, ...]) -> None:
        self._settings = settings
        self._counted = counted
        self._summed_up = summed_up
        self._shared = Shared()

    def make_parts(self) -> ProcessParts:
        """What is shared in the process."""
        return ProcessParts(self._settings)

    def tag(self) -> str:
        """What says whether parts that are there can be used."""
        settings = self._settings
        return repr((settings.clips, settings.decoder_processes, settings.decoder_limits))

    @abstractmethod
    def open_outbox(self, on_done: OnDone[Ticket], on_unstaged: OnUnstaged[Ticket], count: Count) -> ClipOutbox[Ticket]:
        """What takes the bundle's clips; see outbox.OpenOutbox."""

    def work_options(self) -> dict[str, Any]:
        """Further arguments of PacketWork."""
        return {}

    def drained(self) -> Iterator[tuple[str, object]]:
        """Called once all that the bundle has taken is done with; yields tagged outputs, if there are some."""
        yield from ()

    def observe(self, counts: Counter[str]) -> None:
        """Told of what was counted, on the bundle's thread."""

    def setup(self) -> None:
        quiet_worker()
        stop_when_told()
        keep_secrets_out_of_logs()
        # What is there by now (Beam, above all) stays: the collector need not look through it again and again.
        gc.freeze()
        self._open_parts: ProcessParts | None = self._shared.acquire(self.make_parts, tag=self.tag())
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in (*_COUNTERS, *self._counted)}
        self._writer: CheckpointWriter | None = None

    def start_bundle(self) -> None:
        parts, settings = self.parts, self._settings
        store = open_store(settings.checkpoint)
        self._writer = CheckpointWriter(settings.run_id, store.write)
        self._work = PacketWork(
            settings.rows,
            self.open_outbox,
            self._writer,
            store,
            settings.run_id,
            parts.fetcher,
            parts.decoders,
            retry_failed=settings.retry_failed,
            **self.work_options(),
        )
        self._timestamp: Timestamp | None = None

    def process(
        self, element: Packet, timestamp: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[tuple[str, Receipt] | pvalue.TaggedOutput]:
        self._timestamp = timestamp
        with self._kept_if_it_fails():
            receipts = self._work.work(element)
        for receipt in receipts:
            yield receipt.recording_uri, receipt
        yield pvalue.TaggedOutput(COUNTS, self._count())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        try:
            with self._kept_if_it_fails():
                receipts = self._work.drain()
                outputs = list(self.drained())
        finally:
            self._open_writer.close()
        give_back_freed_memory()
        window = GlobalWindow()
        timestamp = self._timestamp if self._timestamp is not None else window.max_timestamp()
        for receipt in receipts:
            yield WindowedValue((receipt.recording_uri, receipt), timestamp, [window])
        for tag, output in (*outputs, (COUNTS, self._count())):
            yield pvalue.TaggedOutput(tag, WindowedValue(output, timestamp, [window]))

    def teardown(self) -> None:
        if self._open_parts is not None and INTERRUPTION.is_asked:
            self._open_parts.close()  # or what is answered from now on would be lost
        self._open_parts = None
        if self._writer is not None:  # after a bundle that was cut off from outside
            with contextlib.suppress(CheckpointWriteError):
                self._writer.flush()
            self._writer.close()

    @property
    def parts(self) -> Any:
        """What `make_parts` has made."""
        assert self._open_parts is not None
        return self._open_parts

    @property
    def _open_writer(self) -> CheckpointWriter:
        assert self._writer is not None
        return self._writer

    def wait_s(self) -> float:
        """How long what is out is waited for after an error."""
        return 0.0

    @contextlib.contextmanager
    def _kept_if_it_fails(self) -> Iterator[None]:
        """Stores what was answered, if what is done in the context fails.

        What is out is waited for as well, unless that is of no use or the run was interrupted.
        """
        try:
            yield
        except BaseException as error:
            waits = isinstance(error, Exception) and not isinstance(error, CheckpointWriteError)
            with contextlib.suppress(CheckpointWriteError):
                self._work.abandon(wait_s=self.wait_s() if waits else 0.0)
            raise

    def _count(self) -> dict[str, int]:
        """Counts what has happened, for the metrics; returns what the summary needs of it."""
        counts = self._work.take_counts() + self.parts.take_counts()
        for name in {*self._counters, *counts}:
            if name not in self._counters:
                self._counters[name] = Metrics.counter(NAMESPACE, name)
            self._counters[name].inc(counts[name])
        self.observe(counts)
        return self.summed_up(counts)

    def summed_up(self, counts: Counter[str]) -> dict[str, int]:
        """What the summary needs of the counts."""
        return {name: counts[name] for name in self._summed_up}
