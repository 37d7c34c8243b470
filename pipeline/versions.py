"""Versions of what makes the samples: they belong into every summary."""

from __future__ import annotations

from importlib import metadata


def versions() -> dict[str, str]:
    """Versions of the decoders, the resampler and the pipeline's main parts, by name."""
    import soundfile

    found = {name: metadata.version(name) for name in ("apache-beam", "numpy", "soundfile", "soxr")}
    found["libsndfile"] = soundfile.__libsndfile_version__
    try:
        import av
    except ImportError:
        return found
    found["av"] = av.__version__
    return found | {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
