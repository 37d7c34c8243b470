"""The real recordings: every healthy one decodes in full, every odd or broken one ends with clips or a reason."""

import csv
import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from audio.clips import ClipSettings, open_clips
from tests.audio.makers import Embedded
from tests.recordings import SHARED_AUDIO, needs_shared_audio

pytestmark = needs_shared_audio


def rows(kind: str) -> list[dict[str, str]]:
    if SHARED_AUDIO is None:
        return []
    with (SHARED_AUDIO / "manifest.csv").open(newline="") as manifest:
        return [row for row in csv.DictReader(manifest) if row["kind"] == kind]


def read(row: dict[str, str]) -> bytes:
    assert SHARED_AUDIO is not None
    return (SHARED_AUDIO / row["path"]).read_bytes()


def decoded_at_once(data: bytes, by_libsndfile: bool) -> tuple[np.ndarray, int]:
    """The whole recording as one array, mixed to mono, without this project's code."""
    if by_libsndfile:
        samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        return samples.mean(axis=1), rate_hz
    with av.open(io.BytesIO(data), metadata_errors="ignore") as file:
        rate_hz = file.streams.audio[0].rate
        convert = av.AudioResampler("flt", "mono", rate_hz)
        frames = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in convert.resample(frame)]
    return np.concatenate(frames), rate_hz


def test_every_healthy_recording_equals_its_decoding_at_once() -> None:
    for row in rows("health"):
        data = read(row)
        made = Embedded(data, min_audio_s=0)
        assert made.stream.error is None, row["path"]
        assert made.info.gaps == 0, row["path"]
        samples, rate_hz = decoded_at_once(data, made.info.decoder == "libsndfile")
        whole = soxr.resample(samples, rate_hz, 16_000, quality="HQ") if rate_hz != 16_000 else samples
        np.testing.assert_allclose(made.joined(), whole, atol=1e-6, err_msg=row["path"])
        assert round(made.info.duration_s * made.info.source_rate_hz) == int(row["frames"]), row["path"]


@pytest.mark.parametrize(
    "settings", [{}, {"channel": "each", "hop_s": 0.5, "tail": "shift"}], ids=["plain", "overlapping"]
)
def test_every_odd_or_broken_recording_ends_with_clips_or_with_a_reason(settings: dict[str, str]) -> None:
    for row in rows("zoo"):
        made = Embedded(read(row), **settings)
        assert made.results or made.code, row["path"]
        assert made.code != "decoder_error", row["path"]
        if made.code is not None:
            assert len(made.message) > 30, row["path"]
        for clip in made.clips:
            assert np.isfinite(clip.samples).all(), row["path"]


@pytest.mark.parametrize(
    ("file", "code", "clips"),
    [
        ("derived/flac_claims_2e36_samples.flac", None, 1),
        ("derived/flac_streamed_no_length.flac", None, 1),
        ("derived/mp3_leading_zeros.mp3", None, 1),
        ("derived/mp3_apple_art.mp3", None, 1),
        ("derived/mp3_id3_claims_256MB.mp3", None, 1),
        ("derived/data_size_zero_with_data.wav", None, 1),
        ("derived/opus_chained.opus", None, 1),
        ("derived/claims_4GiB.wav", None, 1),
        ("derived/truncated_mid_data.wav", "truncated", 0),
        ("derived/aac_lc_truncated.m4a", "truncated", 0),
        ("derived/vorbis_chained_rates.ogg", "damaged", 0),
        ("derived/float_one_nan.wav", None, 0),
        ("derived/header_only_44.wav", "no_audio", 0),
        ("derived/video_no_audio.mp4", "no_audio_stream", 0),
        ("derived/html_error_page.wav", "not_audio", 0),
        ("derived/git_lfs_pointer.wav", "not_audio", 0),
        ("derived/channels_65535.wav", "unsupported_channels", 0),
        ("derived/rate_4294967295.wav", "unsupported_rate", 0),
        ("flac-test-files/faulty__01 - wrong max blocksize.flac", None, 2),
        ("flac-test-files/uncommon__02 - increasing number of channels.flac", "damaged", 1),
        ("donateacry-oddities/F15D825B-F861-410B-ACC9-9863C8949217-1427012078-1.0-m-04-ti.caf", None, 1),
    ],
)
def test_some_of_them_in_detail(file: str, code: str | None, clips: int) -> None:
    assert SHARED_AUDIO is not None
    made = Embedded((SHARED_AUDIO / "zoo" / file).read_bytes())
    assert (made.code, len(made.clips)) == (code, clips)


@pytest.mark.parametrize(
    "wrong", ["really_m4a.wav", "really_webm.wav", "really_mp3.wav", "really_3gp.wav", "no_extension"]
)
def test_names_decide_nothing(wrong: str) -> None:
    assert SHARED_AUDIO is not None
    with (SHARED_AUDIO / "zoo" / "derived" / wrong).open("rb") as file:
        stream = open_clips(file, ClipSettings())
        assert len(list(stream)) == 1
        assert stream.error is None


def test_a_long_recording_is_read_to_its_end() -> None:
    assert SHARED_AUDIO is not None
    path = Path(SHARED_AUDIO / "long" / "12min_16k_mono.wav")
    with path.open("rb") as file:
        stream = open_clips(file, ClipSettings())
        assert sum(1 for _ in stream) == 360
    assert stream.error is None
