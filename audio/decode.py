"""Which decoder reads a recording, chosen by its content: libsndfile first, FFmpeg for what that cannot read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from audio.announced import Announced, read_announced
from audio.errors import (
    AudioError,
    Damaged,
    DamagedParts,
    EmptyFile,
    EndedEarly,
    FormatNotAllowed,
    NoAudio,
    NotAudio,
    StorageError,
    Truncated,
)
from audio.ffmpeg import FfmpegSource
from audio.libsndfile import Layout, LibsndfileSource, seekable_layout
from audio.mp3 import FirstFrame, find_first_frame
from audio.ogg import read_pages
from audio.reader import Reader
from audio.signature import HEAD_BYTES, Signature, identify
from audio.source import Block, CannotDecode, Gaps, NoSamples, check_layout
from audio.stretches import first_needed_s

_Opener = Callable[[Reader], LibsndfileSource | FfmpegSource]

_READ_AHEAD_BYTES = 32_768
"""A decoder that has come to the end of the sound has read all but this much of a FLAC file, tags at its end included."""
_COPY_AGAIN = "copy it again from where it was recorded"


def open_source(reader: Reader, start_s: int = 0, stop_s: int | None = None) -> OpenedSource:
    """Return as blocks of samples what of the recording is needed for its part from `start_s` to `stop_s`, and what follows.

    Raises AudioError where not one sample can be had.
    """
    if reader.size_bytes == 0:
        raise EmptyFile("the file is empty (0 bytes); copy or record it again")
    head = reader.peek_at(0, HEAD_BYTES)
    signature = identify(head)
    if signature.is_foreign:
        raise NotAudio(f"this is not a sound recording; it looks like {signature.title}")
    announced, openers = _plan(signature.kind, reader, head)
    if announced.layout is not None:
        check_layout(*announced.layout)
    source = _open_first(openers, reader, signature, announced)
    return OpenedSource(source, reader, announced, start_s, stop_s)


def exact_layout(reader: Reader) -> Layout | None:
    """Return the layout of a recording of which any part can be decoded by itself, to the very samples of the whole.

    None for those that must be decoded whole: of kinds that cannot be sought, of unknown length, not whole. Raises
    AudioError or CannotDecode where that cannot be told.
    """
    head = reader.peek_at(0, HEAD_BYTES)
    kind = identify(head).kind
    if kind not in ("wav", "flac"):
        return None
    announced = read_announced(kind, reader, head)
    if kind == "wav" and not announced.is_whole:
        return None
    layout = seekable_layout(reader)
    if layout is None or (kind == "flac" and layout.frames != announced.frames):
        return None
    check_layout(layout.rate_hz, layout.channels)
    return layout


def _plan(kind: str, reader: Reader, head: bytes) -> tuple[Announced, list[_Opener]]:
    """Return what the file announces, and the decoders to try, in order."""
    if kind == "ogg":
        pages = read_pages(reader, head)
        openers: list[_Opener] = [LibsndfileSource, FfmpegSource]
        if pages.is_opus or pages.several_streams:
            openers.reverse()
        return Announced(cut=pages.cut), openers
    if kind in ("mp3", "zeros", ""):
        first = find_first_frame(reader, head)
        if first is not None:
            return _plan_mp3(reader, first)
    announced = read_announced(kind, reader, head)
    return announced, [LibsndfileSource, partial(FfmpegSource, end_is_known=announced.is_whole)]


def _plan_mp3(reader: Reader, first: FirstFrame) -> tuple[Announced, list[_Opener]]:
    # From a file object, libsndfile takes an MP3 only if it begins with a frame or a tag of modest size.
    from_first = reader.starting_at(first.offset)
    openers: list[_Opener] = [
        LibsndfileSource,
        lambda _: LibsndfileSource(from_first),
        FfmpegSource,
        lambda _: FfmpegSource(from_first),
    ]
    if not first.is_counted:
        # libsndfile stops at the length that it guesses from the first frames' bit rate: of a file whose bit rate
        # varies it can leave most out.
        openers = openers[2:] + openers[:2]
    return Announced(frames=first.min_frames), openers


def _open_first(
    openers: list[_Opener], reader: Reader, signature: Signature, announced: Announced
) -> LibsndfileSource | FfmpegSource:
    """Return the first decoder that gives samples, or raise what is most telling of why none does."""
    failures: list[AudioError | CannotDecode] = []
    for opener in openers:
        try:
            return opener(reader)
        except StorageError:
            raise
        except (AudioError, CannotDecode) as error:
            failures.append(error)
    if any(isinstance(failure, NoSamples) for failure in failures):
        because = f": {announced.cut}" if announced.cut else ""
        raise NoAudio(f"the file has a sound file's header, but not one sample can be had from it{because}")
    if announced.cut:
        raise Truncated(f"the file is not whole: {announced.cut}; {_COPY_AGAIN}")
    for failure in failures:
        if isinstance(failure, AudioError) and not (signature.is_sound and isinstance(failure, FormatNotAllowed)):
            raise failure
    if signature.is_sound:
        raise Damaged(
            f"the file begins as {signature.title} does, but its header is damaged or not whole: no decoder can read "
            f"it; {_COPY_AGAIN}"
        )
    if signature.title:
        raise NotAudio(f"this is not a sound recording; it looks like {signature.title}")
    raise NotAudio(
        f"this is not a sound file of a kind that can be read (it begins with none of their signatures, size "
        f"{reader.size_bytes} bytes); headerless samples must be converted to WAV first"
    )


def damage_at(seconds: float) -> DamagedParts:
    """Return the error of a recording of which decoding went on after damage."""
    return DamagedParts(f"the file is damaged at about {seconds:.3f} s; what could be decoded after that was", seconds)


class OpenedSource:
    """An AudioSource that holds its decoder to what the file announces, and changes it where one gives up."""

    def __init__(
        self,
        source: LibsndfileSource | FfmpegSource,
        reader: Reader,
        announced: Announced,
        start_s: int,
        stop_s: int | None,
    ) -> None:
        self._source = source
        self._reader = reader
        self._announced = announced
        self._frames = 0
        self._damaged_at_s: float | None = None
        self.rate_hz = source.rate_hz
        self.channels = source.channels
        self.container = source.container
        self.codec = source.codec
        self._part = start_s * self.rate_hz, math.inf if stop_s is None else stop_s * self.rate_hz
        self.first_frame = first_needed_s(start_s) * self.rate_hz
        """The frame with which `blocks` begins."""
        source.count_gaps_in(*self._part)
        if self.first_frame:
            try:
                self._seek()
            except BaseException:
                self.close()
                raise

    @property
    def decoder(self) -> str:
        return self._source.decoder

    @property
    def gaps(self) -> Gaps:
        return self._source.gaps

    @property
    def position(self) -> int:
        """Frames from the recording's start to the end of what was decoded."""
        return self._frames

    @property
    def damaged_at_s(self) -> float | None:
        """Where decoding went on after damage: seconds from the recording's start. Known as soon as it is met."""
        return self._source.damaged_at_s if self._damaged_at_s is None else self._damaged_at_s

    def close(self) -> None:
        self._source.close()

    def blocks(self) -> Iterator[Block]:
        try:
            for block in self._decoded():
                unused = self.first_frame - self._frames
                self._frames += len(block)
                if unused <= 0:
                    yield block
                elif unused < len(block):  # the file could not be entered there, and is decoded from its start
                    yield block[unused:]
        except (EndedEarly, DamagedParts) as error:
            raise (self._cut() or error) from None
        if self._announced.cut or self._frames < self._announced.frames:
            raise self._cut() or Truncated(
                f"the file ends early: its header announces {self._announced.frames / self.rate_hz:.3f} s of sound, and "
                f"{self._frames / self.rate_hz:.3f} s are there; {_COPY_AGAIN}"
            )

    def _seek(self) -> None:
        """Enter the file at `first_frame`, or else leave the decoder at its start."""
        if not isinstance(self._source, LibsndfileSource) or not self._source.is_seekable:
            return
        try:
            self._source.start_at(self.first_frame)
        except CannotDecode:
            self._source.close()
            self._source = LibsndfileSource(self._reader)
        else:
            self._frames = self.first_frame

    def _cut(self) -> Truncated | None:
        cut = self._announced.cut
        return Truncated(f"the file ends early: {cut}; {_COPY_AGAIN}") if cut else None

    def _decoded(self) -> Iterator[Block]:
        try:
            yield from self._source.blocks()
        except CannotDecode:
            damaged_at_s = self._frames / self.rate_hz
        else:
            left_bytes = self._reader.size_bytes - self._reader.tell()
            if self.codec == "flac" and self.decoder == "libsndfile" and left_bytes > _READ_AHEAD_BYTES:
                # The header says less than there is, and libsndfile believes it.
                yield from self._go_on()
            return
        damage = damage_at(damaged_at_s)
        try:
            for block in self._go_on():
                self._damaged_at_s = damaged_at_s
                yield block
        except DamagedParts as error:
            # FFmpeg begins at the start of the file: what it tells may lie before `first_frame`.
            raise (damage if self.first_frame else error) from None
        raise damage

    def _go_on(self) -> Iterator[Block]:
        """Go on with FFmpeg where libsndfile stopped, if the samples before are the very same: those of FLAC are."""
        given_up = Damaged(
            f"the file cannot be decoded beyond {self._frames / self.rate_hz:.3f} s: its data is damaged there"
        )
        if self.codec != "flac":
            raise given_up
        try:
            other = FfmpegSource(self._reader)
        except (AudioError, CannotDecode):
            raise given_up from None
        self._source.close()
        self._source = other
        if (other.rate_hz, other.channels) != (self.rate_hz, self.channels):
            raise given_up
        other.count_gaps_in(*self._part)
        known = self._frames
        for block in other.blocks():
            new = block[known:]
            known -= len(block) - len(new)
            if len(new):
                yield new
