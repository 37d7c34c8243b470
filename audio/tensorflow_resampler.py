"""Resampling with `tfio.audio.resample`, for those who must match features that were made with it.

Its op is a Speex resampler of quality 4: an output sample is a sum over 64 input samples (over 4 ms of them, where the rate goes
down), the last of which is the one at its time, so that it comes late by half of them. It is the same, bit for bit, in each call that
begins on a whole second and early enough.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import metadata
from types import ModuleType

import numpy as np
import numpy.typing as npt

from audio.stretches import SAMPLE_RATE_HZ, resampled_length

_CALL_S = 10
"""Of input, at most, in a call of the op; whole seconds, so that a call begins with a frame and with an output sample."""
_LEAD_S = 1
"""Of input before that, where there is some: more than the filter's reach."""
_TAPS = 64
_TONE_HZ, _TONE_RATE_HZ = 1_000, 48_000
_ERROR = 1e-3
"""What the tone may differ by: with a delay of one sample more or less it differs by 0.4."""

_Samples = npt.NDArray[np.float32]
_Resample = Callable[[_Samples], _Samples]


class ResamplerUnusable(Exception):
    """tensorflow-io's resampler does not work in this environment; the message says why."""


def delay(rate_hz: int) -> int:
    """By how many 16 kHz samples the op's output comes late: 32 going down from usual rates, 46 to 64 going up from 11,025 to 8,000 Hz.

    Speex's filter has 64 taps at the lower of the two rates; going down, their number is rounded up to a multiple of 8.
    """
    taps = _TAPS
    if rate_hz > SAMPLE_RATE_HZ:
        taps = -(-(_TAPS * rate_hz // SAMPLE_RATE_HZ) // 8) * 8
    return round(taps / 2 * SAMPLE_RATE_HZ / rate_hz)


class TensorFlowStream:
    """Resamples one channel: what comes out, all in all, are the samples of one call of the op over the whole, moved by its delay.

    Args:
      rate_hz: of the input.
      resample: what turns float32 samples of shape (n,) into about n * 16000 / rate_hz, as the op does.
    """

    def __init__(self, rate_hz: int, resample: _Resample | None = None) -> None:
        self._rate_hz = rate_hz
        self._resample = resample or op(rate_hz)
        self._held: list[_Samples] = []
        self._held_frames = 0
        self._lead_s = 0
        """How much of what is held was in the last call, too."""
        self._late = delay(rate_hz)
        """How many of the next call's samples are of before the input's beginning."""
        self._frames_in = 0
        self._samples_out = 0

    def resample_chunk(self, samples: _Samples, last: bool = False) -> _Samples:
        """Return what of the output `samples` complete, both float32 of shape (n,); with `last` the rest.

        With that there are as many in all as soxr gives: the input's frames * 16000 / rate_hz, rounded.
        """
        self._held.append(samples.copy())
        self._held_frames += len(samples)
        self._frames_in += len(samples)
        parts: list[_Samples] = []
        while self._held_frames >= self._full:
            (held,) = self._held = [np.concatenate(self._held)]
            parts.append(self._call(held[: self._full]))
            self._held = [held[self._full - _LEAD_S * self._rate_hz :]]
            self._held_frames = len(self._held[0])
            self._lead_s = _LEAD_S
        if last:
            # Zeros bring out what comes late.
            zeros = np.zeros(-(-(delay(self._rate_hz) + 1) * self._rate_hz // SAMPLE_RATE_HZ), np.float32)
            parts.append(self._call(np.concatenate([*self._held, zeros])))
        output = np.concatenate(parts) if parts else np.empty(0, np.float32)
        if last:
            output = output[: resampled_length(self._frames_in, self._rate_hz) - self._samples_out]
        self._samples_out += len(output)
        return output

    @property
    def _full(self) -> int:
        """How many frames are a call."""
        return (self._lead_s + _CALL_S) * self._rate_hz

    def _call(self, frames: _Samples) -> _Samples:
        output = self._resample(frames)[self._lead_s * SAMPLE_RATE_HZ :]
        late, self._late = self._late, max(0, self._late - len(output))
        return output[late:]


@lru_cache(maxsize=64)
def op(rate_hz: int) -> _Resample:
    """Return `tfio.audio.resample` from a rate to 16 kHz, traced once: in eager mode it is traced at each call.

    Raises ResamplerUnusable where there is no TensorFlow.
    """
    tensorflow, tensorflow_io = _libraries()

    def resample(samples: object) -> object:
        return tensorflow_io.audio.resample(samples, rate_hz, SAMPLE_RATE_HZ)

    traced = tensorflow.function(
        resample, autograph=False, input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)]
    )

    def call(samples: _Samples) -> _Samples:
        output: _Samples = traced(tensorflow.constant(samples)).numpy()
        return output

    return call


def check() -> None:
    """Raise ResamplerUnusable unless a tone comes out as it should: where it does not work, importing it may tell nothing."""
    tone = np.sin(2 * np.pi * _TONE_HZ / _TONE_RATE_HZ * np.arange(_TONE_RATE_HZ)).astype(np.float32)
    try:
        output = TensorFlowStream(_TONE_RATE_HZ).resample_chunk(tone, last=True)
    except ResamplerUnusable:
        raise
    except Exception as error:
        raise ResamplerUnusable(f"a tone cannot be resampled: {type(error).__name__} ({_installed()})") from error
    expected = np.sin(2 * np.pi * _TONE_HZ / SAMPLE_RATE_HZ * np.arange(SAMPLE_RATE_HZ))
    settled = slice(_TAPS, -_TAPS)
    if len(output) != SAMPLE_RATE_HZ or not np.abs(output[settled] - expected[settled]).max() < _ERROR:
        raise ResamplerUnusable(f"a tone comes out as another than with tensorflow-io 0.37.1 ({_installed()})")


def main() -> None:
    """Return if the resampler works; else end the process with status 1, and with why not as the last line of standard error."""
    try:
        check()
    except ResamplerUnusable as error:
        sys.exit(str(error))


@cache
def _libraries() -> tuple[ModuleType, ModuleType]:
    """Import TensorFlow, quietly, for one thread and without GPUs. Raises ResamplerUnusable."""
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "3"), ("CUDA_VISIBLE_DEVICES", "-1")):
        os.environ.setdefault(name, value)
    try:
        import tensorflow
        import tensorflow_io
    except ImportError as error:
        raise ResamplerUnusable(f"{error} ({_installed()})") from error
    # It warns that the op is not vectorized, which one channel need not be.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(RuntimeError):  # this process has used TensorFlow before
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow, tensorflow_io


def _installed() -> str:
    """Return what there is of the two, in words."""
    found = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions() if one.name}
    names = ("tensorflow-io", "tensorflow-cpu" if "tensorflow-cpu" in found else "tensorflow")
    return " and ".join(f"{name} {found.get(name, 'not installed')}" for name in names)
