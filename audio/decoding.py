"""The clips of one segment, wherever they are decoded; and how they are decoded in this process."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from audio.clip import AudioInfo, ClipResult, FailedTake
from audio.clips import ClipSettings, ClipStream, open_clips
from audio.errors import AudioError
from audio.fetch import open_recording
from audio.recording import Segment


class SourceFormat(NamedTuple):
    """What a recording is, known as soon as the first of it is decoded; see AudioInfo."""

    rate_hz: int
    channels: int
    container: str
    codec: str
    decoder: str


class Decoding(Iterator[ClipResult]):
    """The clips of one segment, in the order in which ClipStream gives them, wherever they are decoded.

    It never raises AudioError: the iteration ends, and `error` says why. It does raise DecodersUnusable. Use it on one thread,
    and `close` it.
    """

    info: AudioInfo | None = None
    """What the recording is; None until the iteration has ended, and if no decoder could open it."""
    error: AudioError | None = None
    """What is wrong with the recording, once the iteration has ended; clips may have come before it."""
    error_s: float | None = None
    """Where: seconds from the recording's start to where it ended early, or to its first damaged part."""
    failed_takes: Sequence[FailedTake] = ()
    """The takes that have no clip, by number; complete once the iteration has ended."""
    _format: SourceFormat | None = None

    @property
    def source(self) -> SourceFormat:
        """The rate, channels and codec of the recording; not before the first clip."""
        if self._format is None:
            raise RuntimeError("nothing has been decoded yet")
        return self._format

    def close(self) -> None:
        """Abandon the rest, if there is any."""


class DecodingHere(Decoding):
    """A Decoding in this process."""

    def __init__(self, segment: Segment, source: bytes | BinaryIO | None, settings: ClipSettings) -> None:
        self._stream: ClipStream | None = None
        self._own_file: BinaryIO | None = None
        try:
            if source is None:
                source = self._own_file = open_recording(segment.recording)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            self._stream = open_clips(file, settings, segment.takes or None, segment.start_s, segment.stop_s)
        except AudioError as error:
            self.error = error

    def __next__(self) -> ClipResult:
        if self._stream is None:
            raise StopIteration
        try:
            result = next(self._stream)
        except BaseException:
            self.close()
            raise
        if self._format is None:
            source = self._stream.source
            self._format = SourceFormat(source.rate_hz, source.channels, source.container, source.codec, source.decoder)
        return result

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            self.info, self.error, self.error_s = stream.info, stream.error, stream.error_s
            self.failed_takes = stream.failed_takes
        if self._own_file is not None:
            self._own_file.close()
