"""Where clips begin and end: the places of one take's clips, every hop, by arithmetic alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

from audio.recording import Take

CLIP_SAMPLES = 32_000

Tail = Literal["pad", "shift", "drop"]

NEVER = 1 << 62
"""Beyond the end of every recording, in samples."""


class Rules(NamedTuple):
    """What decides where a take's clips are, in 16 kHz samples."""

    hop: int
    tail: Tail
    min_audio: int


class Place(NamedTuple):
    """One place at which a clip begins."""

    number: int
    """The how manieth place of its take it is, from 0."""
    start: int
    """The clip's first sample, from the recording's start; negative where an event near it is centred."""
    too_short: bool
    """There is too little of the take for a clip here."""


class Window:
    """The places of one take's clips, in order.

    Of a recording, and of an event longer than a clip, they are at 0, hop, 2 hop, ... from its start; the last is the
    first that reaches its end. One that reaches beyond it is, by `tail`, padded, shifted back so that it ends with the
    take (padded if that is shorter than a clip), or too short. So is a padded one with less than `min_audio` samples of
    the take, unless it is the only one. Any shorter event has one place, of which the middle is the event's.

    A recording's end is not known while it is decoded: places that depend on it are right only if `end` is given.
    """

    __slots__ = ("_number", "_rules", "_start", "_stop")

    def __init__(self, take: Take, rules: Rules) -> None:
        self._rules = rules
        self._start = take.start
        self._stop = NEVER if take.stop is None else take.stop
        self._number = 0

    def place(self, end: int | None = None) -> Place | None:
        """Return the present place; None after the last one. `end` is the recording's, where it is known."""
        if end is not None and self._start >= end:
            return None
        number, start = self._number, self._start
        if self._stop - start <= CLIP_SAMPLES:
            return None if number else Place(0, (start + self._stop) // 2 - CLIP_SAMPLES // 2, too_short=False)
        hop, tail, min_audio = self._rules
        stop = self._stop if end is None else min(self._stop, end)
        start += number * hop
        if start >= stop or (number and start - hop + CLIP_SAMPLES >= stop):
            return None
        if start + CLIP_SAMPLES <= stop:
            return Place(number, start, too_short=False)
        if tail == "shift":
            start = max(self._start, stop - CLIP_SAMPLES)
        audio = stop - start
        too_short = audio < CLIP_SAMPLES and (tail == "drop" or (audio < min_audio and number > 0))
        return Place(number, start, too_short)

    def go_on(self) -> None:
        """Go to the next place."""
        self._number += 1

    def skip_to(self, first: int, end: int | None = None) -> None:
        """Go to the first place, from the present one on, that begins at sample `first` or later."""
        if self._stop - self._start > CLIP_SAMPLES:
            self._number = max(self._number, -((self._start - first) // self._rules.hop))
        place = self.place(end)
        if place is not None and place.start < first:
            self._number += 1
