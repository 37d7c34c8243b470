"""PyAV is an extra: without it, what libsndfile reads is still read, and the rest says what to install."""

import sys

import pytest

from tests.audio.makers import Embedded, encode, noise, wav


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself says that a module cannot be imported.
    monkeypatch.setitem(sys.modules, "av", None)


OPUS = encode(noise(48_000), 48_000, "ogg", "libopus")
M4A = encode(noise(48_000), 48_000, "ipod", "aac")


@pytest.mark.usefixtures("without_pyav")
def test_libsndfile_reads_what_it_can() -> None:
    assert Embedded(wav(noise(16_000))).code is None
    made = Embedded(OPUS)
    assert (made.code, made.info.codec, made.info.decoder, made.info.duration_s) == (None, "opus", "libsndfile", 1)


@pytest.mark.usefixtures("without_pyav")
def test_the_rest_says_what_to_install() -> None:
    made = Embedded(M4A)
    assert made.code == "unsupported_format"
    assert "pip install 'hear-pipeline[formats]'" in made.message
