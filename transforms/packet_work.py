"""The work on a packet, without Beam: fetch, decode, send, and store the rows as the answers come."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from audio.clips import SAMPLE_RATE_HZ, Clip, ClipSettings, ClipStream, FailedClip, SkippedClip, open_clips
from audio.errors import AudioError, FetchError
from audio.fetch import open_recording
from audio.ready_made import ReadyMade, ready_made
from audio.recording import Recording, Segment
from endpoint.items import ClipObject
from endpoint.results import Embedded, Outcome, Refused
from endpoint.settings import EndpointSettings
from rows.identity import clip_id, segment_id
from rows.model import Census, EmbeddingRow, FailureRow, Receipt
from rows.writer import CheckpointWriter
from transforms.interruption import INTERRUPTION
from transforms.make_packets import Packet
from transforms.outbox import Outbox, Predictor
from transforms.progress import PROGRESS
from transforms.staging import Stager, StagingError

_NO_EMBEDDING = np.empty(0, np.float32)


@dataclass(frozen=True)
class RowSettings:
    """What is the same in all rows of a run."""

    fingerprint: str
    model_id: str
    endpoint: str
    """The endpoint's resource name."""


@dataclass(slots=True)
class _Packet:
    """A packet whose clips do not all have their rows yet."""

    packet_id: str
    waiting: int = 1
    """Clips without a row, and 1 while the packet is still being decoded."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What is kept of a clip while it is on its way. Its samples are not: while a request is out, the client has them."""

    packet: _Packet
    segment: str
    row: EmbeddingRow
    """But for the embedding."""


class PacketWork:
    """Works on packets, one after the other, while requests for earlier ones are in flight.

    `work`, `flush`, `drain` and `abandon` are called on one thread; answers are handled on the client's. After an error that
    ends the run, the first three raise it; what was answered before is stored first. Requests may hold clips of
    several packets: a packet's last rows come after `work` has returned.

    Args:
      rows: what is the same in all rows.
      clips: which clips there are.
      endpoint: in which form clips are sent.
      client: what is asked for embeddings.
      writer: where the rows go; closed by the caller.
      stager: puts clips on Cloud Storage, where URIs are sent.
      open_file: opens a recording; AudioError says why it cannot.
    """

    def __init__(
        self,
        rows: RowSettings,
        clips: ClipSettings,
        endpoint: EndpointSettings,
        client: Predictor,
        writer: CheckpointWriter,
        stager: Stager | None = None,
        open_file: Callable[[Recording], BinaryIO] = open_recording,
    ) -> None:
        self._rows = rows
        self._clips = clips
        self._sends_uris = endpoint.send == "uris"
        self._writer = writer
        self._open_file = open_file
        self._outbox = Outbox[_Ticket](endpoint, client, stager, self._answered, self._unstaged, self._count)
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._counts: Counter[str] = Counter()

    def work(self, packet: Packet) -> list[Receipt]:
        """Decodes a packet and sends its clips; returns receipts for rows stored so far, of this and earlier packets."""
        state = _Packet(packet.packet_id)
        for segment in packet.segments:
            self._segment(state, segment.recording)
        self._one_less(state)
        return self._writer.receipts()

    def flush(self) -> None:
        """Sends the clips that wait for others to fill up a request."""
        self._outbox.flush()

    def drain(self) -> list[Receipt]:
        """Sends what is left, waits until all is answered and stored; returns the receipts not yet returned."""
        self.flush()
        self._outbox.wait()
        receipts = self._writer.flush()
        self._raise_error()
        return receipts

    def abandon(self, *, wait_s: float) -> None:
        """Lets go of clips that were not sent, after `work` or `drain` has raised, and stores what is answered.

        Args:
          wait_s: how long to wait for the answers to requests that are out, for they are paid for.
        """
        self._outbox.abandon(wait_s=wait_s)
        self._writer.flush()

    def take_counts(self) -> Counter[str]:
        """What happened since the last call, by name: for metrics, which only count on the bundle's thread."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            return counts

    def _segment(self, state: _Packet, recording: Recording) -> None:
        segment = self._segment_id(recording)
        counts: Counter[str] = Counter()
        stream: ClipStream | None = None
        failure: tuple[str, AudioError, float | None] | None = None
        try:
            with self._open_file(recording) as file, closing(open_clips(file, self._clips)) as stream:
                itself = ready_made(recording, file) if self._sends_uris else None
                for item in stream:
                    INTERRUPTION.raise_if_asked()
                    counts["clips"] += 1
                    match item:
                        case Clip():
                            self._send(state, segment, recording, stream, item, itself)
                        case SkippedClip():
                            counts[item.reason] += 1
                        case FailedClip():
                            self._fail_clip(state, recording, item)
            if stream.error is not None:
                # What is on Cloud Storage is fetched while it is decoded.
                stage = "fetch" if isinstance(stream.error, FetchError) else "decode"
                failure = stage, stream.error, stream.error_s
        except AudioError as error:
            failure = "fetch", error, None
        INTERRUPTION.raise_if_asked()  # or what was decoded until then would be taken for all there is
        if failure is not None:
            self._fail(state, recording, *failure)
        self._writer.add(state.packet_id, segment, _census(recording, stream, counts))
        self._count("recordings", 1)

    def _segment_id(self, recording: Recording) -> str:
        return segment_id(Segment(recording), self._clips.choice)

    def _row(self, recording: Recording, stream: ClipStream, clip: Clip) -> EmbeddingRow:
        """The clip's row, but for its embedding."""
        return EmbeddingRow(
            clip_id=clip_id(recording, clip.channel, clip.start_sample, self._rows.fingerprint),
            recording_uri=recording.uri,
            recording_version=recording.version,
            channel=clip.channel,
            clip_index=clip.wanted[0].clip_index,
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

    def _send(
        self,
        state: _Packet,
        segment: str,
        recording: Recording,
        stream: ClipStream,
        clip: Clip,
        itself: ReadyMade | None,
    ) -> None:
        self._raise_error()
        self._writer.raise_error()
        ticket = _Ticket(state, segment, self._row(recording, stream, clip))
        with self._lock:
            state.waiting += 1
        if itself is not None and itself.holds(clip):
            self._outbox.add_object(ticket, ClipObject(itself.bucket, itself.name))
        else:
            self._outbox.add(ticket, clip.samples)

    def _answered(self, tickets: Sequence[_Ticket], outcome: Outcome) -> None:
        try:
            self._count("requests", outcome.requests)
            self._count("retries", outcome.retries)
            if outcome.error is not None:
                self._error = self._error or outcome.error
            for ticket, result in zip(tickets, outcome.results, strict=True):
                if result is None:
                    continue  # the run ended before its answer
                if isinstance(result, Embedded):
                    endpoint = f"{ticket.row.endpoint}@{result.deployed_model_id}"
                    row = ticket.row._replace(embedding=result.embedding, endpoint=endpoint)
                    self._writer.add(ticket.packet.packet_id, ticket.segment, row)
                    self._count("embedded", 1)
                else:
                    self._fail_sent(ticket, "endpoint", result)
        except Exception as error:  # noqa: BLE001  (raised again on the bundle's thread)
            self._error = self._error or error
        finally:
            for ticket in tickets:
                self._one_less(ticket.packet)

    def _unstaged(self, ticket: _Ticket, error: StagingError) -> None:
        self._fail_sent(ticket, "staging", Refused(error.code, error.message, error.retryable, attempts=0))
        self._one_less(ticket.packet)

    def _one_less(self, state: _Packet) -> None:
        with self._lock:
            state.waiting -= 1
            finished = state.waiting == 0
        if finished:
            self._writer.finish(state.packet_id)

    def _fail_sent(self, ticket: _Ticket, stage: str, refused: Refused) -> None:
        row = ticket.row
        failure = FailureRow(
            row.recording_uri,
            row.recording_version,
            row.clip_id,
            row.channel,
            row.start_s,
            stage,
            refused.code,
            refused.message,
            refused.retryable,
            refused.attempts,
        )
        self._writer.add(ticket.packet.packet_id, ticket.segment, failure)
        self._count("failed", 1)

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
        self._writer.add(state.packet_id, self._segment_id(recording), row)
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
        self._writer.add(state.packet_id, self._segment_id(recording), row)

    def _count(self, name: str, by: int) -> None:
        PROGRESS.add(name, by)
        with self._lock:
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
