"""Whether this environment can resample as asked: found out before anything is read or sent."""

from __future__ import annotations

import os
import subprocess
import sys

from audio.decoder_process import child_command, child_environment, status_name
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
    except OSError as error:
        why = f"no process can be started that tries it ({os.strerror(error.errno or 0)})"
    else:
        if done.returncode == 0:
            return
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if done.returncode == 1 and said else f"it ends its process ({status_name(done.returncode)})"
    raise UsageError(
        f"--resampler is {resampler!r}, but that does not work with {sys.executable}: {why}. Expected the environment of "
        "requirements-tfio.txt: run make tfio, and then .venv-tfio/bin/python -m pipeline; or choose soxr"
    )
