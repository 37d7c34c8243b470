"""Deterministic identities: the same recording, clip and settings have the same id in every run, everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from audio.recording import Recording, Segment

ID_HEX_DIGITS = 32
"""128 bits: among a billion clips a collision has a chance of about 1e-21."""

FINGERPRINT_HEX_DIGITS = 16

_TO_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def _digest(value: object, hex_digits: int) -> str:
    """The first `hex_digits` of the SHA-256 of `value` as compact JSON with sorted keys and ASCII escapes.

    JSON keeps the parts apart whatever they contain (file names may hold any character), and anyone can
    compute the same id in any language.
    """
    return hashlib.sha256(_TO_JSON(value).encode("ascii")).hexdigest()[:hex_digits]


def fingerprint(settings: Mapping[str, str | int | float]) -> str:
    """The identity of everything that changes what a clip's row holds: how samples are made, and the model.

    Hop, tail, channel and the thresholds are left out: they choose which clips there are, and a clip's place
    and channel are in its id. So are the endpoint and the way of sending: they are columns.
    """
    return _digest(settings, FINGERPRINT_HEX_DIGITS)


def segment_id(segment: Segment, choice: str) -> str:
    """The identity of a segment: of a part of a recording, and of which clips of it are wanted.

    SHA-256 over JSON `["segment", uri, version, start_s, stop_s, choice, [[channel, start, stop] of each take]]`, 32 hex
    digits. `choice` names the settings that decide which clips a take gives (`ClipSettings.choice`), and the fingerprint.
    """
    recording = segment.recording
    takes = [list(take) for take in segment.takes]
    return _digest(
        ["segment", recording.uri, recording.version, segment.start_s, segment.stop_s, choice, takes], ID_HEX_DIGITS
    )


def packet_id(segment_ids: Iterable[str]) -> str:
    """The identity of a packet: of the set of its segments, whatever their order."""
    return _digest(["packet", *sorted(segment_ids)], ID_HEX_DIGITS)


def clip_id(
    recording: Recording, channel: str, start_sample: int, fingerprint: str, limits: tuple[int, int] | None = None
) -> str:
    """The identity of a clip: SHA-256 over JSON `["clip", uri, version, channel, start_sample, fingerprint]`, 32 hex digits.

    `start_sample` counts 16 kHz samples from the recording's start. A clip that holds an event among zeros where the
    recording has audio differs from the one that holds that audio: its list ends with the event's part, `[lo, hi]`.
    """
    parts = ["clip", recording.uri, recording.version, channel, start_sample, fingerprint]
    return _digest(parts if limits is None else [*parts, list(limits)], ID_HEX_DIGITS)
