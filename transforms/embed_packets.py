"""Fourth stage: packets into receipts for rows. Fetching, decoding, batching, the endpoint and the checkpoint are fused here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.io.components.adaptive_throttler import ThrottlingSignaler
from apache_beam.metrics import Metrics

from endpoint.client import Client
from endpoint.settings import EndpointSettings
from transforms.outbox import Count, OnDone, OnUnstaged, Outbox
from transforms.packet_bundles import COUNTS, PacketBundles, ProcessParts, WorkSettings
from transforms.packet_work import Ticket
from transforms.progress import NAMESPACE
from transforms.staging import Stager, StagingArea

_MARGIN_S: Final = 5.0
_COUNTED: Final = (
    *("embedded", "staged"),
    *("requests", "retries", "rejections", "sent_bytes", "waiting_ms", "throttled_ms"),
)
"""`retries_CODE` come as they are needed."""
_SUMMED_UP: Final = ("requests", "retries", "rejections", "throttled_ms", "staged", "clipped_samples")
"""Of retries the summary needs also the codes."""
_RETRIES: Final = "retries_"


@dataclass(frozen=True)
class EmbedSettings:
    """Everything that embedding depends on."""

    work: WorkSettings
    endpoint: EndpointSettings
    staging: StagingArea | None = None
    """Where clips are put on Cloud Storage, if URIs are sent."""
    keep_staged: bool = False


class _Parts(ProcessParts):
    closed_in_order = ("client", "stager", *ProcessParts.closed_in_order)

    def __init__(self, settings: EmbedSettings) -> None:
        self.client = Client(settings.endpoint)
        self.stager = None if settings.staging is None else Stager(settings.staging, keep=settings.keep_staged)
        super().__init__(settings.work)

    def _total(self) -> Counter[str]:
        stats = self.client.stats()
        total = Counter({f"{_RETRIES}{code}": count for code, count in stats.retries_by_code.items()})
        total["rejections"] = stats.rejections
        total["sent_bytes"] = stats.bytes_sent
        total["waiting_ms"] = round(1000 * stats.waited_s)
        total["throttled_ms"] = round(1000 * stats.throttled_s)
        return total


class _Embed(PacketBundles):
    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__(settings.work, _COUNTED, _SUMMED_UP)
        self._embed = settings

    def make_parts(self) -> _Parts:
        return _Parts(self._embed)

    def tag(self) -> str:
        return f"{super().tag()} {(self._embed.endpoint, self._embed.staging)!r}"

    def open_outbox(self, on_done: OnDone[Ticket], on_unstaged: OnUnstaged[Ticket], count: Count) -> Outbox[Ticket]:
        parts: _Parts = self.parts
        return Outbox(self._embed.endpoint, parts.client, parts.stager, on_done, on_unstaged, count)

    def work_options(self) -> dict[str, Any]:
        endpoint = self._embed.endpoint
        return {"takes_objects": endpoint.send == "uris", "wait_s": endpoint.timeout_s}

    def wait_s(self) -> float:
        return self._embed.endpoint.timeout_s + _MARGIN_S

    def setup(self) -> None:
        super().setup()
        self._latency = Metrics.distribution(NAMESPACE, "latency_ms")
        self._signaler = ThrottlingSignaler(NAMESPACE)
        self._unsignalled_ms = 0

    def drained(self) -> Iterator[tuple[str, object]]:
        parts: _Parts = self.parts
        if parts.stager is not None:
            parts.stager.drain()
        yield from ()

    def observe(self, counts: Counter[str]) -> None:
        for latency_ms in self.parts.client.take_latencies_ms():
            self._latency.update(latency_ms)
        self._unsignalled_ms += counts["throttled_ms"]
        throttled_s, self._unsignalled_ms = divmod(self._unsignalled_ms, 1000)
        if throttled_s:
            self._signaler.signal_throttled(throttled_s)

    def summed_up(self, counts: Counter[str]) -> dict[str, int]:
        by_code = {
            name.replace(_RETRIES, "retries/"): count for name, count in counts.items() if name.startswith(_RETRIES)
        }
        return {**super().summed_up(counts), **by_code}


class EmbedPackets(beam.PTransform):
    """Packets into receipts keyed by recordings' URIs (main output), and counts of what was sent, by name (tagged COUNTS)."""

    def __init__(self, settings: EmbedSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, packets: beam.PCollection) -> pvalue.DoOutputsTuple:
        return packets | "Embed clips" >> beam.ParDo(_Embed(self._settings)).with_outputs(COUNTS, main="receipts")
