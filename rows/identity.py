"""Deterministic identities: the same recording, clip and settings have the same id in every run, everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from audio.recording import Recording

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


def segment_id(recording: Recording) -> str:
    """The identity of the one segment of `recording`."""
    return _digest(["segment", recording.uri, recording.version], ID_HEX_DIGITS)


def packet_id(segment_ids: Iterable[str]) -> str:
    """The identity of a packet: of the set of its segments, whatever their order."""
    return _digest(["packet", *sorted(segment_ids)], ID_HEX_DIGITS)


def clip_id(recording: Recording, channel: str, start_sample: int, fingerprint: str) -> str:
    """The identity of a clip: SHA-256 over JSON `["clip", uri, version, channel, start_sample, fingerprint]`, 32 hex digits.

    `start_sample` counts 16 kHz samples from the recording's start.
    """
    return _digest(["clip", recording.uri, recording.version, channel, start_sample, fingerprint], ID_HEX_DIGITS)
