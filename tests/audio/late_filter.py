"""What tensorflow-io's op does, in numpy and slowly: a filter of so many taps, whose output comes late by half of them."""

from collections.abc import Callable

import numpy as np

Resample = Callable[[np.ndarray], np.ndarray]


def lateness(resample: Resample, rate_hz: int) -> float:
    """By how many 16 kHz samples the middle of the response to an impulse comes after the impulse."""
    impulse = np.zeros(2 * rate_hz, np.float32)
    impulse[rate_hz] = 1
    response = resample(impulse).astype(np.float64)
    return float((response * np.arange(len(response))).sum() / response.sum() - 16_000)


def late_filter(rate_hz: int) -> Resample:
    """From `rate_hz` to 16 kHz, as `audio.tensorflow_resampler.op` returns it."""
    half = 32
    while 2 * half < 64 * rate_hz // 16_000:
        half += 4
    cutoff = min(1.0, 16_000 / rate_hz)

    def resample(samples: np.ndarray) -> np.ndarray:
        assert samples.dtype == np.float32
        frame, part = np.divmod(np.arange(len(samples) * 16_000 // rate_hz) * rate_hz, 16_000)
        first = frame - 2 * half + 1
        padded = np.concatenate([np.zeros(2 * half), samples])
        output, weights = np.zeros(len(frame)), np.zeros(len(frame))
        for tap in range(2 * half):
            away = part / 16_000 + (half - 1 - tap)
            weight = np.sinc(cutoff * away) * np.cos(np.pi * away / (2 * half)) ** 2
            output += weight * padded[2 * half + first + tap]
            weights += weight
        return (output / weights).astype(np.float32)

    return resample
