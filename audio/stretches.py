"""The stretches in which a recording is resampled, so that a part of it gives the very samples of the whole.

soxr filters in blocks that are aligned to where its input begins: restarted elsewhere, it gives samples that differ in
their last bits. So the 16 kHz samples of stretch k, which are [k, k + 1) times STRETCH_S seconds of the recording, are by
definition those of a soxr stream of their own: its input begins ROLL_S before the stretch (or with the recording) and
ends ROLL_S after it (or with the recording), and what it gives outside of the stretch is dropped. tensorflow-io's resampler
gives the same samples wherever it begins; it is used in the same way.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from audio.bad_places import BadPlaces

SAMPLE_RATE_HZ = 16_000

STRETCH_S = 300
"""Whole seconds, so that a stretch begins with a frame at every sample rate, and with a 16 kHz sample."""
ROLL_S = 1
"""Longer than soxr HQ's filter at every rate that is read: 95 samples to either side until it is below -120 dB."""

_Samples = npt.NDArray[np.float32]


class Stream(Protocol):
    """Resamples one channel to 16 kHz, as soxr's streams do."""

    def resample_chunk(self, samples: _Samples, last: bool = False) -> _Samples:
        """Return what of the output is complete with `samples`, both float32 of shape (n,); with `last` the rest."""
        ...


def resampled_length(frames: int, rate_hz: int) -> int:
    """Return how many 16 kHz samples so many frames give: as many as soxr does, halves rounded up."""
    return (2 * frames * SAMPLE_RATE_HZ + rate_hz) // (2 * rate_hz)


def first_needed_s(start_s: int) -> int:
    """Return from which second on a recording must be decoded for the samples from `start_s` on, a stretch's start."""
    return max(0, start_s - ROLL_S)


class Stretch:
    """One stretch of one channel: give it the frames [first_frame, last_frame), as far as there are so many."""

    def __init__(self, rate_hz: int, number: int, stretch_s: int, bad: BadPlaces, stream: Stream) -> None:
        begin_s = number * stretch_s
        self.number = number
        self.first_frame = first_needed_s(begin_s) * rate_hz
        self.last_frame = (begin_s + stretch_s + ROLL_S) * rate_hz
        self.next_first_frame = first_needed_s(begin_s + stretch_s) * rate_hz
        """Where the input of the stretch after this one begins."""
        self._start = begin_s * SAMPLE_RATE_HZ
        self._stop = self._start + stretch_s * SAMPLE_RATE_HZ
        self._at = first_needed_s(begin_s) * SAMPLE_RATE_HZ
        self._bad = bad
        self._frames_in = 0
        self._stream = stream

    @property
    def is_complete(self) -> bool:
        """Whether all its samples are out, and it is known which of them bad values touch."""
        return self._at >= self._stop + self._bad.margin

    def push(self, samples: _Samples, *, may_be_bad: bool) -> _Samples:
        """Return the stretch's samples that `samples` complete, both float32 of shape (n,)."""
        self._frames_in += len(samples)
        return self._kept(self._stream.resample_chunk(samples), may_be_bad=may_be_bad)

    def finish(self, *, may_be_bad: bool) -> _Samples:
        """Return its last samples; its input has ended."""
        if self._frames_in == 0:
            return np.empty(0, np.float32)
        return self._kept(self._stream.resample_chunk(np.empty(0, np.float32), last=True), may_be_bad=may_be_bad)

    def _kept(self, output: _Samples, *, may_be_bad: bool) -> _Samples:
        """Return what of `output` is in the stretch; samples that are not finite become zeros, and marks."""
        if may_be_bad and not np.isfinite(output).all():
            bad = np.flatnonzero(~np.isfinite(output))
            output[bad] = 0
            # Its neighbours have samples and marks of their own, whether they are resampled here or elsewhere.
            self._bad.mark(bad + self._at, self._start, self._stop)
        at = self._at
        self._at += len(output)
        if at >= self._start and self._at <= self._stop:
            return output
        return output[max(0, self._start - at) : max(0, self._stop - at)]
