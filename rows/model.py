"""The rows of the three tables, and the receipts that stand for them until they are written."""

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

EMBEDDING_FLOATS = 512
"""Length of a HeAR embedding (API documentation)."""

Status = Literal["embedded", "partial", "skipped", "failed", "unfinished"]
"""`unfinished`: the run's budget of requests was used up before all of it was done; the next run goes on."""

Metadata = tuple[tuple[str, str], ...]
"""The columns of a manifest row that are the user's own: names and values, in the order of the file."""


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
    manifest_row: int | None = None
    """The manifest's row that cannot be used, counted from 1; None where the failure is the recording's or a clip's."""

    @classmethod
    def at_no_place(
        cls,
        uri: str,
        version: str,
        stage: str,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        manifest_row: int | None = None,
    ) -> "FailureRow":
        """The failure of a recording, or of a manifest's row about it, at no place in it and with no request sent."""
        return cls(uri, version, None, None, None, stage, code, message, retryable, 0, manifest_row)


class WantedClip(NamedTuple):
    """A clip that is to be embedded, and what wants it."""

    clip_id: str
    wanted: tuple[tuple[int, int], ...]
    """(number of the take in its segment, number of the clip in the take and channel), for each take that it is of."""


class Census(NamedTuple):
    """What became known about a segment when it was decoded to its end."""

    recording_uri: str
    recording_version: str
    size_bytes: int
    clips: tuple[WantedClip, ...]
    """All clips but those that were skipped: each of them has an embedding or a failure once the segment is done."""
    failed_takes: tuple[tuple[int, str, str], ...]
    """(number of the take in its segment, code, message) of takes that the recording cannot give."""
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
    """With an outcome: embedded, failed or skipped."""
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
    start_s: float
    """Of the clip's audio."""


class Receipt(NamedTuple):
    """What a checkpoint file holds of one segment: small enough to be shuffled where rows are not."""

    recording_uri: str
    recording_version: str
    segment_id: str
    run_id: str
    """The run that wrote the rows: of two that disagree, the later one's count."""
    file: str
    """Its path below the checkpoint's folder; empty where no file stands behind the receipt."""
    clips: tuple[ClipReference, ...]
    failures: tuple[FailureRow, ...]
    census: Census | None


class TableRow(NamedTuple):
    """A row of the embeddings' table: a clip, for one row of the manifest."""

    clip: EmbeddingRow
    manifest_row: int | None
    """From 1; None without a manifest."""
    metadata: Metadata

    def __repr__(self) -> str:
        return f"TableRow(clip={self.clip!r}, manifest_row={self.manifest_row})"
