"""One channel to 16 kHz, block by block: the same samples as resampling the whole at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE_HZ = 16_000

_Samples = npt.NDArray[np.float32]

_MARGIN_S = 0.05
# soxr HQ reaches 95 samples to either side at the lower of the two rates until its response is below -120 dB.
_MARGIN_FRAMES = 100


class Span:
    """Samples [start, stop) of the output which the input's bad values have touched."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


class Resampler:
    """Resamples one channel with soxr HQ; a recording that has 16 kHz already passes as it is.

    Samples that are not finite (NaN, infinite, or beyond float32 once filtered) become zeros, and `bad` tells which
    output samples they touch: 50 ms, or the filter's reach where that is longer, to either side.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._stream = (
            None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, quality="HQ")
        )
        self._margin = int(max(_MARGIN_S, _MARGIN_FRAMES / rate_hz) * SAMPLE_RATE_HZ)
        self._frames_in = 0
        self._frames_out = 0
        self._bad: list[Span] = []

    def push(self, samples: _Samples, *, may_be_bad: bool) -> _Samples:
        """Return the output, float32 of shape (n,), that `samples`, float32 of shape (m,), complete.

        `may_be_bad` is False for samples of integer formats: they are finite. Bad samples are zeroed in place.
        """
        if may_be_bad and not np.isfinite(samples).all():
            bad = np.flatnonzero(~np.isfinite(samples))
            samples[bad] = 0
            self._mark((bad + self._frames_in) * (SAMPLE_RATE_HZ / self._rate_hz))
        self._frames_in += len(samples)
        if self._stream is None:
            self._frames_out += len(samples)
            return samples
        return self._filtered(self._stream.resample_chunk(samples), may_be_bad=may_be_bad)

    def finish(self, *, may_be_bad: bool) -> _Samples:
        """Return the last output; the input has ended."""
        if self._stream is None or self._frames_in == 0:
            return np.empty(0, np.float32)
        return self._filtered(self._stream.resample_chunk(np.empty(0, np.float32), last=True), may_be_bad=may_be_bad)

    @property
    def settled(self) -> int:
        """How many output samples no later input can touch any more."""
        return max(0, self._frames_out - self._margin)

    def touched(self, start: int, stop: int) -> bool:
        """Return whether a bad value touches any output sample of [start, stop); `start` must not fall."""
        if self._bad:
            self._bad = [span for span in self._bad if span.stop > start]
        return any(span.start < stop and span.stop > start for span in self._bad)

    def _filtered(self, output: _Samples, *, may_be_bad: bool) -> _Samples:
        if may_be_bad and not np.isfinite(output).all():
            bad = np.flatnonzero(~np.isfinite(output))
            output[bad] = 0
            self._mark(bad + self._frames_out)
        self._frames_out += len(output)
        return output

    def _mark(self, places: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> None:
        """Add spans around output positions given in rising order."""
        for first, last in _runs(places, self._margin):
            start, stop = int(first) - self._margin, int(last) + self._margin + 1
            if self._bad and start <= self._bad[-1].stop and stop >= self._bad[-1].start:
                self._bad[-1].start = min(start, self._bad[-1].start)
                self._bad[-1].stop = max(stop, self._bad[-1].stop)
            else:
                self._bad.append(Span(start, stop))


def _runs(places: npt.NDArray[np.floating] | npt.NDArray[np.integer], reach: int) -> Iterator[tuple[float, float]]:
    """Yield (first, last) of each run of places of which neighbours are no further apart than `reach`."""
    breaks = np.flatnonzero(np.diff(places) > reach)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.concatenate((breaks, [len(places) - 1]))]
    yield from zip(firsts.tolist(), lasts.tolist(), strict=True)
