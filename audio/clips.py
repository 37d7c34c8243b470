"""A recording in, its clips out: 32000 samples at 16 kHz each, while it is decoded block by block."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from audio.decode import open_source
from audio.errors import AudioError, DamagedParts, DecoderError, NoAudio
from audio.levels import peak_dbfs, rms_dbfs
from audio.mix import MEAN, channel_names, channel_samples
from audio.reader import Reader
from audio.resample import SAMPLE_RATE_HZ, Resampler
from audio.source import AudioSource, Block
from audio.window import CLIP_SAMPLES, Piece, Tail, Window

__all__ = [
    "CLIP_SAMPLES",
    "SAMPLE_RATE_HZ",
    "AudioInfo",
    "Clip",
    "ClipSettings",
    "ClipStream",
    "FailedClip",
    "SkippedClip",
    "open_clips",
]

_CLIP_S = CLIP_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ClipSettings:
    """What decides which clips a recording gives. Wrong values raise ValueError with a message for the user."""

    channel: str = MEAN
    """`mean` of all channels, `each` channel by itself, or the number of one, from 0."""
    hop_s: float = 2.0
    """Seconds from one clip's start to the next one's: a positive whole number of 16 kHz samples."""
    tail: Tail = "pad"
    """What becomes of a last piece that is shorter than a clip: `pad` with zeros, `shift` back so that it ends with the
    recording (one shorter than a clip is padded), or `drop`."""
    min_audio_s: float = 0.5
    """A padded last clip with less audio than this is skipped, unless it is the channel's only one. 0 to 2 seconds."""
    min_rms_dbfs: float | None = None
    """Clips whose audio is quieter than this are skipped: dB of full scale, not above 0; None keeps all."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"mean|each|0|[1-9][0-9]{0,3}", self.channel):
            raise ValueError(f"channel is {self.channel!r}; expected mean, each, or a channel's number from 0")
        samples = self.hop_s * SAMPLE_RATE_HZ
        if not (math.isfinite(samples) and round(samples) > 0 and abs(samples - round(samples)) < 1e-6):
            raise ValueError(
                f"hop_s is {self.hop_s!r}; expected a positive number of seconds that is a whole number of "
                f"samples at {SAMPLE_RATE_HZ} Hz (a multiple of {1 / SAMPLE_RATE_HZ})"
            )
        if self.tail not in get_args(Tail):
            raise ValueError(f"tail is {self.tail!r}; expected one of {', '.join(get_args(Tail))}")
        if not 0 <= self.min_audio_s <= _CLIP_S:
            raise ValueError(f"min_audio_s is {self.min_audio_s!r}; expected 0 to {_CLIP_S} seconds, a clip's length")
        if self.min_rms_dbfs is not None and not (math.isfinite(self.min_rms_dbfs) and self.min_rms_dbfs <= 0):
            raise ValueError(
                f"min_rms_dbfs is {self.min_rms_dbfs!r}; expected dB of full scale, 0 or below, for example -60"
            )

    @property
    def hop_samples(self) -> int:
        """The hop in 16 kHz samples."""
        return round(self.hop_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Two seconds of one channel of a recording."""

    channel: str
    """`mean`, or the channel's number from 0."""
    clip_index: int
    """The how manieth clip of its channel it is, from 0; skipped and failed ones are counted."""
    start_sample: int
    """Its first sample: 16 kHz samples from the recording's start."""
    audio_samples: int
    """How many of its samples are the recording's; the rest are padding."""
    samples: npt.NDArray[np.float32] = field(repr=False)
    """float32 of shape (32000,), full scale 1.0, C-contiguous, in memory of its own."""
    rms_dbfs: float
    """Root mean square of the audio, padding left out, in dB of full scale; -inf for digital silence."""
    peak_dbfs: float
    """Largest magnitude, likewise."""

    @property
    def start_s(self) -> float:
        """Seconds from the recording's start to the clip's."""
        return self.start_sample / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """Seconds from the recording's start to the end of the clip's audio."""
        return (self.start_sample + self.audio_samples) / SAMPLE_RATE_HZ

    @property
    def padded_s(self) -> float:
        """Seconds of zeros after the audio."""
        return (CLIP_SAMPLES - self.audio_samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class SkippedClip:
    """A clip that the settings leave out."""

    channel: str
    clip_index: int
    start_sample: int
    reason: str
    """`too_short` or `too_quiet`."""


@dataclass(frozen=True)
class FailedClip:
    """A clip that cannot be sent."""

    channel: str
    clip_index: int
    start_sample: int
    code: str
    """`non_finite_samples`."""
    message: str


ClipResult: TypeAlias = Clip | SkippedClip | FailedClip


@dataclass(frozen=True)
class AudioInfo:
    """What a recording turned out to be."""

    duration_s: float | None
    """Of what was decoded, gaps included; None if nothing was."""
    source_rate_hz: int
    source_channels: int
    container: str
    codec: str
    """FFmpeg's name, e.g. `pcm_s16le`, whichever decoder read it."""
    decoder: str
    """`libsndfile` or `ffmpeg`."""
    gap_s: float
    """Seconds in which the recording has no samples of its own: zeros stand in their place."""
    gaps: int
    """How many such stretches there are."""


class ClipStream(Iterator[ClipResult]):
    """The clips of one recording, by time, then by channel, decoded as they are asked for.

    It never raises AudioError: the iteration ends, and `error` says why. A recording that ends early gives the clips
    that are whole.
    """

    info: AudioInfo | None
    """What the recording is; None until the iteration has ended, and if no decoder could open it."""
    error: AudioError | None
    """What is wrong with the recording, once the iteration has ended; clips may have come before it."""
    error_s: float | None
    """Where: seconds from the recording's start to where it ended early, or to its first damaged part."""

    def __init__(self, file: BinaryIO, settings: ClipSettings) -> None:
        self.info = None
        self.error = None
        self.error_s = None
        self._file = file
        self._settings = settings
        self._source: AudioSource | None = None
        self._frames = 0
        self._results = self._run()

    @property
    def source(self) -> AudioSource:
        """The recording that is being decoded, with its rate, channels and codec; not before the first clip."""
        if self._source is None:
            raise RuntimeError("nothing has been decoded yet")
        return self._source

    def __next__(self) -> ClipResult:
        return next(self._results)

    def close(self) -> None:
        """End the iteration and free the decoder. The file stays open."""
        self._results.close()

    def _run(self) -> Generator[ClipResult, None, None]:
        try:
            yield from self._decode()
        except AudioError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - decoders raise what they like; none of it may end a run
            self.error = _unforeseen(error)
        finally:
            if self._source is not None:
                self._describe(self._source)
                self._source.close()

    def _decode(self) -> Iterator[ClipResult]:
        self._source = source = open_source(Reader(self._file))
        names = channel_names(self._settings.channel, source.channels)
        tracks = [_Track(name, source.rate_hz, self._settings) for name in names]
        early: AudioError | None = None
        try:
            for block in source.blocks():
                self._frames += len(block)
                yield from _by_time([track.push(block) for track in tracks])
        except DamagedParts as error:
            self.error = error
        except AudioError as error:
            early = error
        except Exception as error:  # noqa: BLE001 - likewise
            early = _unforeseen(error)
        yield from _by_time([track.finish(ended_early=early is not None) for track in tracks])
        if early is not None:
            raise early
        if not any(track.samples for track in tracks) and self.error is None:
            raise NoAudio(f"the recording has {self._frames} samples, not enough for one at {SAMPLE_RATE_HZ} Hz")

    def _describe(self, source: AudioSource) -> None:
        rate_hz = source.rate_hz
        self.info = AudioInfo(
            duration_s=self._frames / rate_hz if self._frames else None,
            source_rate_hz=rate_hz,
            source_channels=source.channels,
            container=source.container,
            codec=source.codec,
            decoder=source.decoder,
            gap_s=source.gaps.frames / rate_hz,
            gaps=source.gaps.stretches,
        )
        if isinstance(self.error, DamagedParts):
            self.error_s = self.error.first_s
        elif self.error is not None and self._frames:
            self.error_s = self._frames / rate_hz


def _unforeseen(error: Exception) -> DecoderError:
    return DecoderError(
        f"the decoder failed in an unforeseen way ({type(error).__name__}); convert the recording to WAV"
    )


def open_clips(file: BinaryIO, settings: ClipSettings) -> ClipStream:
    """Return the clips of the recording in `file`, a seekable binary file that the caller closes afterwards."""
    return ClipStream(file, settings)


class _Track:
    """One channel on its way from blocks to clips."""

    def __init__(self, channel: str, rate_hz: int, settings: ClipSettings) -> None:
        self._channel = channel
        self._settings = settings
        self._resampler = Resampler(rate_hz)
        self._window = Window(settings.hop_samples, settings.tail, round(settings.min_audio_s * SAMPLE_RATE_HZ))
        self._may_be_bad = False

    @property
    def samples(self) -> int:
        return self._window.samples

    def push(self, block: Block) -> Iterator[ClipResult]:
        self._may_be_bad = block.dtype != np.int16
        resampled = self._resampler.push(channel_samples(block, self._channel), may_be_bad=self._may_be_bad)
        for piece in self._window.push(resampled, self._resampler.settled):
            yield self._judge(piece)

    def finish(self, *, ended_early: bool) -> Iterator[ClipResult]:
        for piece in self._window.push(self._resampler.finish(may_be_bad=self._may_be_bad), self._resampler.settled):
            yield self._judge(piece)
        for piece in self._window.finish(ended_early=ended_early):
            yield self._judge(piece)

    def _judge(self, piece: Piece) -> ClipResult:
        place = (self._channel, piece.clip_index, piece.start)
        if piece.samples is None:
            return SkippedClip(*place, reason="too_short")
        if self._resampler.touched(piece.start, piece.start + piece.audio):
            return FailedClip(
                *place,
                code="non_finite_samples",
                message="the recording has samples here that are not numbers (NaN), infinite, or too large; "
                "its other clips are not affected",
            )
        audio = piece.samples[: piece.audio]
        rms = rms_dbfs(audio)
        if self._settings.min_rms_dbfs is not None and rms < self._settings.min_rms_dbfs:
            return SkippedClip(*place, reason="too_quiet")
        return Clip(*place, piece.audio, piece.samples, rms, peak_dbfs(audio))


def _by_time(tracks: list[Iterator[ClipResult]]) -> Iterator[ClipResult]:
    """Take the tracks' clips in turn: all tracks have the same number of samples, so their clips begin together."""
    if len(tracks) == 1:
        yield from tracks[0]
        return
    for results in zip(*tracks, strict=True):
        yield from results
