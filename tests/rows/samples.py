"""Rows to test with."""

import numpy as np

from rows.checkpoint import FileBuilder, Row
from rows.model import Census, EmbeddingRow, FailureRow, Receipt, WantedClip


def embedding_row(
    clip_id: str = "c" * 32, uri: str = "/data/cough.wav", seed: int = 0, **changes: object
) -> EmbeddingRow:
    row = EmbeddingRow(
        clip_id=clip_id,
        recording_uri=uri,
        recording_version="123-456",
        channel="mean",
        clip_index=3,
        start_s=6.0,
        end_s=7.5,
        padded_s=0.5,
        rms_dbfs=-23.25,
        peak_dbfs=-3.0,
        source_rate_hz=44100,
        source_channels=2,
        codec="pcm_s16le",
        model_id="stand-in",
        endpoint="projects/p/locations/l/endpoints/1@7",
        fingerprint="f" * 16,
        embedding=np.random.default_rng(seed).standard_normal(512).astype(np.float32),
    )
    return row._replace(**changes)


def failure_row(clip_id: str | None = None, **changes: object) -> FailureRow:
    row = FailureRow("/data/cough.wav", "123-456", clip_id, None, 1.5, "decode", "truncated", "it ends early", False, 0)
    return row._replace(**changes)


def census(
    clips: tuple[str, ...] = ("c" * 32,),
    too_short: int = 0,
    too_quiet: int = 0,
    uri: str = "/data/cough.wav",
    **changes: object,
) -> Census:
    """The census of a segment of which one take wants all clips, in this order."""
    wanted = tuple(WantedClip(clip_id, ((0, index),)) for index, clip_id in enumerate(clips))
    row = Census(
        uri, "123-456", 100, wanted, (), too_short, too_quiet, 2.0, 44100, 1, "wav", "pcm_s16le", "libsndfile", 0, 0.0
    )
    return row._replace(**changes)


def receipts(segment_id: str, *rows: Row, run_id: str = "run1", file: str = "run1/p/f.rows") -> list[Receipt]:
    """The receipts for rows of a segment in a file of their own."""
    builder = FileBuilder(run_id)
    for row in rows:
        builder.add(segment_id, row)
    return builder.receipts(file)
