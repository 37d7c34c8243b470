"""The work on a packet, without Beam: fetch, decode, batch, send, and store the rows as the answers come."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Protocol

import numpy as np

from audio.clips import SAMPLE_RATE_HZ, Clip, ClipSettings, ClipStream, FailedClip, SkippedClip, open_clips
from audio.errors import AudioError, FetchError
from audio.fetch import open_recording
from audio.recording import Recording
from endpoint.results import Embedded, Outcome
from rows.identity import clip_id, segment_id
from rows.model import Census, EmbeddingRow, FailureRow, Receipt
from rows.writer import CheckpointWriter
from transforms.make_packets import Packet
from transforms.progress import PROGRESS

_NO_EMBEDDING = np.empty(0, np.float32)


class Predictor(Protocol):
    """What is asked for embeddings: endpoint.client.Client, or a fake of it."""

    def submit(self, clips: Sequence[np.ndarray], on_done: Callable[[Outcome], None]) -> None:
        """Sends clips; blocks while too many requests are out; `on_done` is called once, on another thread."""


@dataclass(frozen=True)
class RowSettings:
    """What is the same in all rows of a run."""

    fingerprint: str
    model_id: str
    endpoint: str
    """The endpoint's resource name."""
    clips_per_request: int = 4


@dataclass
class _Packet:
    """A packet whose clips are not all answered yet."""

    packet_id: str
    waiting: int = 1
    """Requests that are out, and 1 while the packet is still being decoded."""


@dataclass
class _Batch:
    clips: list[np.ndarray] = field(default_factory=list)
    rows: list[tuple[str, EmbeddingRow]] = field(default_factory=list)


class PacketWork:
    """Works on packets, one after the other, while requests for earlier ones are in flight.

    `work` and `drain` are called on one thread; answers are handled on the client's. After an error that ends the
    run, both raise it; what was answered before is stored first.

    Args:
      rows: what is the same in all rows.
      clips: which clips there are.
      client: what is asked for embeddings.
      writer: where the rows go; closed by the caller.
      open_file: opens a recording; AudioError says why it cannot.
    """

    def __init__(
        self,
        rows: RowSettings,
        clips: ClipSettings,
        client: Predictor,
        writer: CheckpointWriter,
        open_file: Callable[[Recording], BinaryIO] = open_recording,
    ) -> None:
        self._rows = rows
        self._clips = clips
        self._client = client
        self._writer = writer
        self._open_file = open_file
        self._changed = threading.Condition()
        self._out = 0
        self._error: Exception | None = None
        self._counts: Counter[str] = Counter()

    def work(self, packet: Packet) -> list[Receipt]:
        """Decodes a packet and sends its clips; returns receipts for rows stored so far, of this and earlier packets."""
        state = _Packet(packet.packet_id)
        batch = _Batch()
        for segment in packet.segments:
            batch = self._segment(state, segment.recording, batch)
        if batch.clips:
            self._send(state, batch)
        self._one_less(state)
        return self._writer.receipts()

    def drain(self) -> list[Receipt]:
        """Waits until all that was sent is answered and stored; returns the receipts not yet returned."""
        with self._changed:
            self._changed.wait_for(lambda: self._out == 0)
        receipts = self._writer.flush()
        self._raise_error()
        return receipts

    def take_counts(self) -> Counter[str]:
        """What happened since the last call, by name: for metrics, which only count on the bundle's thread."""
        with self._changed:
            counts, self._counts = self._counts, Counter()
            return counts

    def _segment(self, state: _Packet, recording: Recording, batch: _Batch) -> _Batch:
        """Sends the full batches of a segment; returns what is left over for the next one's."""
        segment = segment_id(recording)
        counts: Counter[str] = Counter()
        stream: ClipStream | None = None
        try:
            with self._open_file(recording) as file, closing(open_clips(file, self._clips)) as stream:
                for item in stream:
                    counts["clips"] += 1
                    match item:
                        case Clip():
                            batch.clips.append(item.samples)
                            batch.rows.append((segment, self._row(recording, stream, item)))
                            if len(batch.clips) == self._rows.clips_per_request:
                                self._send(state, batch)
                                batch = _Batch()
                        case SkippedClip():
                            counts[item.reason] += 1
                        case FailedClip():
                            self._fail_clip(state, recording, item)
            if stream.error is not None:
                # What is on Cloud Storage is fetched while it is decoded.
                stage = "fetch" if isinstance(stream.error, FetchError) else "decode"
                self._fail(state, recording, stage, stream.error, stream.error_s)
        except AudioError as error:
            self._fail(state, recording, "fetch", error, None)
        self._writer.add(state.packet_id, segment, _census(recording, stream, counts))
        self._count("recordings", 1)
        return batch

    def _row(self, recording: Recording, stream: ClipStream, clip: Clip) -> EmbeddingRow:
        """The clip's row, but for its embedding. The samples are not kept here: while a request is out, the client has them."""
        return EmbeddingRow(
            clip_id=clip_id(recording, clip.channel, clip.start_sample, self._rows.fingerprint),
            recording_uri=recording.uri,
            recording_version=recording.version,
            channel=clip.channel,
            clip_index=clip.clip_index,
            start_s=clip.start_s,
            end_s=clip.end_s,
            padded_s=clip.padded_s,
            rms_dbfs=clip.rms_dbfs,
            peak_dbfs=clip.peak_dbfs,
            source_rate_hz=stream.source.rate_hz,
            source_channels=stream.source.channels,
            codec=stream.source.codec,
            model_id=self._rows.model_id,
            endpoint=self._rows.endpoint,
            fingerprint=self._rows.fingerprint,
            embedding=_NO_EMBEDDING,
        )

    def _send(self, state: _Packet, batch: _Batch) -> None:
        self._raise_error()
        self._writer.raise_error()
        with self._changed:
            self._out += 1
            state.waiting += 1
        try:
            self._client.submit(batch.clips, partial(self._answered, state, batch.rows))
        except BaseException:
            with self._changed:
                self._out -= 1
                state.waiting -= 1
            raise

    def _answered(self, state: _Packet, rows: list[tuple[str, EmbeddingRow]], outcome: Outcome) -> None:
        try:
            self._count("requests", outcome.requests)
            self._count("retries", outcome.retries)
            if outcome.error is not None:
                self._error = self._error or outcome.error
                return
            for (segment, row), result in zip(rows, outcome.results, strict=True):
                if isinstance(result, Embedded):
                    endpoint = f"{row.endpoint}@{result.deployed_model_id}"
                    self._writer.add(
                        state.packet_id, segment, row._replace(embedding=result.embedding, endpoint=endpoint)
                    )
                    self._count("embedded", 1)
                else:
                    failure = FailureRow(
                        row.recording_uri,
                        row.recording_version,
                        row.clip_id,
                        row.channel,
                        row.start_s,
                        "endpoint",
                        result.code,
                        result.message,
                        result.retryable,
                        result.attempts,
                    )
                    self._writer.add(state.packet_id, segment, failure)
                    self._count("failed", 1)
        except Exception as error:  # noqa: BLE001  (raised again on the bundle's thread)
            self._error = self._error or error
        finally:
            self._one_less(state)
            with self._changed:
                self._out -= 1
                self._changed.notify_all()

    def _one_less(self, state: _Packet) -> None:
        with self._changed:
            state.waiting -= 1
            finished = state.waiting == 0
        if finished:
            self._writer.finish(state.packet_id)

    def _fail_clip(self, state: _Packet, recording: Recording, clip: FailedClip) -> None:
        row = FailureRow(
            recording.uri,
            recording.version,
            clip_id(recording, clip.channel, clip.start_sample, self._rows.fingerprint),
            clip.channel,
            clip.start_sample / SAMPLE_RATE_HZ,
            "decode",
            clip.code,
            clip.message,
            retryable=False,
            attempts=0,
        )
        self._writer.add(state.packet_id, segment_id(recording), row)
        self._count("failed", 1)

    def _fail(self, state: _Packet, recording: Recording, stage: str, error: AudioError, start_s: float | None) -> None:
        row = FailureRow(
            recording.uri,
            recording.version,
            None,
            None,
            start_s,
            stage,
            error.code,
            error.message,
            error.retryable,
            attempts=0,
        )
        self._writer.add(state.packet_id, segment_id(recording), row)

    def _count(self, name: str, by: int) -> None:
        PROGRESS.add(name, by)
        with self._changed:
            self._counts[name] += by

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _census(recording: Recording, stream: ClipStream | None, counts: Counter[str]) -> Census:
    info = stream.info if stream is not None else None
    return Census(
        recording_uri=recording.uri,
        recording_version=recording.version,
        size_bytes=recording.size_bytes,
        clips=counts["clips"],
        skipped_too_short=counts["too_short"],
        skipped_too_quiet=counts["too_quiet"],
        duration_s=info.duration_s if info else None,
        source_rate_hz=info.source_rate_hz if info else None,
        source_channels=info.source_channels if info else None,
        container=info.container if info else None,
        codec=info.codec if info else None,
        decoder=info.decoder if info else None,
        gaps=info.gaps if info else 0,
        gap_s=info.gap_s if info else 0.0,
    )
