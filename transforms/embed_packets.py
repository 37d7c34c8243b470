"""Third stage: packets into receipts for rows. Fetching, decoding, batching, the endpoint and the checkpoint are fused here."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from audio.clips import ClipSettings
from endpoint.client import Client
from endpoint.settings import EndpointSettings
from rows.model import Receipt
from rows.writer import CheckpointWriteError, CheckpointWriter
from transforms.files import write_whole
from transforms.make_packets import Packet
from transforms.packet_work import PacketWork, RowSettings
from transforms.quiet import quiet_worker

COUNTS = "counts"


@dataclass(frozen=True)
class EmbedSettings:
    """Everything that embedding depends on."""

    clips: ClipSettings
    rows: RowSettings
    endpoint: EndpointSettings
    run_folder: str
    """The folder of the checkpoint that takes this run's rows."""


class _SharedClient:
    """Holds the process's one client: Shared keeps weak references, and the client is closed with its last user."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.client = Client(settings)
        self._lock = threading.Lock()
        self._told_ms = 0

    def take_throttled_ms(self) -> int:
        """Time for which the endpoint's quota has kept requests waiting, since the last call by any of the client's users."""
        with self._lock:
            total_ms = round(1000 * self.client.stats().throttled_s)
            since_ms, self._told_ms = total_ms - self._told_ms, total_ms
            return since_ms

    def __del__(self) -> None:
        client = getattr(self, "client", None)
        if client is not None:
            with contextlib.suppress(Exception):  # it may have no user left to whom it could matter
                client.close()


class _Nothing:
    """What takes the client's place when nobody needs it any more."""


def release_client() -> None:
    """Lets go of this process's client, so that it is closed before the endpoint that a run started ends.

    Shared keeps its latest object alive until it is asked for another one.
    """
    Shared().acquire(_Nothing)


class _Embed(beam.DoFn):
    def __init__(self, settings: EmbedSettings) -> None:
        self._settings = settings
        self._shared = Shared()

    def setup(self) -> None:
        quiet_worker()
        # What is there by now (Beam, above all) stays: the collector need not look through it again and again.
        gc.freeze()
        endpoint = self._settings.endpoint
        self._client: _SharedClient | None = self._shared.acquire(lambda: _SharedClient(endpoint), tag=repr(endpoint))
        self._counters = {
            name: Metrics.counter("embed", name) for name in ("recordings", "embedded", "failed", "requests", "retries")
        }
        self._writer: CheckpointWriter | None = None
        self._throttled = Metrics.counter("embed", "throttled_ms")

    def start_bundle(self) -> None:
        assert self._client is not None
        self._writer = writer = CheckpointWriter(self._settings.run_folder, write_whole)
        self._work = PacketWork(self._settings.rows, self._settings.clips, self._client.client, writer)
        self._timestamp: Timestamp | None = None

    def process(
        self, element: Packet, timestamp: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[Receipt | pvalue.TaggedOutput]:
        self._timestamp = timestamp
        try:
            yield from self._work.work(element)
        except BaseException:
            with contextlib.suppress(CheckpointWriteError):
                self._open_writer.flush()  # what was answered is paid for
            raise
        yield pvalue.TaggedOutput(COUNTS, self._count())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        try:
            receipts = self._work.drain()
        finally:
            self._open_writer.close()
        window = GlobalWindow()
        timestamp = self._timestamp if self._timestamp is not None else window.max_timestamp()
        for receipt in receipts:
            yield WindowedValue(receipt, timestamp, [window])
        yield pvalue.TaggedOutput(COUNTS, WindowedValue(self._count(), timestamp, [window]))

    def teardown(self) -> None:
        self._client = None
        if self._writer is not None:  # after a bundle that was cut off from outside
            with contextlib.suppress(CheckpointWriteError):
                self._writer.flush()
            self._writer.close()

    @property
    def _open_writer(self) -> CheckpointWriter:
        assert self._writer is not None
        return self._writer

    def _count(self) -> dict[str, int]:
        counts = self._work.take_counts()
        for name, counter in self._counters.items():
            counter.inc(counts[name])
        assert self._client is not None
        throttled_ms = self._client.take_throttled_ms()
        self._throttled.inc(throttled_ms)
        return {"requests": counts["requests"], "retries": counts["retries"], "throttled_ms": throttled_ms}


class EmbedPackets(beam.PTransform):
    """Packets into receipts (main output), and counts of requests, retries and throttled ms (tagged COUNTS)."""

    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, packets: beam.PCollection) -> pvalue.DoOutputsTuple:
        return packets | "Embed clips" >> beam.ParDo(_Embed(self._settings)).with_outputs(COUNTS, main="receipts")
