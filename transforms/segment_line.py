"""Segments in a line: those ahead are fetched, and the first of them decoded, while the one in front is worked on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from audio.decoders import Decoding
from audio.errors import AudioError
from audio.fetch_ahead import Source, held_bytes
from audio.recording import Recording, Segment

T = TypeVar("T")

AHEAD_SEGMENTS: Final = 32
"""Segments that are fetched ahead."""
AHEAD_BYTES: Final = 32 << 20
"""And how much of them may be held in memory."""


class Fetcher(Protocol):
    """What fetches recordings: audio.fetch_ahead.FetchAhead, or a fake of it."""

    def begin(self, recording: Recording) -> Future[Source]:
        """Begins to fetch a recording."""


class Decoder(Protocol):
    """What decodes segments: audio.decoders.Decoders, or a fake of it."""

    @property
    def processes(self) -> int:
        """How many segments are decoded at a time, next to this process; 0 if it is done in this one."""

    def decode(self, segment: Segment, source: Source) -> Decoding:
        """Begins to decode a segment, or has it wait for those before it; returns at once."""


@dataclass(slots=True)
class _Place(Generic[T]):
    ticket: T
    segment: Segment
    source: Future[Source]
    decoding: Decoding | None = None


@dataclass(frozen=True, slots=True)
class Opened(Generic[T]):
    """A segment whose turn it is."""

    ticket: T
    source: Source
    decoding: Decoding | None
    """Its clips; None where the recording could not be fetched."""
    error: AudioError | None
    """Why it could not."""


class SegmentLine(Generic[T]):
    """Segments in the order in which they were added, each with a ticket; for one thread."""

    def __init__(self, fetcher: Fetcher, decoder: Decoder) -> None:
        self._fetcher = fetcher
        self._decoder = decoder
        self._places: deque[_Place[T]] = deque()
        self._size_bytes = 0
        """Of the recordings in the line."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_full(self) -> bool:
        """Whether the first ones should be worked on before more are added."""
        return len(self._places) > AHEAD_SEGMENTS or (len(self._places) > 1 and self._size_bytes > AHEAD_BYTES)

    def add(self, ticket: T, segment: Segment) -> None:
        """Puts a segment at the end of the line; it begins to be fetched."""
        self._size_bytes += held_bytes(segment.recording)
        self._places.append(_Place(ticket, segment, self._fetcher.begin(segment.recording)))
        self._decode_ahead()

    def take(self) -> Opened[T]:
        """Takes the first segment, once it is fetched; its decoding and source are to be closed by the caller."""
        place = self._pop()
        try:
            source = place.source.result()
        except AudioError as error:
            self._decode_ahead()
            return Opened(place.ticket, None, None, error)
        decoding = place.decoding if place.decoding is not None else self._decoder.decode(place.segment, source)
        self._decode_ahead()
        return Opened(place.ticket, source, decoding, None)

    def close(self) -> None:
        """Gives up all that is in the line."""
        while self._places:
            place = self._pop()
            place.source.cancel()
            if place.decoding is not None:
                place.decoding.close()
            place.source.add_done_callback(_close_source)

    def _pop(self) -> _Place[T]:
        place = self._places.popleft()
        self._size_bytes -= held_bytes(place.segment.recording)
        return place

    def _decode_ahead(self) -> None:
        for place, _ in zip(self._places, range(self._decoder.processes), strict=False):
            if place.decoding is None:
                if not place.source.done() or place.source.exception() is not None:
                    return  # those behind it would get the child processes that it will need
                place.decoding = self._decoder.decode(place.segment, place.source.result())


def close_source(source: Source) -> None:
    """Closes what is not just bytes."""
    if source is not None and not isinstance(source, bytes):
        source.close()


def _close_source(fetched: Future[Source]) -> None:
    if not fetched.cancelled() and fetched.exception() is None:
        close_source(fetched.result())
