"""FFmpeg's frames, of any size and sample format, to blocks of float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audio.source import Block, block_frames

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame


class _Scale(NamedTuple):
    """How samples of a format become floats of full scale 1.0."""

    sample_type: Any
    silence: int
    factor: float


_SCALES = {
    "u8": _Scale(np.uint8, 128, 1 / 2**7),
    "s16": _Scale(np.int16, 0, 1 / 2**15),
    "s32": _Scale(np.int32, 0, 1 / 2**31),
    "s64": _Scale(np.int64, 0, 1 / 2**63),
    "flt": _Scale(np.float32, 0, 1.0),
    "dbl": _Scale(np.float64, 0, 1.0),
}
_FORMATS = _SCALES | {name + "p": scale for name, scale in _SCALES.items()}


def can_read(frame: AudioFrame) -> bool:
    """Return whether the frame's samples are of a format that is known here."""
    return frame.format.name in _FORMATS


class FrameBlocks:
    """Collects frames until they fill a block; a block is valid until the next one is asked for."""

    def __init__(self, channels: int) -> None:
        self._planes = np.empty((channels, block_frames(channels)), np.float32)
        self._size = self._planes.shape[1]
        self._filled = 0

    def has_room_for(self, samples: int) -> bool:
        """Return whether `samples` more leave the block unfilled."""
        return self._filled + samples < self._size

    def add(self, frame: AudioFrame) -> None:
        """Add a whole frame for which there is room: the quick way for codecs with tiny frames."""
        self._write(frame, 0, frame.samples)

    def put(self, frame: AudioFrame, samples: int) -> Iterator[Block]:
        """Add the first `samples` of `frame`, and yield the blocks that are full."""
        start = 0
        while start < samples:
            size = min(samples - start, self._size - self._filled)
            self._write(frame, start, size)
            start += size
            if self._filled == self._size:
                yield from self.flush()

    def put_zeros(self, samples: int) -> Iterator[Block]:
        """Add silence, and yield the blocks that are full."""
        while samples > 0:
            size = min(samples, self._size - self._filled)
            self._planes[:, self._filled : self._filled + size] = 0
            self._filled += size
            samples -= size
            if self._filled == self._size:
                yield from self.flush()

    def flush(self) -> Iterator[Block]:
        """Yield what is left."""
        if self._filled:
            yield self._planes[:, : self._filled].T
            self._filled = 0

    def _write(self, frame: AudioFrame, start: int, size: int) -> None:
        sample_type, silence, factor = _FORMATS[frame.format.name]
        stop = self._filled + size
        for plane, samples in zip(self._planes, _channels(frame, sample_type), strict=True):
            target, part = plane[self._filled : stop], samples[start : start + size]
            if silence:
                np.subtract(part, silence, out=target, dtype=np.float32, casting="unsafe")
                target *= factor
            elif factor != 1.0:
                np.multiply(part, factor, out=target, casting="unsafe")
            elif sample_type is np.float32:
                target[:] = part
            else:
                with np.errstate(over="ignore"):
                    target[:] = part
        self._filled = stop


def _channels(frame: AudioFrame, sample_type: Any) -> list[npt.NDArray[Any]]:
    """Return the frame's channels, each of shape (frame.samples,), in FFmpeg's memory."""
    planes = [memoryview(plane) for plane in frame.planes]
    if len(planes) > 1 or frame.format.is_planar:
        return [np.frombuffer(plane, sample_type, frame.samples) for plane in planes]
    channels = frame.layout.nb_channels
    packed = np.frombuffer(planes[0], sample_type, frame.samples * channels)
    return list(packed.reshape(frame.samples, channels).T)
