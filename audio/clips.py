"""A recording in, its clips out: 32000 samples at 16 kHz each, while it is decoded block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import BinaryIO, TypeAlias

from audio.clip import (
    AudioInfo,
    Clip,
    ClipResult,
    FailedClip,
    FailedTake,
    Limits,
    Samples,
    SkippedClip,
    Wanted,
    new_samples,
)
from audio.clip_settings import ClipSettings
from audio.decode import OpenedSource, damage_at, open_source
from audio.errors import (
    TOO_MUCH_MEMORY,
    AudioError,
    DamagedParts,
    DecoderError,
    DecoderMemory,
    NoAudio,
    NoSuchChannel,
    Truncated,
)
from audio.levels import peak_dbfs, rms_dbfs
from audio.mix import MEAN, channel_names
from audio.reader import Reader
from audio.recording import Take
from audio.schedule import Due, Schedule
from audio.source import AudioSource, block_frames
from audio.stretches import SAMPLE_RATE_HZ, STRETCH_S, first_needed_s
from audio.track import Track
from audio.window import CLIP_SAMPLES, NEVER

__all__ = [
    "CLIP_SAMPLES",
    "SAMPLE_RATE_HZ",
    "AudioInfo",
    "Clip",
    "ClipSettings",
    "ClipStream",
    "FailedClip",
    "FailedTake",
    "SkippedClip",
    "Wanted",
    "open_clips",
]


class ClipStream(Iterator[ClipResult]):
    """The clips of one recording or of a part of it, by start, then by channel, decoded as they are asked for.

    It never raises AudioError: the iteration ends, and `error` says why. A recording that ends early gives the clips
    that are whole.
    """

    info: AudioInfo | None
    """What the recording is; None until the iteration has ended, and if no decoder could open it."""
    error: AudioError | None
    """What is wrong with the recording, once the iteration has ended; clips may have come before it."""
    error_s: float | None
    """Where: seconds from the recording's start to where it ended early, or to its first damaged part."""
    failed_takes: list[FailedTake]
    """The takes that have no clip, by number; complete once the iteration has ended."""

    def __init__(
        self,
        file: BinaryIO,
        settings: ClipSettings,
        takes: Sequence[Take],
        start_s: int,
        stop_s: int | None,
        stretch_s: int,
    ) -> None:
        self.info = None
        self.error = None
        self.error_s = None
        self.failed_takes = []
        self._file = file
        self._settings = settings
        self._takes = takes
        self._start_s = start_s
        self._stop_s = stop_s
        self._stretch_s = stretch_s
        self._source: OpenedSource | None = None
        self._frames = 0
        self._end: int | None = None
        self._results = self._run()
        self.on_block: Callable[[], object] | None = None
        """Called after each block of samples: decoding goes on, whether or not a clip comes of it."""
        self.new_samples: Callable[[], Samples] = new_samples
        """Returns float32 of shape (32000,), C-contiguous, for the next clip. That of a clip that is skipped is not used."""

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
        self._source = source = open_source(Reader(self._file), self._start_s, self._stop_s)
        self._frames = source.first_frame
        tracks = self._open_tracks(source)
        schedule = self._open_schedule()
        enough = self._enough_frames(source.rate_hz)
        early: AudioError | None = None
        try:
            for block in source.blocks():
                self._frames += len(block)
                if self.on_block is not None:
                    self.on_block()
                needed_from = self._needed_from(schedule, tracks)
                for track, _ in tracks:
                    track.push(block, needed_from)
                while tracks and schedule.next_start + CLIP_SAMPLES <= tracks[0][0].settled:
                    yield from self._clips(schedule.take(), tracks)
                if schedule.next_start == NEVER:
                    if self._frames >= enough:
                        self._note_damage(source)
                        return
                    tracks = []  # the rest is decoded, but no clip needs it resampled
        except DamagedParts as error:
            self._note_damage(source, error)
        except AudioError as error:
            early = error
        except Exception as error:  # noqa: BLE001 - likewise
            early = _unforeseen(error)
        self._frames = source.position  # less than was thought where the recording ends before it was to be entered
        needed_from = self._needed_from(schedule, tracks)
        for track, _ in tracks:
            track.finish(needed_from)
        end = tracks[0][0].end if tracks else 0
        if early is None:
            self._check_any(source, end if tracks else self._frames)
            self._note_end(source, schedule, end)
        while tracks and schedule.next_start + CLIP_SAMPLES <= (end if early else NEVER):
            yield from self._clips(schedule.take(), tracks)
        if early is not None:
            raise early

    def _open_tracks(self, source: OpenedSource) -> _Tracks:
        """Return the channels that are wanted, in order, with the takes that want them; note takes of other channels."""
        takers: dict[str, set[int]] = {}
        for take, wanted in enumerate(self._takes):
            try:
                for name in channel_names(wanted.channel, source.channels):
                    takers.setdefault(name, set()).add(take)
            except NoSuchChannel as error:
                if len(self._takes) == 1 and wanted.stop is None:
                    raise
                self.failed_takes.append(FailedTake(take, error.code, error.message))
        names = sorted(takers, key=lambda name: -1 if name == MEAN else int(name))
        return [(self._track(name, source.rate_hz), takers[name]) for name in names]

    def _track(self, channel: str, rate_hz: int) -> Track:
        return Track(channel, rate_hz, self._start_s, self._stretch_s, self._settings.resampler)

    def _open_schedule(self) -> Schedule:
        failed = {failed.take for failed in self.failed_takes}
        takes = {take: wanted for take, wanted in enumerate(self._takes) if take not in failed}
        stop = None if self._stop_s is None else self._stop_s * SAMPLE_RATE_HZ
        return Schedule(takes, self._settings.rules, self._start_s * SAMPLE_RATE_HZ, stop)

    def _enough_frames(self, rate_hz: int) -> float:
        """Return up to which frame to decode even where no clip needs it: what tells the duration and shows damage."""
        is_all_wanted = any(take.stop is None for take in self._takes)
        if self._stop_s is None and (is_all_wanted or self._start_s == 0):
            return math.inf
        return self._stop_s * rate_hz if self._stop_s is not None and is_all_wanted else 0

    def _needed_from(self, schedule: Schedule, tracks: _Tracks) -> int:
        """Return from which sample on tracks must hold what they get."""
        needed_from = max(0, schedule.next_start)
        if self._settings.tail == "shift" and tracks:
            return min(needed_from, tracks[0][0].end - CLIP_SAMPLES)
        return needed_from

    def _note_damage(self, source: OpenedSource, error: DamagedParts | None = None) -> None:
        """Keep that parts are damaged, if they may be in what was asked for: others are somebody else's to tell."""
        if error is None and source.damaged_at_s is not None:
            error = damage_at(source.damaged_at_s)
        block_s = block_frames(source.channels) / source.rate_hz  # no decoder tells more exactly where it gave up
        earliest_s = first_needed_s(self._start_s) - block_s
        if error is not None and earliest_s <= error.first_s < (self._stop_s or math.inf):
            self.error = error

    def _check_any(self, source: OpenedSource, samples: int) -> None:
        """Raise an error if a recording that was decoded to its end has no sample where it was asked for some."""
        if self._start_s and self._frames <= self._start_s * source.rate_hz:
            raise Truncated(
                f"the file ends at {self._frames / source.rate_hz:.3f} s, before {self._start_s} s, where a part of it "
                "was to be decoded; copy it again from where it was recorded"
            )
        if not samples and self.error is None:
            raise NoAudio(f"the recording has {self._frames} samples, not enough for one at {SAMPLE_RATE_HZ} Hz")

    def _note_end(self, source: OpenedSource, schedule: Schedule, end: int) -> None:
        self._end = end
        for take in schedule.end_is(end):
            self.failed_takes.append(
                FailedTake(
                    take,
                    "event_beyond_end",
                    f"the event begins at {self._takes[take].start / SAMPLE_RATE_HZ:.3f} s, and the recording ends at "
                    f"{self._frames / source.rate_hz:.3f} s; correct the event's times",
                )
            )
        self.failed_takes.sort()

    def _clips(self, due: Due, tracks: _Tracks) -> Iterator[ClipResult]:
        start = due.start
        real_start = max(start, 0)
        real_stop = max(real_start, start + CLIP_SAMPLES if self._end is None else min(start + CLIP_SAMPLES, self._end))
        for track, takers in tracks:
            kinds: dict[tuple[int, int, bool], list[Wanted]] = {}
            for take, place in due.places:
                if take in takers:
                    audio = self._event_audio(take, real_start, real_stop)
                    kinds.setdefault((*audio, place.too_short), []).append(Wanted(take, place.number))
            for (audio_start, audio_stop, too_short), wanted in (
                sorted(kinds.items()) if len(kinds) > 1 else kinds.items()
            ):
                audio = (audio_start, audio_stop)
                limits = None if audio == (real_start, real_stop) else audio
                yield self._judge(track, (track.channel, start, limits, tuple(wanted)), audio, too_short)

    def _event_audio(self, take: int, real_start: int, real_stop: int) -> tuple[int, int]:
        """Return which part of the recording's audio a take's clip holds."""
        event = self._takes[take]
        if event.stop is None or self._settings.event_context == "audio":
            return real_start, real_stop
        start = max(real_start, event.start)
        return start, max(start, min(real_stop, event.stop))

    def _judge(self, track: Track, place: _Place, audio: tuple[int, int], too_short: bool) -> ClipResult:
        audio_start, audio_stop = audio
        if too_short or audio_start == audio_stop:
            return SkippedClip(*place, reason="too_short")
        if track.is_bad(audio_start, audio_stop):
            return FailedClip(
                *place,
                code="non_finite_samples",
                message="the recording has samples here that are not numbers (NaN), infinite, or too large; "
                "its other clips are not affected",
            )
        start = place[1]
        samples = self.new_samples()
        track.copy_clip(samples, start, audio_start, audio_stop)
        heard = samples[audio_start - start : audio_stop - start]
        rms = rms_dbfs(heard)
        if self._settings.min_rms_dbfs is not None and rms < self._settings.min_rms_dbfs:
            return SkippedClip(*place, reason="too_quiet")
        return Clip(*place, audio_start, audio_stop, samples, rms, peak_dbfs(heard))

    def _describe(self, source: OpenedSource) -> None:
        rate_hz = source.rate_hz
        stop = self._frames if self._stop_s is None else min(self._frames, self._stop_s * rate_hz)
        frames = stop - self._start_s * rate_hz
        self.info = AudioInfo(
            duration_s=frames / rate_hz if frames > 0 else None,
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


_Place: TypeAlias = tuple[str, int, Limits, tuple[Wanted, ...]]
"""What a clip and one that is left out have in common: channel, start_sample, limits, wanted."""

_Tracks: TypeAlias = list[tuple[Track, set[int]]]
"""Channels in order, each with the takes that want it."""


def _unforeseen(error: Exception) -> DecoderError | DecoderMemory:
    if isinstance(error, MemoryError):
        return DecoderMemory(TOO_MUCH_MEMORY)
    return DecoderError(
        f"the decoder failed in an unforeseen way ({type(error).__name__}); convert the recording to WAV"
    )


def open_clips(
    file: BinaryIO,
    settings: ClipSettings,
    takes: Sequence[Take] | None = None,
    start_s: int = 0,
    stop_s: int | None = None,
    *,
    stretch_s: int = STRETCH_S,
) -> ClipStream:
    """Return the clips of the recording in `file`, a seekable binary file that the caller closes afterwards.

    Args:
      file: the recording's bytes.
      settings: which clips there are.
      takes: what is wanted of the recording; None for all of it, on the channels that the settings name.
      start_s: only clips that begin here or later: a multiple of `stretch_s`. Those that begin before the recording, as
        around an event at its start, count as beginning with it.
      stop_s: only clips that begin before this.
      stretch_s: at least 2: the recording is resampled in stretches of so many seconds. Others than STRETCH_S, which
        change samples in their last bits, are for tests.
    """
    if start_s % stretch_s:
        raise ValueError(f"start_s is {start_s}; expected a multiple of {stretch_s}")
    return ClipStream(file, settings, (Take(settings.channel),) if takes is None else takes, start_s, stop_s, stretch_s)
