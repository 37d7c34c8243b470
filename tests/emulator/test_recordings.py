"""The sample recordings: what their names and formats promise, and the same files each time."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from emulator import recordings, sounds
from emulator.ogg import with_serial_number
from emulator.recordings import SAMPLES, main, write_recordings

CODECS = {
    "PCM_16": "pcm_s16le",
    "PCM_24": "pcm_s24le",
    "MPEG_LAYER_III": "mp3float",
    "VORBIS": "vorbis",
    "libopus": "opus",
    "libopencore_amrnb": "amrnb",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "made"
    assert set(write_recordings(folder).values()) == {"written"}
    return folder


def test_there_is_a_range_of_them(folder: Path) -> None:
    names = [path.name for path in sorted(folder.iterdir())]
    assert 10 <= len(names) <= 14
    assert all(name.startswith("synthetic-") for name in names)
    assert {Path(name).suffix for name in names} == {".wav", ".flac", ".ogg", ".mp3", ".m4a", ".webm", ".3gp"}
    assert sum(sample.duration_s for sample in SAMPLES) < 120


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_each_decodes_to_what_it_was_made_of(folder: Path, sample: recordings.Sample) -> None:
    with av.open(str(folder / sample.name)) as container:
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        codec, rate_hz = stream.codec_context, stream.rate
        assert codec.channels == sample.channels
        assert rate_hz == sample.rate_hz
        if sample.name.endswith(".flac"):
            assert codec.name == "flac"
        else:
            assert codec.name == CODECS.get(sample.codec, sample.codec)
        samples = sum(block.size for block in blocks) // sample.channels
    assert samples / rate_hz == pytest.approx(sample.duration_s * sample.kept, abs=0.05)
    assert (max(np.abs(block).max() for block in blocks) > 0) == (sample.sound is not sounds.silence)


def test_the_damaged_one_claims_more_than_it_holds(folder: Path) -> None:
    path = folder / "synthetic-cough-cut-short.wav"
    with wave.open(str(path)) as header:
        assert header.getnframes() == 5 * 44100
    assert path.stat().st_size < 0.7 * 2 * header.getnframes()


def test_a_second_time_nothing_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert main([str(folder)]) == 0
    assert f"0 synthesised recordings written to {folder}, {len(SAMPLES)} there already" in capsys.readouterr().out
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_a_format_without_encoder_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = recordings.Sample("synthetic-x.3gp", 8000, 1.0, sounds.silence, "nonesuch")
    monkeypatch.setattr(recordings, "SAMPLES", (missing,))
    assert main([str(tmp_path)]) == 0
    assert "synthetic-x.3gp left out: this FFmpeg has no encoder nonesuch" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file" / "folder")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_an_ogg_with_its_own_serial_number_is_unchanged(tmp_path: Path) -> None:
    """libsndfile wrote its checksums itself: ours must come out the same."""
    path = tmp_path / "x.ogg"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(20000), 16000, format="OGG", subtype="VORBIS")
    data = path.read_bytes()
    assert with_serial_number(data, int.from_bytes(data[14:18], "little")) == data


@pytest.mark.parametrize("make", [sounds.coughing, sounds.breathing, sounds.night])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_sounds_have_their_length_and_do_not_clip(make, rate_hz: int) -> None:
    sound = make(rate_hz, 2.5, np.random.default_rng(0))
    assert len(sound) == 2.5 * rate_hz
    assert 0.02 < np.abs(sound).max() < 1.0
    assert np.array_equal(sound, make(rate_hz, 2.5, np.random.default_rng(0)))
