"""Where the shared real recordings are, for the tests that need them."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "audio"

SHARED_AUDIO: Path | None = _BESIDE if (_BESIDE / "manifest.csv").is_file() else None
"""The folder of real recordings beside this checkout, or None where there is none."""

needs_shared_audio = pytest.mark.skipif(
    SHARED_AUDIO is None, reason="needs the real recordings of shared/audio beside the checkout"
)


def every(number: int) -> int:
    """The step by which real recordings are taken: `number`, or 1 if REFERENCE is `all`."""
    return 1 if os.environ.get("REFERENCE") == "all" else number


def health_recordings(step: int = 1) -> list[Path]:
    """Each `step`-th of the real health recordings, which there must be."""
    assert SHARED_AUDIO is not None
    return sorted(path for path in (SHARED_AUDIO / "health").rglob("*") if path.is_file())[::step]
