import re
import sys
from importlib import metadata

import numpy as np
import pytest
import soundfile

from pipeline.versions import versions


def test_decoders_and_resampler_are_named_with_their_versions() -> None:
    found = versions()
    assert found["libsndfile"] == soundfile.__libsndfile_version__
    assert found["numpy"] == np.__version__
    assert found["soxr"] == metadata.version("soxr")
    assert {"apache-beam", "soundfile", "av", "libavcodec", "libavformat"} <= set(found)
    for name, version in found.items():
        assert re.match(r"\d+\.\d+", version), name


def test_without_pyav_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    found = versions()
    assert "av" not in found
    assert "libsndfile" in found
