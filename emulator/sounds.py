"""Synthesised coughs and breaths, from noise, pulses and resonances; numpy only.

They are made to look like the real thing where it matters to a machine, not to fool a listener. A cough has the three
phases that the literature describes: an explosive burst, a noisy intermediate phase, and mostly a voiced one, glottal
pulses of falling pitch, all shaped by the resonances of a vocal tract. A breath is the noise of air, in and out, each
with its own colour and a slow rise and fall.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

_EXPLOSIVE_HZ = (320.0, 900.0, 1900.0, 3100.0, 4600.0)
_VOICED_HZ = (320.0, 650.0, 1350.0, 2600.0, 3700.0)
_INHALE_HZ = (1100.0, 2300.0, 4200.0)
_EXHALE_HZ = (450.0, 950.0, 1800.0)
_TILT_HZ = 400.0
"""Above this, sounds of the airways lose 6 dB an octave (as real coughs sent from phones do)."""


def cough(rate_hz: int, random: np.random.Generator) -> Samples:
    """One cough of 0.35 to 0.6 s, float64 (n,), its peak at 1."""
    explosive_s = random.uniform(0.03, 0.06)
    intermediate_s = random.uniform(0.14, 0.24)
    voiced_s = random.uniform(0.10, 0.20)
    time_s = np.arange(round((explosive_s + intermediate_s + voiced_s + 0.08) * rate_hz)) / rate_hz
    voiced_at_s = explosive_s + intermediate_s

    burst = np.minimum(time_s / 0.004, 1.0) * np.exp(-time_s / explosive_s)
    hiss = 0.30 * np.minimum(time_s / 0.02, 1.0) * np.exp(-time_s / intermediate_s)
    voice = np.maximum(0.0, np.sin(np.pi * np.clip((time_s - voiced_at_s) / (voiced_s + 0.08), 0.0, 1.0)))

    noise = random.standard_normal(len(time_s))
    pitch_hz = random.uniform(180.0, 320.0) * (1.0 - 0.35 * np.clip(time_s / time_s[-1], 0.0, 1.0))
    tract = random.uniform(0.88, 1.12)
    sound = _resonate((burst + hiss) * noise, rate_hz, _EXPLOSIVE_HZ, tract, sharpness=2.5)
    sound += 0.45 * voice * _resonate(_pulses(pitch_hz, rate_hz, random), rate_hz, _VOICED_HZ, tract, sharpness=6.0)
    fade = np.minimum((time_s[-1] - time_s) / 0.02, 1.0)
    return _to_peak(sound * fade)


def breath(rate_hz: int, random: np.random.Generator) -> Samples:
    """One breath, in and out with its rests, of 2.4 to 3.9 s, float64 (n,), its peak at 1."""
    tract = random.uniform(0.9, 1.1)
    inhale = _air(random.uniform(0.8, 1.3), rate_hz, random, _INHALE_HZ, tract)
    exhale = _air(random.uniform(1.1, 1.7), rate_hz, random, _EXHALE_HZ, tract)
    rest, longer_rest = (np.zeros(round(random.uniform(*s) * rate_hz)) for s in ((0.1, 0.3), (0.4, 0.6)))
    return np.concatenate([0.6 * _to_peak(inhale), rest, _to_peak(exhale), longer_rest])


def coughing(rate_hz: int, duration_s: float, random: np.random.Generator) -> Samples:
    """Coughs at the rate of someone who was asked to cough, over a room's faint noise; float64 (n,) within 1."""
    sound = _room(rate_hz, duration_s, random)
    start_s = random.uniform(0.05, 0.15)
    while start_s + 0.6 < duration_s:
        _add(sound, random.uniform(0.5, 0.9) * cough(rate_hz, random), start_s, rate_hz)
        start_s += random.uniform(0.6, 1.1)
    return sound


def breathing(rate_hz: int, duration_s: float, random: np.random.Generator) -> Samples:
    """Breath after breath, over a room's faint noise; float64 (n,) within 1."""
    sound = _room(rate_hz, duration_s, random)
    start_s = 0.1
    while start_s < duration_s:
        one = random.uniform(0.08, 0.15) * breath(rate_hz, random)
        _add(sound, one, start_s, rate_hz)
        start_s += len(one) / rate_hz
    return sound


def night(rate_hz: int, duration_s: float, random: np.random.Generator) -> Samples:
    """Quiet breathing with a cough now and then, 6 to 9 s apart; float64 (n,) within 1."""
    sound = 0.5 * breathing(rate_hz, duration_s, random)
    start_s = random.uniform(2.0, 5.0)
    while start_s < duration_s:
        _add(sound, random.uniform(0.4, 0.8) * cough(rate_hz, random), start_s, rate_hz)
        start_s += random.uniform(6.0, 9.0)
    return sound


def silence(rate_hz: int, duration_s: float, _random: np.random.Generator) -> Samples:
    """Digital silence, float64 (n,)."""
    return np.zeros(round(duration_s * rate_hz))


def _air(
    duration_s: float, rate_hz: int, random: np.random.Generator, centres_hz: tuple[float, ...], tract: float
) -> Samples:
    """The noise of air through resonances, rising and falling once."""
    samples = round(duration_s * rate_hz)
    swell = np.sin(np.pi * np.arange(samples) / samples) ** 1.5
    flutter = 1.0 + 0.15 * np.sin(2.0 * np.pi * random.uniform(5.0, 9.0) * np.arange(samples) / rate_hz)
    return _resonate(swell * flutter * random.standard_normal(samples), rate_hz, centres_hz, tract, sharpness=1.5)


def _pulses(pitch_hz: Samples, rate_hz: int, random: np.random.Generator) -> Samples:
    """Glottal pulses: one impulse each time the phase comes round, of uneven strength, over a little breathiness."""
    turns = np.floor(np.cumsum(pitch_hz / rate_hz))
    impulses = np.diff(turns, prepend=turns[0])
    strength = np.sqrt(rate_hz / pitch_hz) * random.uniform(0.7, 1.3, len(pitch_hz))
    return impulses * strength + 0.2 * random.standard_normal(len(pitch_hz))


def _resonate(
    sound: Samples, rate_hz: int, centres_hz: tuple[float, ...], tract: float, *, sharpness: float
) -> Samples:
    """Passes a sound through parallel resonances, in the frequency domain, zero-padded so that nothing wraps round."""
    size = 2 * len(sound)
    hz = np.maximum(np.fft.rfftfreq(size, 1.0 / rate_hz), 1.0)
    response = np.zeros(len(hz), np.complex128)
    for rank, centre_hz in enumerate(centres_hz):
        ratio = hz / (centre_hz * tract)
        response += 0.7**rank / (1.0 + 1j * sharpness * (ratio - 1.0 / ratio))
    response /= 1.0 + 1j * hz / _TILT_HZ
    resonant: Samples = np.fft.irfft(np.fft.rfft(sound, size) * response, size)
    return resonant[: len(sound)]


def _room(rate_hz: int, duration_s: float, random: np.random.Generator) -> Samples:
    """A room's faint noise, -62 dBFS, with more bass than treble."""
    samples = round(duration_s * rate_hz)
    hz = np.maximum(np.fft.rfftfreq(samples, 1.0 / rate_hz), 20.0)
    noise: Samples = np.fft.irfft(np.fft.rfft(random.standard_normal(samples)) / np.sqrt(hz), samples)
    return np.asarray(noise * (10.0 ** (-62.0 / 20.0) / np.sqrt(np.mean(noise**2))))


def _add(sound: Samples, event: Samples, start_s: float, rate_hz: int) -> None:
    """Adds an event in place; what would lie beyond the end is cut off."""
    start = round(start_s * rate_hz)
    event = event[: len(sound) - start]
    sound[start : start + len(event)] += event


def _to_peak(sound: Samples) -> Samples:
    return sound / float(np.abs(sound).max())
