"""Whether this environment can resample as asked: found out before anything is read or sent."""

from __future__ import annotations

import signal
import subprocess
import sys

from audio.decoder_process import child_command, child_environment
from audio.resample import ResamplerName
from pipeline.usage import UsageError

_PATIENCE_S = 120
"""A first import of TensorFlow from a slow disk may take a minute."""


def check_resampler(resampler: ResamplerName) -> None:
    """Resamples a tone with it, as decoders would, in a process of its own. Raises UsageError where that fails."""
    if resampler == "soxr":  # which is always there
        return
    try:
        done = subprocess.run(
            child_command("audio.tensorflow_resampler"),
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"no tone was resampled within {_PATIENCE_S} s"
    else:
        if done.returncode == 0:
            return
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        ended = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
        why = lines[-1] if lines and done.returncode > 0 else f"the process that tried ended with {ended}"
    raise UsageError(
        f"--resampler is {resampler!r}, but that does not work with {sys.executable}: {why}. Expected the environment of "
        "requirements-tfio.txt: run make tfio, and then .venv-tfio/bin/python -m pipeline; or choose soxr"
    )
