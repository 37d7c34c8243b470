"""The stand-in for HeAR: 512 floats from a clip's log-mel statistics, so that similar sounds come out similar.

It is not HeAR and has learnt nothing. It exists so that the whole path can be run, tested and timed without access to
the real model, with embeddings in which a cough is nearer to another cough than to a breath.

A clip is scaled by its own peak (by the loudest of its batch, if that is asked for), cut into 63 overlapping frames,
and described by 48 mel bands in decibels. What is kept of them: the spectrum's shape, its spread and movement over
time, quiet and loud percentiles, and a coarse picture of 5 stretches of time; the level itself counts for little. These
375 features are spread over 512 dimensions by a fixed matrix of +1 and -1 (a Rademacher projection, which keeps
angles), whose signs come from a formula over integers, splitmix64, and so are the same on every platform and with every
version of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MODEL_ID = "hear-stand-in-v1"
"""Names these embeddings wherever they appear; changes whenever the numbers do."""

CLIP_SAMPLES = 32000
EMBEDDING_SIZE = 512

FloatArray = npt.NDArray[np.float32]

_SAMPLE_RATE_HZ = 16000
_FRAME_SAMPLES = 1000
_HOP_SAMPLES = 500
_FRAMES = (CLIP_SAMPLES - _FRAME_SAMPLES) // _HOP_SAMPLES + 1
_BLOCK_FRAMES = 21
"""Frames transformed at a time: 63 at once leave the processor's cache and cost twice as much."""

_BANDS = 48
_LOWEST_HZ = 60.0
_HIGHEST_HZ = 7800.0
_STRETCHES = 5
_POOLED_BANDS = 16
_FLOOR = np.float32(1e-5)
"""Power added to each band, as a share of the clip's loudest: what lies 50 dB below is silence."""

_RANKS = (6, 31, 56)
"""Frames, sorted by power, that stand for the 10th, 50th and 90th percentile of the 63."""


class _Tables(NamedTuple):
    """What every clip is multiplied with."""

    window: FloatArray
    """(1000,)"""
    mel: FloatArray
    """(501, 48): power spectrum to mel bands."""
    stretches: FloatArray
    """(5, 63): overlapping weights over time, each row's sum 1."""
    projection: FloatArray
    """(375, 512)"""


def embed(clips: FloatArray | Sequence[FloatArray], *, coupled: bool = False) -> FloatArray:
    """Embeds each clip by itself: its 512 floats are bit for bit the same alone and among others.

    Args:
        clips: float32 (n, 32000) or n of (32000,), 16 kHz mono, finite.
        coupled: scale by the loudest of all clips instead of by each clip's own peak, so that an embedding depends on
            its batch mates as with the published front end of HeAR's PyTorch port, which scales over the whole batch.

    Returns:
        float32 (n, 512), finite for any finite input; a sound's vector has a length of about 1.

    Raises:
        ValueError: a clip has another shape or type.
    """
    for clip in clips:
        if clip.shape != (CLIP_SAMPLES,) or clip.dtype != np.float32:
            raise ValueError(f"expected float32 (n, {CLIP_SAMPLES}), got a clip of {clip.dtype} {clip.shape}")
    tables = _tables()
    embeddings = np.empty((len(clips), EMBEDDING_SIZE), np.float32)
    if coupled:
        peaks = np.full(len(clips), max(map(_peak, clips), default=np.float32(0)))
        powers = [_power(clip, peak, tables) for clip, peak in zip(clips, peaks, strict=True)]
        loudest = max((power.max() for power in powers), default=np.float32(0))
        for power, peak, embedding in zip(powers, peaks, embeddings, strict=True):
            np.matmul(_features(power, loudest, peak, tables), tables.projection, out=embedding)
        return embeddings
    for clip, embedding in zip(clips, embeddings, strict=True):
        peak = _peak(clip)
        power = _power(clip, peak, tables)
        np.matmul(_features(power, power.max(), peak, tables), tables.projection, out=embedding)
    return embeddings


def _peak(clip: FloatArray) -> np.float32:
    return np.float32(max(clip.max(), -clip.min()))


def _power(clip: FloatArray, peak: np.float32, tables: _Tables) -> FloatArray:
    """Power of a clip, scaled by `peak`, in each frame and mel band: float32 (63, 48)."""
    clip = np.ascontiguousarray(clip)
    # Scaling by the peak first keeps the powers of 1e30 and of denormal samples within float32.
    scaled = clip / peak if peak > 0 else clip
    frames = np.lib.stride_tricks.as_strided(
        scaled, (_FRAMES, _FRAME_SAMPLES), (_HOP_SAMPLES * scaled.itemsize, scaled.itemsize), writeable=False
    )
    return np.concatenate([_mel_power(frames[k : k + _BLOCK_FRAMES], tables) for k in range(0, _FRAMES, _BLOCK_FRAMES)])


def _features(power: FloatArray, loudest: np.float32, peak: np.float32, tables: _Tables) -> FloatArray:
    """The statistics of one clip, float32 (375,), weighted so that each group has its say."""
    log_power = np.log10(power / loudest + _FLOOR) if loudest > 0 else np.zeros_like(power)

    mean = log_power.mean(axis=0)
    spread = log_power.std(axis=0)
    movement = np.abs(np.diff(log_power, axis=0)).mean(axis=0)
    ranked = np.sort(log_power, axis=0)[list(_RANKS)]
    level = mean.mean()
    over_time = tables.stretches @ log_power.reshape(_FRAMES, _POOLED_BANDS, _BANDS // _POOLED_BANDS).mean(axis=2)
    peak_db = np.float32(20.0 * np.log10(max(float(peak), 1e-6)))
    return np.concatenate(
        [
            mean - level,
            0.5 * (spread - spread.mean()),
            0.5 * (movement - movement.mean()),
            0.5 * (ranked - ranked.mean(axis=1, keepdims=True)).ravel(),
            ranked.mean(axis=1) - level,
            0.5 * (over_time - over_time.mean()).ravel(),
            np.array([level + 2.5, spread.mean(), 4.0 * movement.mean()], np.float32),
            np.array([0.005 * (peak_db + 20.0)], np.float32),
        ],
        dtype=np.float32,
    )


def _mel_power(frames: FloatArray, tables: _Tables) -> FloatArray:
    """Power in each mel band of float32 (n, 1000) frames: float32 (n, 48)."""
    spectrum = np.fft.rfft(frames * tables.window, axis=1)
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False) @ tables.mel


@cache
def _tables() -> _Tables:
    stretches = _stretches()
    features = _BANDS * (3 + len(_RANKS)) + len(_RANKS) + _STRETCHES * _POOLED_BANDS + 4
    return _Tables(
        window=np.hanning(_FRAME_SAMPLES).astype(np.float32),
        mel=_mel_filters(),
        stretches=stretches,
        projection=_signs(features, EMBEDDING_SIZE) * np.float32(0.16 / np.sqrt(EMBEDDING_SIZE)),
    )


def _mel_filters() -> FloatArray:
    """Triangles, evenly spaced on the mel scale between 60 and 7800 Hz, that sum to 1 each: float32 (501, 48)."""
    lowest, highest = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    corners_hz = 700.0 * (10.0 ** (np.linspace(lowest, highest, _BANDS + 2) / 2595.0) - 1.0)
    bins_hz = np.arange(_FRAME_SAMPLES // 2 + 1)[:, None] * (_SAMPLE_RATE_HZ / _FRAME_SAMPLES)
    rising = (bins_hz - corners_hz[:-2]) / np.diff(corners_hz)[:-1]
    falling = (corners_hz[2:] - bins_hz) / np.diff(corners_hz)[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.ascontiguousarray(filters / filters.sum(axis=0), np.float32)


def _stretches() -> FloatArray:
    """Overlapping raised cosines over the frames, one a stretch of time, each row's sum 1: float32 (5, 63)."""
    centres = np.linspace(0, _FRAMES - 1, _STRETCHES)[:, None]
    distance = np.minimum(np.abs(np.arange(_FRAMES) - centres) / (centres[1] - centres[0]), 1.0)
    weights = 0.5 + 0.5 * np.cos(np.pi * distance)
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _signs(rows: int, columns: int) -> FloatArray:
    """+1 or -1 for each place, the top bit of splitmix64's output for its number: float32 (rows, columns)."""
    state = np.arange(1, rows * columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (1.0 - 2.0 * (state >> np.uint64(63)).astype(np.float32)).reshape(rows, columns)
