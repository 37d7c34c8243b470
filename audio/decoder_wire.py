"""What a decoding process and its parent say to each other: framed messages, of bounded size, that nobody unpickles.

A message is a kind and JSON; samples and recordings go through shared memory. The parent says SETUP once, then JOB again
and again; it answers ASK by DATA or FAULT, and says TAKEN when it has taken so many clips' samples out of the ring. The child
says READY once; for each job FORMAT before the first result, then CLIP, SKIPPED and FAILED in the recording's order, ALIVE
where there was no result for long, and END.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from audio import errors
from audio.clip import AudioInfo, Clip, ClipResult, FailedClip, FailedTake, SkippedClip, Wanted
from audio.clips import ClipStream
from audio.decoder_ring import Ring
from audio.errors import AudioError, DamagedParts
from audio.recording import Recording, Segment, Take

SETUP, JOB, DATA, FAULT, TAKEN = b"U", b"J", b"D", b"G", b"T"
READY, FORMAT, CLIP, SKIPPED, FAILED, ASK, ALIVE, END = b"R", b"F", b"C", b"S", b"X", b"A", b"L", b"E"

PIECE_BYTES: Final = 1 << 20
"""What a child asks for at most in one go, of a file that its parent has."""

_HEADER = struct.Struct("<cI")
_READ_BYTES = 1 << 16
_ERRORS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AudioError)}


class WireError(Exception):
    """The other side said what it never says."""


class Bounds(NamedTuple):
    """What may come: the kinds of messages, and how many bytes of JSON."""

    kinds: frozenset[bytes]
    json_bytes: int


FROM_PARENT: Final = Bounds(frozenset((SETUP, JOB, DATA, FAULT, TAKEN)), 1 << 30)
_FROM_CHILD = frozenset((READY, FORMAT, CLIP, SKIPPED, FAILED, ASK, ALIVE, END))


def bounds_from_child(takes: int) -> Bounds:
    """Return what may come from a child: it names takes, of which the job has this many."""
    return Bounds(_FROM_CHILD, (1 << 16) + (takes << 10))


class Message(NamedTuple):
    kind: bytes
    values: Any
    """What the JSON says; None if there is none."""


class Channel:
    """Both directions between a parent and a child, over two pipes. Not safe to use on several threads at once.

    Args:
      read_fd: where the other side's messages come from; the descriptor stays the caller's, as does the next.
      write_fd: where messages for the other side go.
      wait: called when nothing can be written (True) or read (False) now; returns when it can.
    """

    def __init__(self, read_fd: int, write_fd: int, wait: Callable[[bool], None]) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._wait = wait
        self._held = b""
        self._came = b""
        self._at = 0
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def hold(self, kind: bytes, values: Any) -> bytes:
        """Send a message together with the next one, so that the other side is woken once; return its bytes."""
        message = _bytes_of(kind, values)
        self._held += message
        return message

    def send(self, kind: bytes, values: Any = None) -> None:
        """Send a message. Raises BrokenPipeError when the other side is gone, and what `wait` raises."""
        self._held += _bytes_of(kind, values)
        self.flush()

    def flush(self) -> None:
        """Send what is held back. Raises as `send` does."""
        left = memoryview(self._held)
        self._held = b""
        while left:
            try:
                left = left[os.write(self._write_fd, left) :]
            except BlockingIOError:
                self._wait(True)

    def receive(self, bounds: Bounds) -> Message:
        """Return the next message.

        Raises EOFError when the other side is gone, WireError for what is not within `bounds`, and what `wait` raises.
        """
        while (message := self._next(bounds)) is None:
            self._came, self._at = self._came[self._at :] + self._read(), 0
        return message

    def receive_some(self, bounds: Bounds) -> list[Message]:
        """Return the next message, and those that came with it. Raises as `receive` does."""
        messages = [self.receive(bounds)]
        with suppress(WireError):  # the next call raises it
            while (message := self._next(bounds)) is not None:
                messages.append(message)
        return messages

    def _next(self, bounds: Bounds) -> Message | None:
        """Return the next message if all of it has come. Raises WireError."""
        start = self._at + _HEADER.size
        if len(self._came) < start:
            return None
        kind, size = _HEADER.unpack_from(self._came, self._at)
        if kind not in bounds.kinds or size > bounds.json_bytes:
            raise WireError("a message that is not expected")
        if len(self._came) < start + size:
            return None
        try:
            values = orjson.loads(self._came[start : start + size]) if size else None
        except orjson.JSONDecodeError:
            raise WireError("a message that is not JSON") from None
        self._at = start + size
        return Message(kind, values)

    def _read(self) -> bytes:
        while True:
            try:
                part = os.read(self._read_fd, _READ_BYTES)
            except BlockingIOError:
                self._wait(False)
                continue
            if not part:
                raise EOFError
            return part


def _bytes_of(kind: bytes, values: Any) -> bytes:
    encoded = b"" if values is None else orjson.dumps(values)
    return _HEADER.pack(kind, len(encoded)) + encoded


def split(data: bytes) -> list[Message]:
    """Return the messages that follow each other in `data`, as far as they are whole."""
    messages, at = [], 0
    with suppress(orjson.JSONDecodeError):
        while at + _HEADER.size <= len(data):
            kind, json_bytes = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            messages.append(Message(kind, orjson.loads(data[at : at + json_bytes])))
            at += json_bytes
    return messages


def job_values(segment: Segment, source: str, size_bytes: int) -> dict[str, Any]:
    """Return a job; `source` says where the `size_bytes` come from: `path`, `inbox` or `parent`."""
    recording = segment.recording
    # A path need not be text, and is relative to the parent's folder.
    path = os.path.join(os.getcwd(), recording.uri) if source == "path" else recording.uri  # noqa: PTH109, PTH118
    return {
        "uri": os.fsencode(path).decode("latin-1"),
        "version": recording.version,
        "size_bytes": size_bytes,
        "takes": [tuple(take) for take in segment.takes],
        "start_s": segment.start_s,
        "stop_s": segment.stop_s,
        "source": source,
    }


def segment_of(values: dict[str, Any]) -> Segment:
    """Return the segment of a job."""
    uri = os.fsdecode(values["uri"].encode("latin-1"))
    recording = Recording(uri, values["version"], values["size_bytes"])
    return Segment(recording, tuple(Take(*take) for take in values["takes"]), values["start_s"], values["stop_s"])


def result_values(result: ClipResult) -> tuple[bytes, list[Any]]:
    """Return the kind of message and what is sent of a clip, but for its samples, or of what is said in its place."""
    place = [result.channel, result.start_sample, result.limits, [tuple(wanted) for wanted in result.wanted]]
    match result:
        case Clip():
            levels = [_level(result.rms_dbfs), _level(result.peak_dbfs)]
            return CLIP, [*place, result.audio_start, result.audio_stop, *levels]
        case SkippedClip():
            return SKIPPED, [*place, result.reason]
        case FailedClip():
            return FAILED, [*place, result.code, result.message]


def result_of(message: Message, ring: Ring) -> ClipResult:
    """Return what `result_values` describes, with the samples in the next slot. Raises WireError."""
    try:
        name, start, limits, wanted, *more = message.values
        place = (
            _text(name),
            _whole(start),
            None if limits is None else (_whole(limits[0]), _whole(limits[1])),
            tuple([Wanted(_whole(take), _whole(index)) for take, index in wanted]),
        )
        match message.kind:
            case b"C":
                audio_start, audio_stop, rms, peak = more
                audio = (_whole(audio_start), _whole(audio_stop))
                return Clip(*place, *audio, ring.take(), _level_of(rms), _level_of(peak))
            case b"S":
                (reason,) = more
                return SkippedClip(*place, _text(reason))
            case _:
                code, text = more
                return FailedClip(*place, _text(code), _text(text))
    except (TypeError, ValueError, IndexError):
        raise WireError("a result of another form") from None


def error_values(error: AudioError | None) -> list[Any] | None:
    """Return what is sent of an error: its kind, its message, and where the first damaged part is."""
    if error is None:
        return None
    return [type(error).__name__, error.message, error.first_s if isinstance(error, DamagedParts) else None]


def error_of(values: Any) -> AudioError | None:
    """Return the error that `error_values` describes. Raises WireError."""
    if values is None:
        return None
    try:
        name, message, first_s = values
        kind = _ERRORS[name]
        if issubclass(kind, DamagedParts):
            return kind(_text(message), _real(first_s))
        return kind(_text(message))
    except (TypeError, ValueError, KeyError):
        raise WireError("an error of another form") from None


def end_values(stream: ClipStream | None, error: AudioError | None, *, is_last: bool) -> dict[str, Any]:
    """Return what is sent at a job's end; see End."""
    info = stream.info if stream else None
    return {
        "info": None if info is None else vars(info),
        "error": error_values(error),
        "error_s": stream.error_s if stream else None,
        "failed_takes": [tuple(failed) for failed in stream.failed_takes] if stream else [],
        "is_last": is_last,
    }


class End(NamedTuple):
    """How a job ended."""

    info: AudioInfo | None
    error: AudioError | None
    error_s: float | None
    failed_takes: list[FailedTake]
    is_last: bool
    """Whether the process should be replaced."""


def end_of(values: Any) -> End:
    """Return what `end_values` describes. Raises WireError."""
    try:
        error_s = values["error_s"]
        return End(
            _info_of(values["info"]),
            error_of(values["error"]),
            None if error_s is None else _real(error_s),
            [FailedTake(_whole(take), _text(code), _text(text)) for take, code, text in values["failed_takes"]],
            bool(values["is_last"]),
        )
    except (TypeError, ValueError, KeyError):
        raise WireError("an end of another form") from None


def format_of(values: Any) -> tuple[int, int, str, str, str]:
    """Return the rate, channels, container, codec and decoder of a FORMAT. Raises WireError."""
    try:
        rate_hz, channels, container, codec, decoder = values
        return _whole(rate_hz), _whole(channels), _text(container), _text(codec), _text(decoder)
    except (TypeError, ValueError):
        raise WireError("a format of another form") from None


def ask_of(values: Any) -> tuple[int, int]:
    """Return the offset and size of an ASK. Raises WireError."""
    try:
        offset, size = values
        if 0 <= _whole(offset) < 1 << 62 and 0 < _whole(size) <= PIECE_BYTES:
            return offset, size
    except (TypeError, ValueError):
        pass
    raise WireError("a question of another form")


def _info_of(values: Any) -> AudioInfo | None:
    if values is None:
        return None
    duration_s = values["duration_s"]
    return AudioInfo(
        duration_s=None if duration_s is None else _real(duration_s),
        source_rate_hz=_whole(values["source_rate_hz"]),
        source_channels=_whole(values["source_channels"]),
        container=_text(values["container"]),
        codec=_text(values["codec"]),
        decoder=_text(values["decoder"]),
        gap_s=_real(values["gap_s"]),
        gaps=_whole(values["gaps"]),
    )


def _level(value: float) -> float | None:
    """JSON has no infinity: digital silence is None."""
    return None if value == -np.inf else value


def _level_of(value: Any) -> float:
    return -np.inf if value is None else _real(value)


def _real(value: Any) -> float:
    if type(value) is not float:
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value
