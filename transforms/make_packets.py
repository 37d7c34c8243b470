"""Second stage: segments in packets, large enough to keep requests in flight, small enough to be done again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from audio.recording import Recording, Segment
from rows.identity import packet_id, segment_id

MAX_SEGMENTS = 32
MAX_SIZE_BYTES = 64 << 20
"""Of the files that a packet's segments come from; a larger recording is a packet of its own."""


class Packet(NamedTuple):
    """Some segments that are worked on in one go, and whose rows share a folder of the checkpoint."""

    packet_id: str
    segments: tuple[Segment, ...]


class _FillPackets(beam.DoFn):
    def start_bundle(self) -> None:
        self._segments: list[Segment] = []
        self._size_bytes = 0

    def process(self, element: Recording) -> Iterator[Packet]:
        size_bytes = element.size_bytes
        if self._segments and (len(self._segments) == MAX_SEGMENTS or self._size_bytes + size_bytes > MAX_SIZE_BYTES):
            yield self._close()
        self._segments.append(Segment(element))
        self._size_bytes += size_bytes

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._segments:
            window = GlobalWindow()
            yield WindowedValue(self._close(), window.max_timestamp(), [window])

    def _close(self) -> Packet:
        segments = tuple(sorted(self._segments))
        self._segments, self._size_bytes = [], 0
        return Packet(packet_id(segment_id(segment, "") for segment in segments), segments)


class MakePackets(beam.PTransform):
    """Recordings into packets, spread over the workers."""

    def expand(self, recordings: beam.PCollection) -> beam.PCollection:
        return recordings | "Fill packets" >> beam.ParDo(_FillPackets()) | "Spread packets" >> beam.Reshuffle()
