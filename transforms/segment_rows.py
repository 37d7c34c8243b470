"""What is stored about a segment: rows of its clips, failures, and the census that says what clips there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audio.clips import SAMPLE_RATE_HZ, AudioInfo, Clip, FailedClip, FailedTake, SkippedClip
from audio.decoders import SourceFormat
from audio.errors import AudioError
from endpoint.results import Refused
from rows.identity import clip_id
from rows.model import Census, EmbeddingRow, FailureRow, WantedClip
from rows.pending import PendingClip
from transforms.plan_segments import Task

_NO_EMBEDDING = np.empty(0, np.float32)


@dataclass(frozen=True)
class RowSettings:
    """What is the same in all rows of a run."""

    fingerprint: str
    model_id: str
    endpoint: str
    """The endpoint's resource name."""


class SegmentRows:
    """Makes the rows of one segment, and counts its clips."""

    def __init__(self, settings: RowSettings, task: Task) -> None:
        self._settings = settings
        self._recording = task.segment.recording
        self._clips: list[WantedClip] = []
        self._skipped: Counter[str] = Counter()

    def clip(self, clip: Clip, source: SourceFormat) -> EmbeddingRow:
        """The clip's row, but for its embedding."""
        settings = self._settings
        return EmbeddingRow(
            clip_id=self._count(clip),
            recording_uri=self._recording.uri,
            recording_version=self._recording.version,
            channel=clip.channel,
            clip_index=clip.wanted[0].clip_index,
            start_s=clip.start_s,
            end_s=clip.end_s,
            padded_s=clip.padded_s,
            rms_dbfs=clip.rms_dbfs,
            peak_dbfs=clip.peak_dbfs,
            source_rate_hz=source.rate_hz,
            source_channels=source.channels,
            codec=source.codec,
            model_id=settings.model_id,
            endpoint=settings.endpoint,
            fingerprint=settings.fingerprint,
            embedding=_NO_EMBEDDING,
        )

    def skipped(self, clip: SkippedClip) -> None:
        """Counts a clip that is left out."""
        self._skipped[clip.reason] += 1

    def failed_clip(self, clip: FailedClip) -> FailureRow:
        """The failure of a clip that cannot be sent."""
        start_s = max(0, clip.start_sample) / SAMPLE_RATE_HZ
        return self._failure(
            self._count(clip), clip.channel, start_s, "decode", clip.code, clip.message, retryable=False
        )

    def failed(self, stage: str, error: AudioError, start_s: float | None) -> FailureRow:
        """The failure of the segment, or of a part of it from which there are no clips."""
        return self._failure(None, None, start_s, stage, error.code, error.message, retryable=error.retryable)

    def census(self, info: AudioInfo | None, failed_takes: Sequence[FailedTake]) -> Census:
        """What became known of the segment, now that it is decoded to its end."""
        return Census(
            recording_uri=self._recording.uri,
            recording_version=self._recording.version,
            size_bytes=self._recording.size_bytes,
            clips=tuple(self._clips),
            failed_takes=tuple((failed.take, failed.code, failed.message) for failed in failed_takes),
            skipped_too_short=self._skipped["too_short"],
            skipped_too_quiet=self._skipped["too_quiet"],
            duration_s=info.duration_s if info else None,
            source_rate_hz=info.source_rate_hz if info else None,
            source_channels=info.source_channels if info else None,
            container=info.container if info else None,
            codec=info.codec if info else None,
            decoder=info.decoder if info else None,
            gaps=info.gaps if info else 0,
            gap_s=info.gap_s if info else 0.0,
        )

    def _count(self, clip: Clip | FailedClip) -> str:
        """Notes that there is such a clip; returns its id."""
        identity = clip_id(self._recording, clip.channel, clip.start_sample, self._settings.fingerprint, clip.limits)
        self._clips.append(WantedClip(identity, clip.wanted))
        return identity

    def _failure(
        self,
        identity: str | None,
        channel: str | None,
        start_s: float | None,
        stage: str,
        code: str,
        message: str,
        *,
        retryable: bool,
    ) -> FailureRow:
        recording = self._recording
        return FailureRow(
            recording.uri,
            recording.version,
            identity,
            channel,
            start_s,
            stage,
            code,
            message,
            retryable,
            attempts=0,
        )


def refused_row(row: EmbeddingRow | PendingClip, stage: str, refused: Refused) -> FailureRow:
    """The failure of a clip that was sent, or was to be."""
    return FailureRow(
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
