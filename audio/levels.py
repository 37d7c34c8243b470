"""How loud a clip is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_FLOAT32_TINY = 1e-25


def peak_dbfs(samples: npt.NDArray[np.float32]) -> float:
    """Return the largest magnitude of `samples` in dB of full scale (1.0): -inf for digital silence."""
    return _dbfs(_peak(samples))


def rms_dbfs(samples: npt.NDArray[np.float32]) -> float:
    """Return the root mean square of `samples` in dB of full scale (1.0): -inf for digital silence."""
    if not len(samples):
        return -math.inf
    with np.errstate(over="ignore", under="ignore"):
        power = float(np.dot(samples, samples))
    if not _FLOAT32_TINY < power < math.inf:
        # Squares of very large or very small samples leave float32; digital silence comes here too.
        # (`np.dot` of so many float64 would wake the threads of BLAS: 7 ms of CPU.)
        power = float(np.square(samples, dtype=np.float64).sum())
    return _dbfs(math.sqrt(power / len(samples)))


def _peak(samples: npt.NDArray[np.float32]) -> float:
    return max(float(samples.max()), -float(samples.min())) if len(samples) else 0.0


def _dbfs(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
