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


def test_another_resampler_is_named_instead_of_soxr_if_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    there = {"tensorflow-cpu": "2.17.1", "tensorflow-io": "0.37.1"}

    def version(name: str) -> str:
        if name == "tensorflow":
            raise metadata.PackageNotFoundError(name)
        return there.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = versions("tensorflow_io")
    assert there.items() <= found.items()
    assert "soxr" not in found
    assert "tensorflow" not in found
    assert not there.keys() & versions().keys()


def test_without_pyav_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    found = versions()
    assert "av" not in found
    assert "libsndfile" in found
