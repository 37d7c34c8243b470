"""One channel on its way from blocks to clips: resampled, and held for as long as clips may need it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audio.mix import channel_samples
from audio.resample import Resampler, ResamplerName
from audio.source import Block
from audio.stretches import SAMPLE_RATE_HZ
from audio.window import CLIP_SAMPLES

_Samples = npt.NDArray[np.float32]


class Track:
    """The 16 kHz samples of one channel; places are counted from the recording's start."""

    def __init__(self, channel: str, rate_hz: int, start_s: int, stretch_s: int, resampler: ResamplerName) -> None:
        self.channel = channel
        self.end = start_s * SAMPLE_RATE_HZ
        """Up to where there are samples so far."""
        self.settled = 0
        """Up to where no later input can touch the samples any more."""
        self._resampler = Resampler(rate_hz, start_s, stretch_s, resampler)
        self._may_be_bad = False
        self._held: _Samples = np.empty(2 * CLIP_SAMPLES, np.float32)
        self._held_size = 0

    def push(self, block: Block, needed_from: int) -> None:
        """Take a block of the recording, and let go of samples before `needed_from`."""
        if needed_from > self.end - self._held_size:
            self._let_go(needed_from)
        self._may_be_bad = block.dtype != np.int16
        resampled = self._resampler.push(channel_samples(block, self.channel), may_be_bad=self._may_be_bad)
        self._append(resampled, needed_from)
        self.settled = self._resampler.settled

    def finish(self, needed_from: int) -> None:
        """Take notice that the recording has ended."""
        self._append(self._resampler.finish(may_be_bad=self._may_be_bad), needed_from)

    def copy_clip(self, to: _Samples, start: int, audio_start: int, audio_stop: int) -> None:
        """Fill `to`, float32 of shape (32000,), with a clip from `start` on: zeros but for [audio_start, audio_stop)."""
        at = audio_start - (self.end - self._held_size)
        to[: audio_start - start] = 0
        to[audio_start - start : audio_stop - start] = self._held[at : at + audio_stop - audio_start]
        to[audio_stop - start :] = 0

    def is_bad(self, start: int, stop: int) -> bool:
        """Return whether samples of [start, stop) are not the recording's, but were touched by bad ones."""
        return self._resampler.touched(start, stop)

    def _append(self, samples: _Samples, needed_from: int) -> None:
        unused = 0 if self._held_size else min(len(samples), max(0, needed_from - self.end))
        self.end += len(samples)
        new = samples[unused:]
        size = self._held_size + len(new)
        if size > len(self._held):
            grown = np.empty(max(size, 2 * len(self._held)), np.float32)
            grown[: self._held_size] = self._held[: self._held_size]
            self._held = grown
        self._held[self._held_size : size] = new
        self._held_size = size

    def _let_go(self, needed_from: int) -> None:
        """Move what is still needed to the front."""
        self._resampler.forget(needed_from)
        kept = max(0, self.end - needed_from)
        self._held[:kept] = self._held[self._held_size - kept : self._held_size]
        self._held_size = kept
