"""What is embedded: recordings, and the segments in which they are decoded."""

from __future__ import annotations

from typing import NamedTuple


class Recording(NamedTuple):
    """One version of one audio file."""

    uri: str
    """A local path, or `gs://bucket/name`; never changed or normalised after it was listed."""
    version: str
    """The object's generation on Cloud Storage; size and modification time of a local file."""
    size_bytes: int


class Segment(NamedTuple):
    """The part of a recording that is decoded in one go: at present always the whole of it."""

    recording: Recording
