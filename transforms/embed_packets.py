"""Fourth stage: packets into receipts for rows. Fetching, decoding, batching, the endpoint and the checkpoint are fused here."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.io.components.adaptive_throttler import ThrottlingSignaler
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
from endpoint.client import Client
from endpoint.quiet import keep_secrets_out_of_logs
from endpoint.settings import EndpointSettings
from rows.model import Receipt
from rows.store import open_store
from rows.writer import CheckpointWriteError, CheckpointWriter
from transforms.interruption import INTERRUPTION
from transforms.make_packets import Packet
from transforms.packet_work import PacketWork
from transforms.progress import NAMESPACE
from transforms.quiet import quiet_worker
from transforms.segment_rows import RowSettings
from transforms.staging import Stager, StagingArea
from transforms.worker_stop import stop_when_told

COUNTS = "counts"
_MARGIN_S = 5.0
_COUNTERS = (
    *("recordings", "embedded", "failed", "skipped", "staged", "clipped_samples", "fetched_bytes", "decode_ms"),
    *("requests", "retries", "rejections", "sent_bytes", "waiting_ms", "throttled_ms"),
)
"""Those that are there from the start; `retries_CODE` come as they are needed."""
_SUMMED_UP = ("requests", "retries", "rejections", "throttled_ms", "staged", "clipped_samples")
"""Counts that the summary needs; of retries also the codes."""
_RETRIES = "retries_"


@dataclass(frozen=True)
class EmbedSettings:
    """Everything that embedding depends on."""

    clips: ClipSettings
    rows: RowSettings
    endpoint: EndpointSettings
    checkpoint: str
    """The folder that takes the rows."""
    run_id: str
    """Of this run, and the name of its folder in the checkpoint."""
    decoder_processes: int = 0
    """Child processes that decode, for each process of the runner; 0: it decodes itself."""
    decoder_limits: DecoderLimits = field(default_factory=DecoderLimits)
    retry_failed: bool = False
    """Whether clips that failed for good in an earlier attempt at their packet are sent again."""
    staging: StagingArea | None = None
    """Where clips are put on Cloud Storage, if URIs are sent."""
    keep_staged: bool = False


class _ProcessParts:
    """What a process has one of: Shared keeps weak references, and all is closed with its last user."""

    def __init__(self, settings: EmbedSettings) -> None:
        keep_freed_memory()
        self.client = Client(settings.endpoint)
        self.stager = None if settings.staging is None else Stager(settings.staging, keep=settings.keep_staged)
        self.decoders = Decoders(settings.clips, settings.decoder_processes, settings.decoder_limits)
        self.fetcher = FetchAhead()
        self._lock = threading.Lock()
        self._told: Counter[str] = Counter()
        _LIVE.add(self)

    def take_counts(self) -> Counter[str]:
        """What the client counted since the last call by any of its users; times in ms."""
        with self._lock:
            stats = self.client.stats()
            total = Counter({f"{_RETRIES}{code}": count for code, count in stats.retries_by_code.items()})
            total["rejections"] = stats.rejections
            total["sent_bytes"] = stats.bytes_sent
            total["waiting_ms"] = round(1000 * stats.waited_s)
            total["throttled_ms"] = round(1000 * stats.throttled_s)
            new = total - self._told
            self._told = total
            return new

    def close(self) -> None:
        """Ends them: nothing is sent any more, nor answered."""
        for name in ("client", "stager", "decoders", "fetcher"):
            if (part := getattr(self, name, None)) is not None:
                with contextlib.suppress(Exception):  # it may have no user left to whom it could matter
                    part.close()

    def __del__(self) -> None:
        self.close()


_LIVE: Final[weakref.WeakSet[_ProcessParts]] = weakref.WeakSet()


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


class _Embed(beam.DoFn):
    def __init__(self, settings: EmbedSettings) -> None:
        self._settings = settings
        self._shared = Shared()

    def setup(self) -> None:
        quiet_worker()
        stop_when_told()
        keep_secrets_out_of_logs()
        # What is there by now (Beam, above all) stays: the collector need not look through it again and again.
        gc.freeze()
        settings = self._settings
        tag = repr(
            (settings.endpoint, settings.staging, settings.clips, settings.decoder_processes, settings.decoder_limits)
        )
        self._open_parts: _ProcessParts | None = self._shared.acquire(lambda: _ProcessParts(settings), tag=tag)
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in _COUNTERS}
        self._latency = Metrics.distribution(NAMESPACE, "latency_ms")
        self._writer: CheckpointWriter | None = None
        self._signaler = ThrottlingSignaler(NAMESPACE)
        self._unsignalled_ms = 0

    def start_bundle(self) -> None:
        shared, settings = self._parts, self._settings
        store = open_store(settings.checkpoint)
        self._writer = CheckpointWriter(settings.run_id, store.write)
        self._work = PacketWork(
            settings.rows,
            settings.endpoint,
            shared.client,
            self._writer,
            store,
            settings.run_id,
            shared.fetcher,
            shared.decoders,
            shared.stager,
            retry_failed=settings.retry_failed,
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
                if (stager := self._parts.stager) is not None:
                    stager.drain()
        finally:
            self._open_writer.close()
        give_back_freed_memory()
        window = GlobalWindow()
        timestamp = self._timestamp if self._timestamp is not None else window.max_timestamp()
        for receipt in receipts:
            yield WindowedValue((receipt.recording_uri, receipt), timestamp, [window])
        yield pvalue.TaggedOutput(COUNTS, WindowedValue(self._count(), timestamp, [window]))

    def teardown(self) -> None:
        if self._open_parts is not None and INTERRUPTION.is_asked:
            self._open_parts.close()  # or what is answered from now on would be lost
        self._open_parts = None
        if self._writer is not None:  # after a bundle that was cut off from outside
            with contextlib.suppress(CheckpointWriteError):
                self._writer.flush()
            self._writer.close()

    @property
    def _parts(self) -> _ProcessParts:
        assert self._open_parts is not None
        return self._open_parts

    @property
    def _open_writer(self) -> CheckpointWriter:
        assert self._writer is not None
        return self._writer

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
                self._work.abandon(wait_s=self._settings.endpoint.timeout_s + _MARGIN_S if waits else 0.0)
            raise

    def _count(self) -> dict[str, int]:
        """Counts what has happened, for the metrics; returns what the summary needs of it."""
        counts = self._work.take_counts() + self._parts.take_counts()
        for name in {*self._counters, *counts}:
            if name not in self._counters:
                self._counters[name] = Metrics.counter(NAMESPACE, name)
            self._counters[name].inc(counts[name])
        for latency_ms in self._parts.client.take_latencies_ms():
            self._latency.update(latency_ms)
        self._unsignalled_ms += counts["throttled_ms"]
        throttled_s, self._unsignalled_ms = divmod(self._unsignalled_ms, 1000)
        if throttled_s:
            self._signaler.signal_throttled(throttled_s)
        by_code = {
            name.replace(_RETRIES, "retries/"): count for name, count in counts.items() if name.startswith(_RETRIES)
        }
        return {**{name: counts[name] for name in _SUMMED_UP}, **by_code}


class EmbedPackets(beam.PTransform):
    """Packets into receipts keyed by recordings' URIs (main output), and counts of what was sent, by name (tagged COUNTS)."""

    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, packets: beam.PCollection) -> pvalue.DoOutputsTuple:
        return packets | "Embed clips" >> beam.ParDo(_Embed(self._settings)).with_outputs(COUNTS, main="receipts")
