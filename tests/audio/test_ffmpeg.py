"""What FFmpeg may open, where frames go in time, and what becomes of packets that cannot be decoded."""

import io
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audio.errors import FormatNotAllowed
from audio.ffmpeg import FfmpegSource
from audio.reader import Reader
from audio.source import CannotDecode
from tests.audio.makers import AMR_COMFORT_NOISE, AMR_NO_DATA, Embedded, amr, amr_speech, encode, noise, wav


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A loopback port, and everybody who ever connected to it."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                visitors.append(address)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], visitors
        stop.set()
        thread.join()


def scripts(port: int, canary: Path) -> dict[str, bytes]:
    return {
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{canary}'\n".encode(),
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXTINF:9,\nfile://{canary}\n"
        "#EXT-X-ENDLIST\n".encode(),
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>'
        f"http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>".encode(),
        "srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n",
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde",
    }


@pytest.mark.parametrize("kind", ["sdp", "ffconcat", "m3u8", "mpd", "srt", "png"])
def test_a_script_posing_as_a_recording_opens_nothing(
    kind: str, listener: tuple[int, list[object]], tmp_path: Path
) -> None:
    port, visitors = listener
    canary = tmp_path / "canary.wav"
    canary.write_bytes(wav(noise(16_000)))
    opened: list[str] = []
    watching = True
    # An audit hook sees what Python opens and cannot be removed again; what C opens would show as clips or visitors.
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None)
    data = scripts(port, canary)[kind]
    made = Embedded(data)
    assert made.code in ("not_audio", "format_not_allowed")
    assert made.results == []
    with pytest.raises((FormatNotAllowed, CannotDecode)):
        FfmpegSource(Reader(io.BytesIO(data)))
    watching = False
    assert str(canary) not in opened
    assert visitors == []


def test_an_mp4_cannot_refer_to_another_file(tmp_path: Path) -> None:
    canary = tmp_path / "canary.wav"
    canary.write_bytes(wav(noise(16_000)))
    data = encode(noise(16_000), 16_000, "mov", "pcm_s16le")
    self_reference = b"url \x00\x00\x00\x01"
    assert self_reference in data
    made = Embedded(data.replace(self_reference, b"alis\x00\x00\x00\x00"))
    assert all(not clip.samples.any() or made.code is None for clip in made.clips)


def test_ffmpeg_prints_and_logs_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        data = bytearray(encode(noise(48_000), 48_000, "webm", "libopus"))
        data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
        Embedded(bytes(data))
        Embedded(amr(amr_speech()) + b"\x3c")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_silence_of_a_phone_call_becomes_zeros_and_is_counted() -> None:
    frames = [amr_speech(seed) for seed in range(50)]
    silent = [AMR_COMFORT_NOISE, *[AMR_NO_DATA] * 24]
    made = Embedded(amr(*frames, *silent, *frames))
    assert made.code is None
    assert (made.info.codec, made.info.duration_s) == ("amr_nb", 2.5)
    assert (made.info.gaps, made.info.gap_s) == (1, 0.5)
    samples = made.joined()
    assert np.abs(samples[16_200:23_800]).max() < 1e-3
    assert np.abs(samples[24_200:30_000]).max() > 0.01


@pytest.mark.parametrize("container", ["amr", "3gp"])
def test_silence_at_the_start_and_at_the_end(container: str) -> None:
    frames = [*[AMR_NO_DATA] * 25, *map(amr_speech, range(50)), AMR_COMFORT_NOISE, *[AMR_NO_DATA] * 24]
    data = amr(*frames) if container == "amr" else remux_to_3gp(amr(*frames))
    made = Embedded(data)
    assert made.code is None
    assert made.info.duration_s == 2
    assert (made.info.gaps, made.info.gap_s) == (2, 1.0)
    loud = np.flatnonzero(np.abs(made.joined()) > 0.01)
    assert 0.49 * 16_000 < loud[0] < 0.6 * 16_000
    assert loud[-1] < 1.52 * 16_000


def remux_to_3gp(data: bytes) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format="3gp") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return out.getvalue()


def without_packets(data: bytes, container: str, missing: range) -> bytes:
    """The same file without some packets: the others keep their timestamps."""
    import av

    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format=container) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(source.streams.audio[0])):
            if packet.size and number not in missing:
                packet.stream = stream
                target.mux(packet)
    return out.getvalue()


def test_a_gap_in_the_timestamps_becomes_zeros_of_its_length() -> None:
    whole = encode(noise(16_000 * 4), 16_000, "mov", "alac")
    made, complete = Embedded(without_packets(whole, "mov", range(4, 6))), Embedded(whole)
    assert (made.info.gaps, made.info.gap_s) == (1, 2 * 4_096 / 16_000)
    expected = complete.joined()
    expected[4 * 4_096 : 6 * 4_096] = 0
    np.testing.assert_array_equal(made.joined(), expected)


def test_a_packet_that_cannot_be_decoded_costs_itself() -> None:
    data = bytearray(encode(noise(44_100 * 5), 44_100, "mp4", "aac"))
    begin = data.index(b"mdat") + 4
    data[begin + 20_000 : begin + 22_000] = b"\xff" * 2_000
    made = Embedded(bytes(data), min_audio_s=0)
    assert made.code == "damaged"
    assert "packets could not be decoded" in made.message
    assert made.info.duration_s == pytest.approx(5, abs=0.03)
    assert made.info.gaps >= 1
    assert [clip.start_sample for clip in made.clips] == [0, 32_000, 64_000]
    assert made.clips[-1].audio_samples == pytest.approx(16_000, abs=500)
    assert made.stream.error_s is not None
    assert 0 < made.stream.error_s < 5


def test_a_recording_that_changes_its_channels_ends_there() -> None:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="adts") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(48_000).T.copy(), "fltp", "mono")
        frame.sample_rate = 16_000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    made = Embedded(out.getvalue() + encode(noise(48_000, 2), 16_000, "adts", "aac"))
    assert made.code == "damaged"
    assert "changes from 1 x 16000 Hz to 2 x 16000 Hz" in made.message
    assert len(made.clips) == 1
