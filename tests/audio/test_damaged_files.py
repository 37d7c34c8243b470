"""Headers that lie, files that end early, and files that are no sound at all."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pytest

from tests.audio.makers import RATE_HZ, Embedded, encode, fmt, int16, noise, riff, sound_file, wav

SAMPLES = noise(5 * RATE_HZ)
WAV = wav(SAMPLES)
DATA = int16(SAMPLES).tobytes()


def whole_clips(made: Embedded) -> list[tuple[int, int]]:
    return [(clip.start_sample, clip.audio_samples) for clip in made.clips]


def test_no_bytes() -> None:
    made = Embedded(b"")
    assert made.code == "empty_file"
    assert made.stream.info is None


def test_a_header_without_samples() -> None:
    made = Embedded(wav(SAMPLES[:0]))
    assert made.code == "no_audio"
    assert made.results == []


def test_a_header_that_claims_samples_and_has_none() -> None:
    made = Embedded(WAV[:44])
    assert made.code == "no_audio"
    assert "announces 160000 bytes, and 0 are there" in made.message


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_truncated_pcm_gives_its_whole_clips(container: str) -> None:
    data = sound_file(int16(SAMPLES), RATE_HZ, container, "PCM_16")
    assert Embedded(data).code is None
    cut = Embedded(data[: len(data) - 40_000])
    assert whole_clips(cut) == [(0, 32_000)]
    assert cut.code == "truncated"
    assert cut.stream.error_s == pytest.approx(3.75, abs=0.01)
    assert "announces 160000 bytes" in cut.message
    np.testing.assert_array_equal(cut.clips[0].samples, int16(SAMPLES)[:32_000, 0] / np.float32(32_768))


def test_a_file_cut_inside_a_frame() -> None:
    stereo = Embedded(wav(noise(40_000, 2))[:-3])
    assert stereo.code == "truncated"
    assert stereo.info.duration_s == 39_999 / RATE_HZ


@pytest.mark.parametrize("container", ["FLAC", "MP3", "OGG"])
def test_truncated_compressed_files(container: str) -> None:
    data = sound_file(noise(10 * 44_100), 44_100, container)
    cut = Embedded(data[: len(data) * 6 // 10])
    assert cut.code == "truncated"
    assert cut.stream.error_s is not None
    assert 4 < cut.stream.error_s < 7
    assert {clip.audio_samples for clip in cut.clips} == {32_000}
    assert len(cut.clips) == int(cut.stream.error_s / 2)


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "pcm_s16le"), ("avi", "pcm_s16le")])
def test_truncated_containers(container: str, codec: str) -> None:
    data = encode(noise(10 * 48_000), 48_000, container, codec)
    assert Embedded(data).code is None
    cut = Embedded(data[: len(data) * 6 // 10])
    assert cut.code == "truncated"
    assert {clip.audio_samples for clip in cut.clips} == {32_000}
    assert len(cut.clips) in (2, 3)


def test_truncated_mp4_with_its_index_first() -> None:
    data = encode(noise(10 * 44_100), 44_100, "mp4", "aac", {"movflags": "faststart"})
    cut = Embedded(data[: len(data) * 6 // 10])
    assert cut.code == "truncated"
    assert len(cut.clips) in (2, 3)


def test_an_mp4_without_its_index_has_no_audio_but_a_reason() -> None:
    data = encode(noise(10 * 44_100), 44_100, "mp4", "aac")
    cut = Embedded(data[: len(data) * 6 // 10])
    assert (cut.code, cut.results) == ("truncated", [])
    moov = data.index(b"moov") - 4
    unfinished = Embedded(data[:moov])
    assert unfinished.code == "truncated"
    assert "index (moov) is missing" in unfinished.message


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0xFFFF_FFFF - 36, 0x7FFF_F000, 0x8000_0000, 0x7FFF_0000])
def test_a_size_that_stands_for_unknown_is_no_truncation(size: int) -> None:
    made = Embedded(wav(SAMPLES, data_size=size))
    assert made.code is None
    assert made.info.duration_s == 5


def test_a_recorder_that_died_leaves_a_data_size_of_0_and_all_its_audio() -> None:
    made = Embedded(wav(SAMPLES, data_size=0))
    assert made.code is None
    assert made.info.decoder == "ffmpeg"
    np.testing.assert_array_equal(made.joined(), int16(SAMPLES)[:, 0] / np.float32(32_768))


def test_an_au_of_unknown_size() -> None:
    data = sound_file(SAMPLES, RATE_HZ, "AU", "PCM_16")
    made = Embedded(data[:8] + b"\xff" * 4 + data[12:])
    assert made.code is None
    assert made.info.duration_s == 5


def test_a_flac_that_claims_too_many_samples_reads_in_full() -> None:
    data = bytearray(sound_file(SAMPLES, RATE_HZ, "FLAC"))
    for claimed in ((1 << 36) - 1, 0):
        data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36 | claimed).to_bytes(8, "big")
        made = Embedded(bytes(data))
        assert made.code is None
        assert made.info.duration_s == 5
        np.testing.assert_allclose(made.joined(), SAMPLES[:, 0], atol=2 / 32_768)


def test_a_flac_that_claims_too_few_samples_reads_in_full() -> None:
    data = bytearray(sound_file(SAMPLES, RATE_HZ, "FLAC"))
    data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36 | 20_000).to_bytes(8, "big")
    made = Embedded(bytes(data))
    assert made.code is None
    np.testing.assert_allclose(made.joined(), SAMPLES[:, 0], atol=2 / 32_768)


def test_a_flac_written_to_a_pipe_reads_in_full() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    import av

    out = Pipe()
    with av.open(out, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(int16(SAMPLES).T, "s16", "mono")
        frame.sample_rate = RATE_HZ
        file.mux([*stream.encode(frame), *stream.encode(None)])
    made = Embedded(out.getvalue())
    assert (made.code, made.info.duration_s) == (None, 5)


def test_a_flac_with_a_damaged_middle_goes_on_where_the_other_decoder_can() -> None:
    data = bytearray(sound_file(noise(20 * RATE_HZ), RATE_HZ, "FLAC"))
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    made = Embedded(bytes(data))
    assert made.code == "damaged"
    assert made.info.decoder == "ffmpeg"
    assert made.info.duration_s == 20
    assert made.info.gaps == 1


@pytest.mark.parametrize(
    ("rate_hz", "channels", "code", "named"),
    [
        (0, 1, "unsupported_rate", "0 Hz"),
        (1, 1, "unsupported_rate", "1 Hz"),
        (999, 1, "unsupported_rate", "999 Hz"),
        (768_001, 1, "unsupported_rate", "768001 Hz"),
        (0xFFFF_FFFF, 1, "unsupported_rate", "4294967295 Hz"),
        (16_000, 0, "unsupported_channels", "0 channels"),
        (16_000, 65, "unsupported_channels", "65 channels"),
        (16_000, 1_000, "unsupported_channels", "1000 channels"),
        (16_000, 65_535, "unsupported_channels", "65535 channels"),
    ],
)
def test_absurd_headers(rate_hz: int, channels: int, code: str, named: str) -> None:
    made = Embedded(riff(fmt(rate_hz, channels), (b"data", DATA)))
    assert made.code == code
    assert named in made.message


@pytest.mark.parametrize("rate_hz", [1_000, 768_000])
def test_extreme_rates_that_are_read(rate_hz: int) -> None:
    made = Embedded(wav(noise(rate_hz * 2), rate_hz))
    assert made.code is None
    assert len(made.clips) == 1


@pytest.mark.parametrize(
    "data",
    [
        riff((b"JUNK", bytes(99)), fmt(), (b"data", DATA)),
        riff(*[(b"JUNK", b"x" * 4)] * 2_000, fmt(), (b"data", DATA)),
        riff((b"LIST", b"INFOIART" + bytes(8)), fmt(), (b"data", DATA), (b"LIST", b"INFO" + bytes(64))),
        WAV + np.random.default_rng(1).bytes(2_000),
        riff(fmt(), (b"data", DATA), size=36),
    ],
    ids=["junk chunk", "2000 chunks", "lists", "trailing junk", "wrong RIFF size"],
)
def test_odd_but_whole_wav_files(data: bytes) -> None:
    made = Embedded(data)
    assert made.code is None
    assert made.info.duration_s == 5


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML"),
        (json.dumps({"error": {"code": 404}}).encode(), "JSON"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "XML"),
        (gzip.compress(WAV), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"),
        ("кашель, 3 раза\n".encode() * 500, "plain text"),
        (bytes(65_536), "zero bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
        (b"%PDF-1.7\n\xff" + bytes(100), "PDF"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(100), "AppleDouble"),
    ],
)
def test_what_is_not_audio_says_what_it_looks_like(data: bytes, looks_like: str) -> None:
    made = Embedded(data)
    assert made.code == "not_audio"
    assert looks_like in made.message


def test_a_zip() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.wav", WAV)
    assert Embedded(out.getvalue()).code == "not_audio"


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_are_not_audio(seed: int) -> None:
    made = Embedded(np.random.default_rng(seed).bytes(20_000))
    assert made.code == "not_audio"
    assert made.results == []


@pytest.mark.parametrize("size", [1, 4, 12, 20, 40])
def test_pieces_of_a_header(size: int) -> None:
    made = Embedded(WAV[:size])
    assert made.code == ("not_audio" if size < 12 else "damaged")
    assert made.results == []


def test_an_unknown_codec_in_a_wav() -> None:
    made = Embedded(riff(fmt(tag=0x7777), (b"data", DATA)))
    assert made.code == "unsupported_format"


def test_video_without_sound() -> None:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        file.mux([*stream.encode(frame), *stream.encode(None)])
    made = Embedded(out.getvalue())
    assert made.code == "no_audio_stream"
    assert "video" in made.message


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_end_as_clips_or_as_an_error_with_a_reason(seed: int) -> None:
    random = np.random.default_rng(seed)
    kinds = (
        lambda: WAV[:40_000],
        lambda: sound_file(SAMPLES[:20_000], RATE_HZ, ("FLAC", "OGG", "MP3", "AIFF")[seed % 4]),
        lambda: encode(SAMPLES[:20_000], RATE_HZ, "mp4", "aac"),
        lambda: encode(noise(48_000), 48_000, "webm", "libopus"),
    )
    data = bytearray(kinds[seed % len(kinds)]())
    for place in random.integers(0, len(data), 12):
        data[place] = random.integers(256)
    made = Embedded(bytes(data))
    if made.stream.error is None:
        assert made.results
    else:
        assert made.code != "decoder_error"
        assert made.message


def test_a_size_field_of_any_value_is_survived() -> None:
    for size in (1, 2, 3, 1 << 16, (1 << 31) - 1, 0xFFFF_FFF0):
        at = WAV.index(b"data") + 4
        made = Embedded(WAV[:at] + struct.pack("<I", size) + WAV[at + 4 :])
        assert made.results or made.code
