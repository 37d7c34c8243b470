"""Which channels of a block become clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audio.errors import NoSuchChannel
from audio.source import Block, int16_to_float32

MEAN, EACH = "mean", "each"
CHANNEL_PATTERN = f"{MEAN}|{EACH}|0|[1-9][0-9]{{0,3}}"
"""Pattern of what a channel may be set to."""


def channel_names(setting: str, channels: int) -> Sequence[str]:
    """Return the names of the channels that `setting` (`mean`, `each` or a number) asks for.

    Raises NoSuchChannel.
    """
    if setting == MEAN:
        return (MEAN,)
    if setting == EACH:
        return tuple(str(channel) for channel in range(channels))
    if int(setting) >= channels:
        have = "1 channel, numbered 0" if channels == 1 else f"{channels} channels, numbered 0 to {channels - 1}"
        raise NoSuchChannel(f"channel {setting} was asked for, and the recording has {have}")
    return (setting,)


def channel_samples(block: Block, channel: str) -> npt.NDArray[np.float32]:
    """Return one channel of `block` as float32 of shape (frames,), full scale 1.0; it may share the block's memory."""
    channels = block.shape[1]
    if channel == MEAN and channels > 1:
        return _mean(block)
    samples = block[:, 0 if channel == MEAN else int(channel)]
    return int16_to_float32(samples) if samples.dtype == np.int16 else np.ascontiguousarray(samples)


def _mean(block: Block) -> npt.NDArray[np.float32]:
    """Return the mean of all channels; columns are added one by one, 35 times cheaper than `mean(axis=1)`."""
    channels = block.shape[1]
    scale = np.float32(1 / channels)
    if block.dtype == np.int16:
        scale /= np.float32(32768)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.add(block[:, 0], block[:, 1], dtype=np.float32)
        for channel in range(2, channels):
            total += block[:, channel]
        total *= scale
    return total
