"""Every format: what it is called, that its samples are right, and that its times are the recording's own."""

import io
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr

from tests.audio.makers import Embedded, encode, int16, noise, sound_file, wav

CLICKS_S = (0.5, 1.2, 2.7, 4.1)


def click(rate_hz: int) -> np.ndarray:
    return 0.8 * np.sin(2 * np.pi * 1_000 * np.arange(round(rate_hz * 0.004)) / rate_hz)


def click_track(rate_hz: int, channels: int = 1) -> np.ndarray:
    track = np.zeros((5 * rate_hz, channels), np.float32)
    for at in CLICKS_S:
        track[round(at * rate_hz) : round(at * rate_hz) + len(click(rate_hz))] = click(rate_hz)[:, None]
    return track


def offsets_ms(made: Embedded) -> list[float]:
    """How much later than in the original each click is."""
    samples = np.concatenate([np.zeros(1_600, np.float32), made.joined(), np.zeros(1_600, np.float32)])
    offsets = []
    for at in CLICKS_S:
        around = samples[round(at * 16_000) : round(at * 16_000) + 3_200 + 64]
        offsets.append((int(np.argmax(np.correlate(around, click(16_000)))) - 1_600) / 16)
    return offsets


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "muxing"),
    [
        ("ipod", "aac", 44_100, {}),
        ("mp4", "aac", 16_000, {}),
        ("mp4", "aac", 48_000, {"movflags": "faststart"}),
        ("mov", "alac", 44_100, {}),
        ("mp4", "libopus", 48_000, {}),
        ("webm", "libopus", 48_000, {}),
        ("webm", "libopus", 48_000, {"live": "1"}),
        ("ogg", "libopus", 48_000, {}),
        ("mp3", "libmp3lame", 44_100, {}),
        ("mp3", "libmp3lame", 16_000, {}),
        ("mp4", "libmp3lame", 44_100, {}),
        ("matroska", "libmp3lame", 44_100, {}),
        ("matroska", "aac", 44_100, {}),
        ("ogg", "flac", 44_100, {}),
        ("caf", "adpcm_ima_qt", 16_000, {}),
        ("tta", "tta", 16_000, {}),
    ],
)
def test_times_are_the_recordings_own(container: str, codec: str, rate_hz: int, muxing: dict[str, str]) -> None:
    made = Embedded(encode(click_track(rate_hz), rate_hz, container, codec, muxing), min_audio_s=0)
    assert made.code is None
    assert max(map(abs, offsets_ms(made))) <= 1
    assert made.info.duration_s == pytest.approx(5, abs=0.03)
    assert made.info.gaps == 0


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_times_of_vorbis(container: str) -> None:
    made = Embedded(encode(click_track(44_100, 2), 44_100, container, "vorbis"), min_audio_s=0)
    assert max(map(abs, offsets_ms(made))) <= 1


@pytest.mark.parametrize(("container", "rate_hz"), [("mp4", 44_100), ("ipod", 8_000)])
def test_padding_of_aac_is_taken_away_at_both_ends(container: str, rate_hz: int) -> None:
    assert Embedded(encode(noise(rate_hz * 3 + 17), rate_hz, container, "aac")).info.duration_s == 3 + 17 / rate_hz


def test_opus_has_its_length_and_48_khz() -> None:
    for container in ("ogg", "webm", "mp4"):
        made = Embedded(encode(noise(48_000 * 3), 48_000, container, "libopus"))
        assert (made.info.codec, made.info.source_rate_hz, made.info.decoder) == ("opus", 48_000, "ffmpeg")
        assert made.info.duration_s == pytest.approx(3, abs=0.001)


@pytest.mark.parametrize(
    ("container", "subtype", "endian", "names"),
    [
        ("WAV", "PCM_16", None, ("wav", "pcm_s16le")),
        ("WAV", "PCM_16", "BIG", ("wav", "pcm_s16be")),
        ("WAVEX", "PCM_24", None, ("wav", "pcm_s24le")),
        ("WAV", "PCM_32", None, ("wav", "pcm_s32le")),
        ("WAV", "PCM_U8", None, ("wav", "pcm_u8")),
        ("WAV", "FLOAT", None, ("wav", "pcm_f32le")),
        ("WAV", "DOUBLE", None, ("wav", "pcm_f64le")),
        ("WAV", "ULAW", None, ("wav", "pcm_mulaw")),
        ("WAV", "ALAW", None, ("wav", "pcm_alaw")),
        ("WAV", "MS_ADPCM", None, ("wav", "adpcm_ms")),
        ("WAV", "IMA_ADPCM", None, ("wav", "adpcm_ima_wav")),
        ("WAV", "GSM610", None, ("wav", "gsm_ms")),
        ("RF64", "PCM_16", None, ("wav", "pcm_s16le")),
        ("W64", "PCM_16", None, ("w64", "pcm_s16le")),
        ("AIFF", "PCM_16", None, ("aiff", "pcm_s16be")),
        ("AIFF", "PCM_16", "LITTLE", ("aiff", "pcm_s16le")),
        ("AIFF", "PCM_S8", None, ("aiff", "pcm_s8")),
        ("AU", "PCM_16", None, ("au", "pcm_s16be")),
        ("AU", "ULAW", None, ("au", "pcm_mulaw")),
        ("CAF", "PCM_24", None, ("caf", "pcm_s24be")),
        ("FLAC", "PCM_16", None, ("flac", "flac")),
        ("FLAC", "PCM_24", None, ("flac", "flac")),
        ("OGG", "VORBIS", None, ("ogg", "vorbis")),
        ("MP3", "MPEG_LAYER_III", None, ("mp3", "mp3")),
    ],
)
def test_names_and_samples_of_what_libsndfile_reads(
    container: str, subtype: str, endian: str | None, names: tuple[str, str]
) -> None:
    data = sound_file(noise(16_000), 16_000, container, subtype, endian)
    made = Embedded(data)
    assert (made.info.container, made.info.codec, made.info.decoder) == (*names, "libsndfile")
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    # Exact, but for MP3: soundfile.read seeks first, which changes libmpg123's rounding.
    np.testing.assert_allclose(made.joined(), whole, rtol=0, atol=1e-7 if container == "MP3" else 0)


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "names"),
    [
        ("ipod", "aac", 16_000, ("mp4", "aac")),
        ("mov", "alac", 16_000, ("mp4", "alac")),
        ("matroska", "pcm_s16le", 16_000, ("matroska", "pcm_s16le")),
        ("matroska", "pcm_s24le", 16_000, ("matroska", "pcm_s24le")),
        ("matroska", "pcm_u8", 16_000, ("matroska", "pcm_u8")),
        ("matroska", "pcm_f64le", 16_000, ("matroska", "pcm_f64le")),
        ("wav", "pcm_s64le", 16_000, ("wav", "pcm_s64le")),
        ("caf", "adpcm_ima_qt", 16_000, ("caf", "adpcm_ima_qt")),
        ("avi", "pcm_s16le", 16_000, ("avi", "pcm_s16le")),
        ("mpegts", "aac", 16_000, ("mpegts", "aac")),
        ("adts", "aac", 16_000, ("aac", "aac")),
        ("ac3", "ac3", 48_000, ("ac3", "ac3")),
        ("amr", "libopencore_amrnb", 8_000, ("amr", "amr_nb")),
        ("3gp", "libopencore_amrnb", 8_000, ("mp4", "amr_nb")),
    ],
)
def test_names_and_samples_of_what_ffmpeg_reads(
    container: str, codec: str, rate_hz: int, names: tuple[str, str]
) -> None:
    data = encode(noise(2 * rate_hz), rate_hz, container, codec)
    made = Embedded(data)
    assert (made.info.container, made.info.codec, made.info.decoder) == (*names, "ffmpeg")
    assert made.code is None
    # FFmpeg's frames hold the encoder's padding, which is heard in the filter's last samples.
    length = len(made.joined()) - 1_000
    np.testing.assert_allclose(made.joined()[:length], ffmpeg_reference(data)[:length], atol=1e-6)


def ffmpeg_reference(data: bytes) -> np.ndarray:
    """Every frame's samples end to end, converted by FFmpeg itself, resampled at once."""
    with av.open(io.BytesIO(data)) as file:
        rate_hz = file.streams.audio[0].rate
        convert = av.AudioResampler(
            "dbl" if "s64" in file.streams.audio[0].codec_context.name else "flt", "mono", rate_hz
        )
        parts: list[Any] = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in convert.resample(frame)]
    whole = np.concatenate(parts).astype(np.float32)
    return whole if rate_hz == 16_000 else soxr.resample(whole, rate_hz, 16_000)


def test_stereo_of_every_layout_of_samples() -> None:
    samples = int16(noise(16_000, 2)) / np.float32(32_768)
    for container, codec in (
        ("matroska", "pcm_s16le"),
        ("mov", "alac"),
        ("matroska", "pcm_f32le"),
        ("matroska", "flac"),
    ):
        made = Embedded(encode(samples, 16_000, container, codec), channel="each")
        for channel, clip in enumerate(made.clips):
            np.testing.assert_allclose(clip.samples[:16_000], samples[:, channel], atol=1.1 / 32_768)


def test_files_are_known_by_content_and_read_from_objects_without_a_name() -> None:
    class Named(io.BytesIO):
        name = "recording.raw"

    from audio.clips import ClipSettings, open_clips

    stream = open_clips(Named(wav(noise(20_000))), ClipSettings())
    assert len(list(stream)) == 1
    assert stream.error is None


def test_chained_opus_is_read_to_its_end() -> None:
    one = encode(click_track(48_000), 48_000, "ogg", "libopus")
    other = bytearray(encode(click_track(48_000), 48_000, "ogg", "libopus"))
    made = Embedded(one + bytes(other))
    assert made.info.duration_s == pytest.approx(10, abs=0.01)
    assert made.code is None


def test_chained_streams_of_different_rates_say_so() -> None:
    one, other = (sound_file(noise(3 * rate), rate, "OGG", "VORBIS") for rate in (44_100, 8_000))
    made = Embedded(one + other)
    assert made.code == "damaged"
    assert "another form" in made.message
    assert len(made.clips) == 1


def test_an_mp3_of_varying_bit_rate_without_a_count_is_read_to_its_end() -> None:
    loud_then_silent = np.concatenate([noise(44_100 * 3, level=0.3), np.zeros((44_100 * 12, 1), np.float32)])
    data = encode(
        loud_then_silent, 44_100, "mp3", "libmp3lame", {"write_xing": "0"}, flags="+qscale", global_quality="236"
    )
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.frames < 10 * 44_100  # its guess, at which libsndfile stops
    made = Embedded(data)
    assert made.code is None
    assert made.info.duration_s == pytest.approx(15, abs=0.1)


def test_mp3s_joined_end_to_end_are_read_to_their_end() -> None:
    data = encode(noise(44_100 * 5), 44_100, "mp3", "libmp3lame")
    made = Embedded(data + data)
    assert made.info.duration_s == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize(
    "before",
    [
        bytes(5_000),
        b"ID3\x03\x00\x00" + bytes([0, 1, 28, 42]) + b"APIC\x00\x00N \x00\x00" + b"\xff\xfb\x90\x00" * 5_000,
        b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f",
        b"rubbish" * 10,
    ],
    ids=["zeros", "false sync words in a cover", "a tag that claims 256 MiB", "rubbish"],
)
def test_mp3s_with_something_before_their_first_frame(before: bytes) -> None:
    tagged = encode(click_track(44_100), 44_100, "mp3", "libmp3lame", {"id3v2_version": "0", "write_id3v1": "0"})
    bare = tagged[tagged.index(b"\xff\xfb") :]
    made = Embedded(before + bare, min_audio_s=0)
    assert made.code is None
    assert max(map(abs, offsets_ms(made))) <= 1


def test_metadata_that_is_not_utf_8_does_no_harm() -> None:
    data = encode(noise(16_000), 16_000, "ipod", "aac")
    assert Embedded(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc")).code is None
