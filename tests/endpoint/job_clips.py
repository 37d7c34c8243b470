"""Clips of all kinds for tests of batch jobs' lines, and what stands in a line, computed number by number."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np

KINDS = ("normal", "loud", "quiet", "halves", "denormal", "odd", "padded", "silent")
"""Of clips whose samples are below 10 in magnitude."""
LARGE_KINDS = ("ten", "over ten", "huge")
EVERY_KIND = KINDS + LARGE_KINDS

BELOW_TEN = float(np.nextafter(np.float32(10), np.float32(0)))
_ODD = [0.0, -0.0, 1e-45, 4.9999e-7, 5e-7, 5.0001e-7, 1e-6, 1e-5, 9.99999e-3, 0.1, 0.5, 0.999999, 0.9999996, 1.0, 9.0]
ODD = np.array([*_ODD, BELOW_TEN], np.float32)


def clip_of_kind(kind: str, seed: int) -> np.ndarray:
    """A clip, float32 (32000,)."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(0, 0.1, 32000).astype(np.float32)
    if kind == "loud":
        return rng.uniform(-BELOW_TEN, BELOW_TEN, 32000).astype(np.float32)
    if kind == "quiet":
        return (rng.normal(0, 1, 32000) * 10.0 ** rng.uniform(-9, 0, 32000)).astype(np.float32)
    if kind == "halves":  # of a millionth: these are float32, all 128ths of which are
        return (rng.integers(-1279, 1280, 32000) / 128).astype(np.float32)
    if kind == "denormal":
        return rng.integers(0, 2**23, 32000, np.uint32).view(np.float32)
    if kind == "odd":
        return rng.choice(np.concatenate([ODD, -ODD]), 32000)
    if kind == "padded":
        return np.where(np.arange(32000) < rng.integers(32000), rng.normal(0, 0.01, 32000), 0).astype(np.float32)
    if kind == "ten":
        return np.where(rng.random(32000) < 0.001, 10, rng.normal(0, 0.1, 32000)).astype(np.float32)
    if kind == "over ten":
        return (rng.normal(0, 1, 32000) * 10.0 ** rng.uniform(-7, 6, 32000)).astype(np.float32)
    if kind == "huge":
        return (rng.choice([-1, 1], 32000) * 10.0 ** rng.uniform(-45, 38.5, 32000)).astype(np.float32)
    return np.zeros(32000, np.float32)


def decimals(clip: np.ndarray) -> list[Decimal]:
    """The exact samples with six decimals, halves to even."""
    with localcontext(prec=60):
        step = Decimal("0.000001")
        return [Decimal(sample).quantize(step, ROUND_HALF_EVEN) for sample in clip.tolist()]


def shortest(number: Decimal) -> str:
    """With six decimals at most, and none that is not needed."""
    text = f"{number:f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
