"""Third stage: tasks in packets, large enough to keep requests in flight, small enough to be done again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from audio.stretches import STRETCH_S
from rows.identity import packet_id
from transforms.packed import Packing
from transforms.plan_segments import Task

MAX_TASKS = 32
MAX_SIZE_BYTES = 64 << 20
"""Of the parts of files that a packet's segments are; a larger segment is a packet of its own."""


class Packet(NamedTuple):
    """Some tasks that are worked on in one go, and whose rows share a folder of the checkpoint."""

    packet_id: str
    tasks: tuple[Task, ...]


_PACKING: Packing[Packet] = Packing(Packet)


class _FillPackets(beam.DoFn):
    def start_bundle(self) -> None:
        self._tasks: list[Task] = []
        self._size_bytes = 0

    def process(self, element: Task) -> Iterator[Packet]:
        size_bytes = _size_bytes(element)
        if self._tasks and (len(self._tasks) == MAX_TASKS or self._size_bytes + size_bytes > MAX_SIZE_BYTES):
            yield self._close()
        self._tasks.append(element)
        self._size_bytes += size_bytes

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._tasks:
            window = GlobalWindow()
            yield WindowedValue(self._close(), window.max_timestamp(), [window])

    def _close(self) -> Packet:
        tasks = tuple(sorted(self._tasks, key=lambda task: (task.segment.recording, task.segment.start_s)))
        self._tasks, self._size_bytes = [], 0
        return Packet(packet_id(task.segment_id for task in tasks), tasks)


def _size_bytes(task: Task) -> int:
    """About how much is read for a task: of a recording that was cut, the header of a WAV would tell no more."""
    segment = task.segment
    whole = segment.start_s == 0 and segment.stop_s is None
    return segment.recording.size_bytes if whole else min(segment.recording.size_bytes, STRETCH_S * _BYTES_PER_S)


_BYTES_PER_S = 192_000
"""Of 48 kHz stereo with 16 bits."""


def _pack(packet: Packet) -> bytes:
    return zlib.compress(_PACKING.pack(packet), 1)


def _unpack(packed: bytes) -> Packet:
    return _PACKING.unpack(zlib.decompress(packed))


class MakePackets(beam.PTransform):
    """Tasks into packets, spread over the workers."""

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return (
            tasks
            | "Fill packets" >> beam.ParDo(_FillPackets())
            | "Pack" >> beam.Map(_pack)
            | "Spread packets" >> beam.Reshuffle()
            | "Unpack" >> beam.Map(_unpack)
        )
