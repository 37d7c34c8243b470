"""Audio files to clips, strictly (research URIs) or with resampling (Model Garden)."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr

from emulator.standin import CLIP_SAMPLES, FloatArray
from emulator.values import NotAClipError

SAMPLE_RATE_HZ = 16000

_LONGEST_S = 4.0
"""Files that are longer by far than a clip of 2 s are not decoded to find that out."""


def exact_clip(data: bytes) -> FloatArray:
    """The samples of a file that is exactly a clip, float32 (32000,).

    Raises:
        NotAClipError: it is no audio file, or not 32000 finite samples of one channel at 16 kHz.
    """
    with _opened(data) as file:
        if (file.samplerate, file.channels, file.frames) != (SAMPLE_RATE_HZ, 1, CLIP_SAMPLES):
            raise NotAClipError(
                f"expected {CLIP_SAMPLES} frames at {SAMPLE_RATE_HZ} Hz, mono, "
                f"got {file.frames} at {file.samplerate} Hz in {file.channels} channel(s)"
            )
        return _checked(_read(file)[:, 0])


def resampled_clip(data: bytes) -> FloatArray:
    """The samples of a file, its channels averaged, at 16 kHz: float32 (32000,).

    Raises:
        NotAClipError: it is no audio file, or not 32000 finite samples after resampling.
    """
    with _opened(data) as file:
        rate_hz = file.samplerate
        if file.frames > _LONGEST_S * rate_hz:
            raise NotAClipError(f"expected exactly {CLIP_SAMPLES} samples at {SAMPLE_RATE_HZ} Hz, got more")
        samples = _read(file)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return _checked(mono if rate_hz == SAMPLE_RATE_HZ else soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ))


def _opened(data: bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, TypeError):  # TypeError: headerless formats want to be told their layout
        raise NotAClipError("expected an audio file that libsndfile reads") from None


def _read(file: soundfile.SoundFile) -> FloatArray:
    """All samples, float32 (frames, channels)."""
    try:
        samples: FloatArray = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        raise NotAClipError("the audio file is damaged") from None
    return samples


def _checked(samples: FloatArray) -> FloatArray:
    if len(samples) != CLIP_SAMPLES:
        raise NotAClipError(f"expected exactly {CLIP_SAMPLES} samples at {SAMPLE_RATE_HZ} Hz, got {len(samples)}")
    if not np.isfinite(samples).all():
        raise NotAClipError("not every sample is finite")
    return np.ascontiguousarray(samples)
