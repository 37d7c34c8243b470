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


class Take(NamedTuple):
    """What is wanted of a recording: all of it, or one annotated event."""

    channel: str
    """`mean`, `each`, or a channel's number from 0."""
    start: int = 0
    """The event's first sample: 16 kHz samples from the recording's start."""
    stop: int | None = None
    """The event's end, likewise; None for the whole recording."""


def take_order(take: Take) -> tuple[str, int, int]:
    """Return what takes are sorted by: the whole recording comes before events of its channel."""
    return take.channel, take.start, -1 if take.stop is None else take.stop


class Segment(NamedTuple):
    """The part of a recording that is decoded in one go, and what is wanted of it."""

    recording: Recording
    takes: tuple[Take, ...] = ()
    """Distinct, sorted by `take_order`."""
    start_s: int = 0
    """Where the part begins: whole seconds from the recording's start."""
    stop_s: int | None = None
    """Where it ends; None for the recording's end."""
