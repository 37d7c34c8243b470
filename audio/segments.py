"""Which parts of a recording are decoded by themselves: long ones that can be entered anywhere are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from audio.clips import ClipSettings
from audio.decode import exact_layout
from audio.errors import NoSuchChannel
from audio.libsndfile import Layout
from audio.mix import channel_names
from audio.reader import Reader
from audio.recording import Recording, Segment, Take, take_order
from audio.stretches import SAMPLE_RATE_HZ, STRETCH_S, resampled_length
from audio.window import Rules, Window

MIN_CUT_BYTES = 16 << 20
"""Recordings up to this size are decoded in one go."""
MIN_SEGMENT_S = 5
"""A last part shorter than this goes with the one before. Longer than a clip: then whatever depends on where the
recording ends, as the place of a clip that is shifted back from there, is in the last segment."""


def may_be_cut(recording: Recording, min_bytes: int = MIN_CUT_BYTES) -> bool:
    """Whether the recording's size allows that it is cut: costs nothing."""
    return recording.size_bytes > min_bytes


def cut(
    recording: Recording,
    file: BinaryIO,
    takes: Sequence[Take],
    settings: ClipSettings,
    *,
    min_bytes: int = MIN_CUT_BYTES,
    stretch_s: int = STRETCH_S,
) -> tuple[Segment, ...]:
    """Return the segments in which `recording` is decoded: together they give exactly the clips of the whole.

    Segments and takes of segments that have no clip are left out, but for takes of the whole recording: what they are
    taken from is decoded from its start to its end. A recording has one segment at least. A take with no clip at all
    is in one segment, where that shows. Of `file`, the opened recording, no more than its header is read, and of FLAC its
    end; whatever is wrong with it, one segment of all there is will tell.

    Args:
      recording: what is cut.
      file: its bytes, seekable; its position is not kept.
      takes: what is wanted of it.
      settings: which clips there are.
      min_bytes: only larger recordings are cut.
      stretch_s: how long segments are, as in `open_clips`.
    """
    takes = tuple(sorted(set(takes), key=take_order))
    whole = (Segment(recording, takes),)
    if not may_be_cut(recording, min_bytes):
        return whole
    try:
        layout = exact_layout(Reader(file))
    except Exception:  # noqa: BLE001 - decoding will say what is wrong, and where it belongs
        return whole
    if layout is None:
        return whole
    borders = _borders(layout, stretch_s)
    if len(borders) == 1:
        return whole
    parts: list[list[Take]] = [[] for _ in borders]
    nowhere: list[Take] = []
    for take in takes:
        if not _has_channel(take, layout.channels):
            nowhere.append(take)
            continue
        for part in _parts(take, borders, resampled_length(layout.frames, layout.rate_hz), settings.rules):
            parts[part].append(take)
    if not any(parts):
        return whole
    first = next(number for number, wanted in enumerate(parts) if wanted)
    parts[first] = sorted([*parts[first], *nowhere], key=take_order)
    stops = [*borders[1:], None]
    return tuple(
        Segment(recording, tuple(wanted), start_s, stop_s)
        for wanted, start_s, stop_s in zip(parts, borders, stops, strict=True)
        if wanted
    )


def _borders(layout: Layout, length_s: int) -> list[int]:
    """Return where segments begin, in seconds."""
    borders = list(range(0, -(-layout.frames // layout.rate_hz), length_s))
    if len(borders) > 1 and layout.frames < (borders[-1] + MIN_SEGMENT_S) * layout.rate_hz:
        del borders[-1]
    return borders


def _has_channel(take: Take, channels: int) -> bool:
    try:
        channel_names(take.channel, channels)
    except NoSuchChannel:
        return False
    return True


def _parts(take: Take, borders: Sequence[int], end: int, rules: Rules) -> list[int]:
    """Return in which segments, by number, clips of `take` begin."""
    last = len(borders) - 1
    if take.stop is None:
        return list(range(last + 1))
    if take.start >= end:
        return [last]
    length = borders[1] * SAMPLE_RATE_HZ
    window = Window(take, rules)
    parts: list[int] = []
    while (place := window.place(end)) is not None:
        part = min(max(place.start, 0) // length, last)
        parts.append(part)
        if part == last:
            break
        window.go_on()
        window.skip_to((part + 1) * length, end)
    return parts
