"""Where the shared real recordings are, for the tests that need them."""

from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "audio"

SHARED_AUDIO: Path | None = _BESIDE if (_BESIDE / "manifest.csv").is_file() else None
"""The folder of real recordings beside this checkout, or None where there is none."""

needs_shared_audio = pytest.mark.skipif(
    SHARED_AUDIO is None, reason="needs the real recordings of shared/audio beside the checkout"
)
