"""Versions of what makes the samples: they belong into every summary."""

from __future__ import annotations

import contextlib
from importlib import metadata

from audio.resample import ResamplerName

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-io")


def versions(resampler: ResamplerName = "soxr") -> dict[str, str]:
    """Versions of the decoders, the resampler and the pipeline's main parts, by name."""
    import soundfile

    found = {name: metadata.version(name) for name in ("apache-beam", "numpy", "soundfile")}
    for name in ("soxr",) if resampler == "soxr" else _TENSORFLOW:
        # TensorFlow is known by two names, and may be where the workers are alone.
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    found["libsndfile"] = soundfile.__libsndfile_version__
    try:
        import av
    except ImportError:
        return found
    found["av"] = av.__version__
    return found | {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
