"""The rows of the three tables, and the receipts that stand for them until they are written."""

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

EMBEDDING_FLOATS = 512
"""Length of a HeAR embedding (API documentation)."""

Status = Literal["embedded", "partial", "skipped", "failed"]


class EmbeddingRow(NamedTuple):
    """One clip's row: where it is in its recording, how it sounds, and its embedding."""

    clip_id: str
    recording_uri: str
    recording_version: str
    channel: str
    """`mean`, or the channel's number from 0."""
    clip_index: int
    """The clip's number among those of its channel, skipped and failed ones counted."""
    start_s: float
    end_s: float
    """Where the clip's audio ends; padding left out."""
    padded_s: float
    """Seconds of zeros after the audio."""
    rms_dbfs: float
    """Root mean square of the audio relative to full scale; padding left out; -inf for digital silence."""
    peak_dbfs: float
    source_rate_hz: int
    source_channels: int
    codec: str
    model_id: str
    endpoint: str
    """The endpoint's resource name, with the deployed model's id behind an @."""
    fingerprint: str
    embedding: npt.NDArray[np.float32]
    """512 floats."""

    def __repr__(self) -> str:
        return f"EmbeddingRow(clip_id={self.clip_id!r}, recording_uri={self.recording_uri!r}, start_s={self.start_s})"


SCALAR_FIELDS: Final = EmbeddingRow._fields[:-1]
"""All columns but the embedding, in order."""


class FailureRow(NamedTuple):
    """Why a recording, or one clip of it, could not be embedded."""

    recording_uri: str
    recording_version: str
    clip_id: str | None
    """None where the failure is the recording's, not one clip's."""
    channel: str | None
    start_s: float | None
    """Where in the recording it happened, as far as that is known."""
    stage: str
    """`list`, `fetch`, `decode` or `endpoint`."""
    code: str
    message: str
    retryable: bool
    attempts: int
    """Requests that were sent for the clip; 0 for what never got so far."""


class Census(NamedTuple):
    """What became known about a segment while it was decoded."""

    recording_uri: str
    recording_version: str
    size_bytes: int
    clips: int
    """All clips: those sent, skipped and failed."""
    skipped_too_short: int
    skipped_too_quiet: int
    duration_s: float | None
    source_rate_hz: int | None
    source_channels: int | None
    container: str | None
    codec: str | None
    decoder: str | None
    gaps: int
    gap_s: float


class RecordingRow(NamedTuple):
    """One recording's row in the recordings table."""

    recording_uri: str
    recording_version: str
    size_bytes: int
    duration_s: float | None
    container: str | None
    codec: str | None
    decoder: str | None
    source_rate_hz: int | None
    source_channels: int | None
    gaps: int
    """Gaps between the container's frames that were filled with zeros."""
    gap_s: float
    clips: int
    embedded: int
    failed: int
    skipped_too_short: int
    skipped_too_quiet: int
    status: Status
    failure_codes: list[str]


class ClipReference(NamedTuple):
    """Where an embedded clip's row stands in a checkpoint file."""

    clip_id: str
    offset: int


class Receipt(NamedTuple):
    """What a checkpoint file holds of one segment: small enough to be shuffled where rows are not."""

    segment_id: str
    file: str
    clips: tuple[ClipReference, ...]
    failures: tuple[FailureRow, ...]
    census: Census | None
