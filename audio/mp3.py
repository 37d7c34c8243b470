"""The first frame of an MP3 file: where it is, and what it says of the file's length."""

from __future__ import annotations

from typing import NamedTuple

from audio.reader import Reader

_BITRATES_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SEARCH_BYTES = 65_536
_RUN = 3
# Encoder delay and padding, which decoders take away, and frames that only fill the decoder's bit reservoir.
_SPARE_FRAMES = 4 * 1152
# Tags after the sound; a second MP3 joined to the first is longer.
_MAX_TAG_BYTES = 16_384


class FirstFrame(NamedTuple):
    """The first of several MPEG layer III frames in a row."""

    offset: int
    """Bytes before it: tags, or rubbish."""
    min_frames: int
    """What a decoder must give at least, by the count that the encoder left."""
    is_counted: bool
    """The encoder left a count of frames, and of bytes that is no less than what there is."""


class _Header(NamedTuple):
    frame_bytes: int
    samples: int
    rate_hz: int
    side_info_bytes: int


def find_first_frame(reader: Reader, head: bytes) -> FirstFrame | None:
    """Return the first frame of a layer III stream after an ID3 tag and up to 64 KiB of rubbish; None without any."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        tag_bytes = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
        # A tag that claims to be longer than the file is a broken tag, not a reason to give up.
        start = tag_bytes if tag_bytes < reader.size_bytes else 10
    data = reader.peek_at(start, _SEARCH_BYTES)
    at = data.find(b"\xff")
    while at >= 0:
        header = _parse(data, at)
        if header is not None and _run_follows(data, at, header):
            return _first_frame(data, at, header, start, reader.size_bytes)
        at = data.find(b"\xff", at + 1)
    return None


def _run_follows(data: bytes, at: int, first: _Header) -> bool:
    """Return whether whole frames of one stream follow each other from `at`: two bytes alone are no proof."""
    for _ in range(_RUN - 1):
        header = _parse(data, at)
        if header is None or header.rate_hz != first.rate_hz:
            return False
        at += header.frame_bytes
    header = _parse(data, at)
    return header is not None and header.rate_hz == first.rate_hz


def _parse(data: bytes, at: int) -> _Header | None:
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version = data[at + 1] >> 3 & 3
    bitrate, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    rate_hz = _RATES_HZ[version][rate]
    samples = 1152 if version == 3 else 576
    kbps = (_BITRATES_V1 if version == 3 else _BITRATES_V2)[bitrate]
    mono = data[at + 3] >> 6 == 3
    side_info = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[version == 3, mono]
    return _Header(samples // 8 * kbps * 1000 // rate_hz + (data[at + 2] >> 1 & 1), samples, rate_hz, side_info)


def _first_frame(data: bytes, at: int, header: _Header, start: int, size_bytes: int) -> FirstFrame:
    """Return the frame at `at` of `data`, or the one after it that holds the encoder's count: false frames, in a cover
    picture, can lead to the true first one."""
    place, candidate = at, header
    for _ in range(_RUN):
        info = data[place + 4 + candidate.side_info_bytes :][:16]
        if info[:4] in (b"Xing", b"Info"):
            flags, frames, known_bytes = (int.from_bytes(info[at : at + 4], "big") for at in (4, 8, 12))
            has_frames, has_bytes = flags & 1 == 1, flags & 3 == 3
            more_bytes = size_bytes - start - place - known_bytes if has_bytes and known_bytes else 0
            return FirstFrame(
                start + place,
                max(0, frames * candidate.samples - _SPARE_FRAMES) if has_frames else 0,
                is_counted=has_frames and frames > 0 and more_bytes <= max(_MAX_TAG_BYTES, known_bytes // 100),
            )
        place += candidate.frame_bytes
        following = _parse(data, place)
        if following is None:
            break
        candidate = following
    return FirstFrame(start + at, 0, is_counted=False)
