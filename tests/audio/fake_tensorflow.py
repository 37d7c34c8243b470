"""Packages by the names of tensorflow and tensorflow-io, whose op does what a test wants: for processes that a test starts."""

from pathlib import Path

import pytest

_TENSORFLOW = """
class _Config:
    class threading:
        set_intra_op_parallelism_threads = set_inter_op_parallelism_threads = staticmethod(lambda count: None)
class Tensor:
    def __init__(self, value):
        self.value = value
    def numpy(self):
        return self.value
config, constant, float32 = _Config, Tensor, "float32"
def TensorSpec(shape, dtype):
    return shape, dtype
def function(call, **options):
    return call
"""
_TENSORFLOW_IO = """
import numpy as np, os, time
import tensorflow
class audio:
    @staticmethod
    def resample(samples, rate_in, rate_out):
        assert (rate_in, rate_out) == (48000, 16000)
        return tensorflow.Tensor(resample(samples.value))
def late(samples, delay=32):
    return np.concatenate([np.zeros(delay, np.float32), samples[::3]])[: len(samples) // 3]
def resample(samples):
    {body}
"""
WORKS = "return late(samples)"
"""Every third sample, as late as the real op's: from 48 kHz alone, and without any filter."""
FAILS = "raise NotImplementedError('unable to open file: libtensorflow_io.so')"
"""As beside another TensorFlow than that which it was built for."""


def install(folder: Path, patch: pytest.MonkeyPatch, body: str) -> None:
    """Puts them before what is installed, with this body of the op."""
    for name, text in (("tensorflow", _TENSORFLOW), ("tensorflow_io", _TENSORFLOW_IO.replace("{body}", body))):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    patch.syspath_prepend(str(folder))
