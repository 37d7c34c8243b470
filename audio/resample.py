"""One channel to 16 kHz, block by block: the same samples whatever the blocks, and wherever decoding begins."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import soxr

from audio.bad_places import BadPlaces
from audio.stretches import SAMPLE_RATE_HZ, STRETCH_S, Stream, Stretch, first_needed_s
from audio.tensorflow_resampler import TensorFlowStream

_Samples = npt.NDArray[np.float32]
ResamplerName = Literal["soxr", "tensorflow_io"]

_MARGIN_S = 0.05
# soxr HQ reaches 95 samples to either side at the lower of the two rates until its response is below -120 dB; tensorflow-io's 32.
_MARGIN_FRAMES = 100


class Resampler:
    """Resamples one channel, by default with soxr HQ, stretch by stretch; a recording that has 16 kHz already passes as it is.

    Samples that are not finite (NaN, infinite, or beyond float32 once filtered) become zeros, and `touched` tells which
    output samples they touch: 50 ms, or the filter's reach where that is longer, to either side.

    Places are counted from the recording's start. Input begins at second `first_needed_s(start_s)`, output at `start_s`,
    where a stretch begins.
    """

    def __init__(
        self, rate_hz: int, start_s: int = 0, stretch_s: int = STRETCH_S, resampler: ResamplerName = "soxr"
    ) -> None:
        self._rate_hz = rate_hz
        self._resampler = resampler
        self._stretch_s = stretch_s
        self._bad = BadPlaces(int(max(_MARGIN_S, _MARGIN_FRAMES / rate_hz) * SAMPLE_RATE_HZ))
        self._frames_in = first_needed_s(start_s) * rate_hz
        self._samples_out = start_s * SAMPLE_RATE_HZ
        self._stretch = None if rate_hz == SAMPLE_RATE_HZ else self._begin(start_s // stretch_s)
        self._following: Stretch | None = None
        self._early: list[_Samples] = []
        """What the following stretch has given while this one is not complete."""

    def push(self, samples: _Samples, *, may_be_bad: bool) -> _Samples:
        """Return the output, float32 of shape (n,), that `samples`, float32 of shape (m,), complete.

        `may_be_bad` is False for samples of integer formats: they are finite. Bad samples are zeroed in place.
        """
        if may_be_bad and not np.isfinite(samples).all():
            bad = np.flatnonzero(~np.isfinite(samples))
            samples[bad] = 0
            self._bad.mark((bad + self._frames_in) * (SAMPLE_RATE_HZ / self._rate_hz))
        stretch = self._stretch
        if stretch is None:
            output = samples[max(0, self._samples_out - self._frames_in) :]
            self._frames_in += len(samples)
        elif self._following is None and self._frames_in + len(samples) < stretch.next_first_frame:
            self._frames_in += len(samples)
            output = stretch.push(samples, may_be_bad=may_be_bad)
        else:
            output = self._across(stretch, samples, may_be_bad=may_be_bad)
        self._samples_out += len(output)
        return output

    def finish(self, *, may_be_bad: bool) -> _Samples:
        """Return the last output; the input has ended."""
        if self._stretch is None:
            return np.empty(0, np.float32)
        output = self._stretch.finish(may_be_bad=may_be_bad)
        if self._following is not None:
            output = np.concatenate([output, *self._early, self._following.finish(may_be_bad=may_be_bad)])
        self._samples_out += len(output)
        return output

    @property
    def settled(self) -> int:
        """Up to which output sample no later input can touch any more."""
        return max(0, self._samples_out - self._bad.margin)

    def touched(self, start: int, stop: int) -> bool:
        """Return whether a bad value touches any output sample of [start, stop)."""
        return self._bad.touched(start, stop)

    def forget(self, before: int) -> None:
        """Say that `touched` is not asked about samples before this one any more."""
        self._bad.forget(before)

    def _begin(self, number: int) -> Stretch:
        stream: Stream
        if self._resampler == "soxr":
            stream = soxr.ResampleStream(self._rate_hz, SAMPLE_RATE_HZ, 1, quality="HQ")
        else:
            stream = TensorFlowStream(self._rate_hz)
        return Stretch(self._rate_hz, number, self._stretch_s, self._bad, stream)

    def _across(self, stretch: Stretch, samples: _Samples, *, may_be_bad: bool) -> _Samples:
        """Resample `samples` where one stretch goes over into the next: both filter what is around the border."""
        parts = []
        while len(samples):
            until = stretch.next_first_frame if self._following is None else stretch.last_frame
            part, samples = samples[: until - self._frames_in], samples[until - self._frames_in :]
            self._frames_in += len(part)
            parts.append(stretch.push(part, may_be_bad=may_be_bad))
            if self._following is not None:
                self._early.append(self._following.push(part, may_be_bad=may_be_bad))
                if self._frames_in == stretch.last_frame and not stretch.is_complete:
                    parts.append(stretch.finish(may_be_bad=may_be_bad))
                if self._frames_in == stretch.last_frame or stretch.is_complete:
                    parts += self._early
                    self._early = []
                    self._stretch = stretch = self._following
                    self._following = None
            elif self._frames_in == stretch.next_first_frame:
                self._following = self._begin(stretch.number + 1)
        return np.concatenate(parts)
