"""Names of clips by their samples: 16 hex digits, for the arrivals log and for clips that are to be rejected.

The same recording arrives as other floats when it was sent as 16-bit WAV or with rounded decimals. For clips whose
samples are 16-bit steps to begin with, `clip_digest_16_bit` is the same whichever way they were sent.
"""

from __future__ import annotations

import hashlib

import numpy as np

from emulator.standin import FloatArray


def clip_digest(clip: FloatArray) -> str:
    """The first 16 hex digits of the SHA-256 of the float32 samples, little-endian, just as they arrived."""
    return hashlib.sha256(clip.astype("<f4", copy=False).tobytes()).hexdigest()[:16]


def clip_digest_16_bit(clip: FloatArray) -> str:
    """The digest of a clip once each sample is rounded to the nearest of 65,536 steps of 1/32768, -1 the lowest."""
    # By way of whole numbers, in which there is no -0.0: as floats, 0.0 and -0.0 are other bytes.
    steps = np.rint(clip * np.float32(32768)).clip(-32768, 32767).astype(np.int16)
    return clip_digest(steps / np.float32(32768))
