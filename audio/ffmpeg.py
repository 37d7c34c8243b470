"""Decoding with FFmpeg (PyAV): what phones and browsers write, and what libsndfile cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from audio.errors import (
    AudioError,
    Damaged,
    DamagedParts,
    FormatNotAllowed,
    NoAudioStream,
    Truncated,
    UnsupportedFormat,
)
from audio.frames import FrameBlocks, can_read
from audio.reader import Reader
from audio.source import Block, CannotDecode, Gaps, NoSamples, check_layout
from audio.timeline import Timeline

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

ALLOWED_FORMATS = (
    "3gp,aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,epaf,flac,flv,iff,ircam,loas,matroska,mov,mp3,mp4,mpc,mpc8,mpeg,"
    "mpegts,nistsphere,ogg,oma,qcp,sox,tak,tta,voc,w64,wav,webm,wv,wve"
)
"""Containers that hold their own samples. Left out: playlists, scripts and session descriptions (concat, hls, dash,
sdp, ...), which open other files and sockets; images and subtitles; and formats without a signature."""

_OPTIONS = {"format_whitelist": ALLOWED_FORMATS, "protocol_whitelist": "none", "enable_drefs": "0"}
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}
_AMR_FRAME_TYPES = {"amr_nb": 8, "amr_wb": 9}
"""Packets of this frame type and above carry no speech: comfort noise, or nothing."""
_AMR_SILENCE_BYTES = 7
_MAX_BAD_RUN = 1000


class FfmpegSource:
    """An AudioSource over FFmpeg. Opening it decodes the first frame, so that what it cannot read shows at once."""

    decoder = "ffmpeg"

    def __init__(self, reader: Reader, *, end_is_known: bool = False) -> None:
        """Open the file; `end_is_known` says that it ends where its own header says.

        Raises CannotDecode, NoSamples, or AudioError where it is clear what is wrong.
        """
        self._reader = reader
        self._end_is_known = end_is_known
        self._bad_packets = 0
        self._bad_run = 0
        self._problem: AudioError | None = None
        # Timestamps, in units of the container's time base.
        self._first_bad: int | None = None
        self._silent_until: int | None = None
        self._starts_at: int | None = None
        self._last_packet_end: int | None = None
        self._container = _open(reader)
        try:
            self._stream = _audio_stream(self._container)
            self.container = _CONTAINERS.get(self._container.format.name, self._container.format.name)
            self.codec: str = self._stream.codec_context.codec.canonical_name
            self._first_silent_type = _AMR_FRAME_TYPES.get(self.codec)
            self._time_base = self._stream.time_base or Fraction(1, 1_000_000)
            self._frames = self._decode()
            first = next(self._frames, None)
            reader.check()
            if first is None:
                raise NoSamples if self._bad_packets == 0 else self._nothing_decoded()
            self._first = first
            self.rate_hz: int = first.sample_rate
            self.channels: int = first.layout.nb_channels
            check_layout(self.rate_hz, self.channels)
            if not can_read(first):
                raise UnsupportedFormat(f"samples of FFmpeg's format {first.format.name} cannot be read")
            self._timeline = Timeline(self.rate_hz)
        except BaseException:
            self.close()
            raise

    @property
    def gaps(self) -> Gaps:
        return self._timeline.gaps

    def count_gaps_in(self, first: int, stop: float) -> None:
        """Let `gaps` be those that begin in frames [first, stop) only; call it before `blocks`."""
        self._timeline.count_gaps_in(first, stop)

    @property
    def damaged_at_s(self) -> float | None:
        """Seconds from the recording's start to the first packet, of those met so far, that could not be decoded."""
        if not self._bad_packets:
            return None
        return max(0, (self._first_bad or 0) - (self._starts_at or 0)) * float(self._time_base)

    def close(self) -> None:
        self._container.close()

    def blocks(self) -> Iterator[Block]:
        """Yield float32, in a buffer that is used again.

        Raises Truncated, Damaged or DamagedParts after the last block.
        """
        blocks = FrameBlocks(self.channels)
        held = self._first
        try:
            for frame in self._frames:
                gap = self._place(held, held.samples)
                if gap or not blocks.has_room_for(held.samples):
                    yield from blocks.put_zeros(gap)
                    yield from blocks.put(held, held.samples)
                else:
                    blocks.add(held)
                self._check_same_layout(frame)
                held = frame
            samples = held.samples - self._padding(held)
            yield from blocks.put_zeros(self._place(held, samples))
            yield from blocks.put(held, samples)
            if self._silent_until is not None and self._problem is None:
                yield from blocks.put_zeros(self._timeline.place(self._frame_number(self._silent_until), 0))
        except Damaged as error:
            self._problem = error
        yield from blocks.flush()
        self._reader.check()
        if self._problem is not None:
            raise self._problem
        first_s = self.damaged_at_s
        if first_s is not None:
            raise DamagedParts(
                f"{self._bad_packets} packets could not be decoded, the first at {first_s:.3f} s: "
                "zeros stand in their place",
                first_s,
            )

    def _place(self, frame: AudioFrame, samples: int) -> int:
        """Return how many zeros come before a frame of which `samples` are used."""
        timestamp = frame.pts
        if self._starts_at is None:
            self._starts_at = timestamp
        if self._starts_at is not None:
            self._timeline.begin(self._frame_number(self._starts_at))
        return self._timeline.place(None if timestamp is None else self._frame_number(timestamp), samples)

    def _frame_number(self, timestamp: int) -> int:
        """Return a timestamp of the container, rounded to samples."""
        numerator, denominator = self._time_base.numerator * self.rate_hz, self._time_base.denominator
        return (2 * timestamp * numerator + denominator) // (2 * denominator)

    def _padding(self, last: AudioFrame) -> int:
        """Return how many samples at the end of the last frame the container says are the encoder's padding."""
        if self.container != "mp4" or last.pts is None or self._last_packet_end is None:
            return 0
        excess = last.samples - self._frame_number(self._last_packet_end) + self._frame_number(last.pts)
        return excess if 0 < excess < last.samples else 0

    def _check_same_layout(self, frame: AudioFrame) -> None:
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
            raise Damaged(
                f"at {self._timeline.position / self.rate_hz:.3f} s the recording changes from {self.channels} x "
                f"{self.rate_hz} Hz to {frame.layout.nb_channels} x {frame.sample_rate} Hz (channels x sample rate), as "
                "when files are joined end to end; split it into files"
            )

    def _decode(self) -> Iterator[AudioFrame]:
        """Yield the decoded frames; what goes wrong at the end is left in `_problem`."""
        try:
            for packet in self._container.demux(self._stream):
                yield from self._decode_packet(packet)
                if self._bad_run >= _MAX_BAD_RUN:
                    break
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - PyAV raises errors of many kinds
            self._problem = self._broken_off(error)
            yield from _frames_or_none(self._stream, None) or ()
        if self._bad_run >= _MAX_BAD_RUN or (self._bad_run and not self._end_is_known):
            self._problem = self._problem or self._broken_off(None)

    def _decode_packet(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        start = packet.pts
        end = None if start is None else start + (packet.duration or 0)
        if packet.size:
            self._last_packet_end = end
            if self._is_silence(packet):
                self._begin(start)
                self._silent_until = end
                return []
        frames = _frames_or_none(self._stream, packet)
        if frames is None:
            if self._bad_packets == 0:
                self._first_bad = start
            self._begin(start)
            self._bad_packets += 1
            self._bad_run += 1
            self._silent_until = end
            return []
        if frames and packet.size:
            self._bad_run = 0
            self._silent_until = None
        return frames

    def _begin(self, start: int | None) -> None:
        """Note that the recording's time has begun, though nothing is decoded yet; before 0 is encoder delay."""
        if self._starts_at is None and start is not None:
            self._starts_at = max(start, 0)

    def _is_silence(self, packet: Packet[AudioStream]) -> bool:
        """Return whether an AMR packet stands for silence: FFmpeg's decoder refuses those."""
        if self._first_silent_type is None or packet.size > _AMR_SILENCE_BYTES:
            return False
        return (bytes(packet)[0] >> 3) & 15 >= self._first_silent_type

    def _nothing_decoded(self) -> Damaged:
        return Damaged(
            f"not one of the {self._bad_packets} packets of sound in the file can be decoded ({self.codec}); "
            "convert the original recording to WAV or FLAC"
        )

    def _broken_off(self, error: Exception | None) -> AudioError:
        """Return what to say of a file of which the rest cannot be had, because of `error` or undecodable packets."""
        if type(error).__name__ == "PatchWelcomeError":
            return Damaged(
                "the recording goes on in another form (sample rate or codec), as when files are joined end to end; "
                "split it into files"
            )
        if self._reader.tell() >= self._reader.size_bytes and self._bad_run <= 1 and not self._end_is_known:
            return Truncated("the file ends in the middle of its data; copy it again from where it was recorded")
        return Damaged("the file cannot be decoded to its end: its data is damaged")


def _open(reader: Reader) -> InputContainer:
    try:
        import av
    except ImportError:
        raise UnsupportedFormat(
            "libsndfile cannot read this format, and PyAV is not installed: pip install 'hear-pipeline[formats]'"
        ) from None
    # FFmpeg's messages can hold a file's metadata.
    av.logging.set_level(None)
    reader.seek(0)
    try:
        return av.open(reader, "r", options=_OPTIONS, metadata_errors="ignore", io_open=_refuse_to_open)
    except av.error.ArgumentError:
        reader.check()
        raise FormatNotAllowed(
            "the file is in a format that is not opened: it is no sound recording, or a list of other files; "
            "convert it to WAV or FLAC if it does hold sound"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - PyAV raises errors of many kinds
        reader.check()
        raise CannotDecode(type(error).__name__) from None


def _refuse_to_open(*_: object) -> object:
    """Stand in for FFmpeg's way of opening other files and addresses that a recording names."""
    raise PermissionError("a recording may not open other files")


def _audio_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise NoAudioStream("the file holds no sound, only " + (_kinds(container) or "nothing that can be read"))
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise UnsupportedFormat("there is no decoder for the sound in this file; convert it to WAV or FLAC")
    stream.codec_context.thread_count = 1
    return stream


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams}))


def _frames_or_none(stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame] | None:
    """Return what a packet (None: what the decoder still holds) decodes to; None if it cannot be decoded."""
    try:
        return stream.codec_context.decode(packet)
    except EOFError:
        return []
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - PyAV raises errors of many kinds
        return None
