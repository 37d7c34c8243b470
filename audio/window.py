"""Where clips begin and end: one channel's 16 kHz samples cut into pieces of 32000, every hop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

CLIP_SAMPLES = 32_000

Tail = Literal["pad", "shift", "drop"]

_Samples = npt.NDArray[np.float32]


class Piece(NamedTuple):
    """One place at which a clip begins."""

    clip_index: int
    """The how manieth piece of its channel it is, from 0."""
    start: int
    """Its first sample, counted from the recording's start."""
    audio: int
    """How many of its samples are the recording's: the rest are zeros."""
    samples: _Samples | None
    """float32 of shape (32000,), in memory of its own; None for a last piece that is too short to be a clip."""


class Window:
    """Cuts a channel that arrives in blocks of any size; the pieces do not depend on the sizes.

    Pieces begin at 0, hop, 2 hop, ...; the last is the first that reaches the end. One that reaches beyond it is, by
    `tail`, padded with zeros, shifted back so that it ends with the recording (padded if that is shorter than a piece),
    or dropped as too short. So is a padded one with less than `min_audio` samples of audio, unless it is the only one.
    """

    def __init__(self, hop: int, tail: Tail = "pad", min_audio: int = 0) -> None:
        self._hop = hop
        self._tail = tail
        self._min_audio = min_audio
        self._next_index = 0
        self._next_start = 0
        self._held: _Samples = np.empty(2 * CLIP_SAMPLES, np.float32)
        self._held_size = 0
        self._end = 0

    @property
    def samples(self) -> int:
        """How many samples have come so far."""
        return self._end

    def push(self, samples: _Samples, settled: int) -> Iterator[Piece]:
        """Take `samples`, float32 of shape (n,), and yield the pieces that end at or before sample `settled`.

        The iterator must be exhausted before the next call; pieces are copied only as they are asked for.
        """
        self._append(samples)
        yield from self._whole(min(settled, self._end))
        self._let_go()

    def finish(self, *, ended_early: bool) -> Iterator[Piece]:
        """Yield the remaining pieces: whole ones only if the recording `ended_early`, as its true end is unknown."""
        yield from self._whole(self._end)
        last_stop = self._next_start - self._hop + CLIP_SAMPLES if self._next_index else 0
        if ended_early or last_stop >= self._end or self._next_start >= self._end:
            return
        start = self._next_start
        if self._tail == "shift":
            start = max(0, self._end - CLIP_SAMPLES)
        audio = self._end - start
        too_short = audio < CLIP_SAMPLES and (
            self._tail == "drop" or (audio < self._min_audio and self._next_index > 0)
        )
        yield self._piece(start, None if too_short else self._copy(start, audio), audio)

    def _whole(self, stop: int) -> Iterator[Piece]:
        while self._next_start + CLIP_SAMPLES <= stop:
            start = self._next_start
            yield self._piece(start, self._copy(start, CLIP_SAMPLES), CLIP_SAMPLES)
            self._next_start = start + self._hop

    def _piece(self, start: int, samples: _Samples | None, audio: int) -> Piece:
        piece = Piece(self._next_index, start, audio, samples)
        self._next_index += 1
        return piece

    def _copy(self, start: int, audio: int) -> _Samples:
        at = start - (self._end - self._held_size)
        if audio == CLIP_SAMPLES:
            return self._held[at : at + CLIP_SAMPLES].copy()
        samples = np.zeros(CLIP_SAMPLES, np.float32)
        samples[:audio] = self._held[at : at + audio]
        return samples

    def _append(self, samples: _Samples) -> None:
        unused = 0
        if self._tail != "shift":
            unused = min(len(samples), max(0, self._next_start - self._end))
        self._end += len(samples)
        new = samples[unused:]
        size = self._held_size + len(new)
        if size > len(self._held):
            grown = np.empty(max(size, 2 * len(self._held)), np.float32)
            grown[: self._held_size] = self._held[: self._held_size]
            self._held = grown
        self._held[self._held_size : size] = new
        self._held_size = size

    def _let_go(self) -> None:
        """Move what is still needed to the front: from the next start on, for `shift` also the last 32000 samples."""
        unused = min(self._held_size, self._next_start - (self._end - self._held_size))
        if self._tail == "shift":
            unused = min(unused, self._held_size - CLIP_SAMPLES)
        if unused > 0:
            kept = self._held_size - unused
            self._held[:kept] = self._held[unused : self._held_size]
            self._held_size = kept
