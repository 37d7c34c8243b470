"""The probe: a fixed quiet clip alone, then among loud ones, before a run pays for anything else.

It proves endpoint, format and rights with two requests, and finds endpoints where a clip's embedding depends on the
others in its request, as with the published front end of HeAR's PyTorch port (design.md 2.3).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from endpoint.client import Client
from endpoint.errors import BudgetSpent, RunEnded
from endpoint.items import CLIP_SAMPLES, Item
from endpoint.results import Embedded, Outcome, Refused
from endpoint.settings import EndpointSettings

TOLERANCE = 1e-3
"""The largest difference in any of the 512 numbers that is put down to rounding."""

_QUIET, _LOUD = 96, 28_000
_PERIODS = (97, 41, 163, 233)
"""Of the waves, in samples; the first is the quiet clip's (165 Hz)."""


@dataclass(frozen=True)
class ProbeAnswer:
    """What the endpoint answered."""

    embedding: npt.NDArray[np.float32] = field(repr=False)
    """(512,): of the quiet clip alone."""
    difference: float | None
    """How far its embedding among the others is from that, at most; None where requests hold one clip."""
    requests: int


def probe_clips() -> list[npt.NDArray[np.float32]]:
    """A quiet clip (50 dB below full scale) and three loud ones, float32 of shape (32000,).

    Triangle waves under slow swells, in whole 16-bit steps from whole numbers alone: the same on every machine, and the
    same as audio and as WAV.
    """
    n = np.arange(CLIP_SAMPLES, dtype=np.int64)
    clips = []
    for number, period in enumerate(_PERIODS):
        triangle = np.abs(2 * (n % period) - period) * 2 - period  # from -period to period
        swell = np.abs((n * (number + 2)) % 16_000 - 8_000)
        height = _LOUD if number else _QUIET
        steps = triangle * swell * height // (period * 8_000)
        clips.append((steps / 32768).astype(np.float32))
    return clips


def probe(settings: EndpointSettings, client: Client, items: Sequence[Item]) -> ProbeAnswer:
    """Sends the first item alone, then all of them, or as many as a request holds.

    Args:
        settings: the client's.
        client: asked twice; nothing else is to be under way.
        items: `probe_clips` in the form in which clips are sent.

    Raises:
        RunEnded: if the endpoint does not answer properly, or the two answers differ; with the remedy. Never
            `BudgetSpent`: a run whose requests do not suffice for the probe has not begun.
    """
    try:
        return _probe(settings, client, items)
    except BudgetSpent:
        needed = min(2, client.max_instances)
        raise RunEnded(
            f"--max_requests {settings.max_requests} is too small for the probe's requests ({needed}, and those that must "
            "be repeated): nothing else was sent. Allow more, or leave the probe out with --no_probe."
        ) from None


def _probe(settings: EndpointSettings, client: Client, items: Sequence[Item]) -> ProbeAnswer:
    alone = _embedding(settings, client, items[:1])
    together = items[: client.max_instances]
    if len(together) == 1:
        return ProbeAnswer(alone, None, requests=1)
    difference = largest_difference(alone, _embedding(settings, client, together))
    if difference > TOLERANCE:
        raise RunEnded(
            f"Endpoint {settings.name} at {settings.host} gives a clip another embedding when other clips are in its "
            f"request (the probe's differs by {difference:.2g}, {TOLERANCE:g} at most are put down to rounding); send "
            "each clip by itself with --clips_per_request 1, or take rows as they come with --no_probe."
        )
    return ProbeAnswer(alone, difference, requests=2)


def largest_difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Of two embeddings, (512,) each."""
    return float(np.abs(one.astype(np.float64) - other).max())


def _embedding(settings: EndpointSettings, client: Client, items: Sequence[Item]) -> npt.NDArray[np.float32]:
    """Of the first of these, all sent in one request."""
    outcomes: list[Outcome] = []
    answered = threading.Event()

    def on_done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        answered.set()

    client.submit(items, on_done)
    answered.wait()
    (outcome,) = outcomes
    if outcome.error is not None:
        raise type(outcome.error)(outcome.error.message)
    for result in outcome.results:
        if isinstance(result, Refused):
            raise RunEnded(
                f"Endpoint {settings.name} at {settings.host} does not embed the probe's clips, so that it would embed "
                f"no others either. {result.message}"
            )
    first = outcome.results[0]
    assert isinstance(first, Embedded)
    return first.embedding
