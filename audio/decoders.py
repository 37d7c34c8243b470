"""Decoding in processes of their own: a file that crashes, hangs or bloats a decoder costs itself, not the run."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

from audio import decoder_wire as wire
from audio.clip import AudioInfo, Clip, ClipResult
from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.decoder_process import DecoderProcess, DecodersUnusable, Gone, Idle, crashed, timed_out
from audio.decoder_ring import SLOTS, TAKEN_AT_ONCE
from audio.decoder_wire import Message, WireError
from audio.decoding import Decoding, DecodingHere, SourceFormat
from audio.errors import AudioError, DecoderCrashed
from audio.reader import Reader
from audio.recording import Segment

__all__ = ["DecoderLimits", "Decoders", "DecodersUnusable", "Decoding", "SourceFormat"]


_RESULTS = frozenset((wire.CLIP, wire.SKIPPED, wire.FAILED))


class DecodersClosed(RuntimeError):
    """The pool was closed while it was needed: the run is being interrupted."""


class Decoders:
    """A pool of decoding processes, which are started when they are first needed. Safe to use on several threads.

    Jobs get processes in the order of the calls of `decode`, and a process is free again when its job has been iterated to
    the end or closed. So a thread may call `decode` for some segments ahead, as long as it iterates them in that order.

    Args:
      settings: which clips there are.
      processes: how many there are at most; with 0, everything is decoded in this process.
      limits: what decoding may take; of no effect in this process.
      module: the module whose `main` the processes run.
    """

    def __init__(
        self,
        settings: ClipSettings,
        processes: int,
        limits: DecoderLimits = DecoderLimits(),  # noqa: B008 - frozen
        module: str = "audio.decoder_child",
    ) -> None:
        if processes < 0:
            raise ValueError(f"processes is {processes!r}; expected 0 or more")
        self._settings = settings
        self._most = processes
        self._limits = limits
        self._module = module
        self._changed = threading.Condition()
        self._processes: set[DecoderProcess] = set()
        self._starting = 0
        self._idle: list[DecoderProcess] = []
        self._waiting: deque[_InProcess] = deque()
        self._is_closed = False

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def decode(self, segment: Segment, source: bytes | BinaryIO | None = None) -> Decoding:
        """Begin to decode a segment, and return at once.

        Args:
          segment: what is decoded.
          source: the recording's bytes, or a seekable file of them, which is read while the Decoding is iterated and is
            closed by the caller after that; None to open the recording, which is a local file, where it is decoded.
        """
        if source is None and segment.recording.uri.startswith("gs://"):
            raise ValueError("source is None; objects on Cloud Storage are opened by the caller")
        if self._most == 0:
            return DecodingHere(segment, source, self._settings)
        decoding = _InProcess(self, segment, source)
        if decoding.has_ended:
            return decoding
        with self._changed:
            self._raise_if_closed()
            self._waiting.append(decoding)
        self._hand_out()
        return decoding

    def close(self) -> None:
        """End all processes. What is still being decoded is lost: iterating it raises DecodersClosed."""
        with self._changed:
            self._is_closed = True
            processes = list(self._processes)
            self._idle.clear()
            self._waiting.clear()
            self._changed.notify_all()
        for process in processes:
            process.end()
        with self._changed:
            self._processes.difference_update(processes)

    @property
    def processes(self) -> int:
        """How many processes there are at most."""
        return self._most

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that there are now."""
        with self._changed:
            return sorted(process.pid for process in self._processes)

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise DecodersClosed("the decoders were closed")

    def _hand_out(self) -> None:
        """Give the jobs that wait to processes that are idle or may be started."""
        while True:
            with self._changed:
                if self._is_closed or not self._waiting:
                    return
                process = self._idle.pop() if self._idle else None
                if process is None:
                    if len(self._processes) + self._starting >= self._most:
                        return
                    self._starting += 1
                decoding = self._waiting.popleft()
            if process is not None and not process.is_running():
                with self._changed:
                    self._processes.discard(process)
                    self._starting += 1
                process.end()
                process = None
            if process is None:
                process = self._start(decoding)
                if process is None:
                    continue
            try:
                process.give(decoding.job, decoding.data)
            except BaseException:
                process.end()
                raise
            finally:
                with self._changed:
                    decoding.process = process
                    is_withdrawn = decoding.has_ended
                    self._changed.notify_all()
            if is_withdrawn:
                self._lost(process)

    def _start(self, decoding: _InProcess) -> DecoderProcess | None:
        """Start a process, for which `_starting` holds a place; if that fails, the job shows why."""
        process = None
        try:
            process = DecoderProcess(self._settings, self._limits, self._module)
        except DecodersUnusable as error:
            decoding.unusable = error
        finally:
            with self._changed:
                self._starting -= 1
                if process is not None:
                    self._processes.add(process)
                is_closed = self._is_closed
                self._changed.notify_all()
        if is_closed and process is not None:
            process.end()
        return process

    def _process_for(self, decoding: _InProcess) -> DecoderProcess:
        """Wait until the job has its process. Raises DecodersUnusable."""
        with self._changed:
            while decoding.process is None:
                self._raise_if_closed()
                if decoding.unusable is not None:
                    raise decoding.unusable
                self._changed.wait()
            return decoding.process

    def _finished(self, process: DecoderProcess) -> None:
        """Take back a process that can do another job."""
        with self._changed:
            if not self._is_closed:
                self._idle.append(process)
        self._hand_out()

    def _lost(self, process: DecoderProcess, again: _InProcess | None = None) -> None:
        """End a process that can do no more; do the job `again` before those that wait."""
        process.end()
        with self._changed:
            self._processes.discard(process)
            if again is not None and not self._is_closed:
                self._waiting.appendleft(again)
        self._hand_out()

    def _withdraw(self, decoding: _InProcess) -> None:
        """Forget a job, whether it waits or is being done."""
        with self._changed:
            if decoding in self._waiting:
                self._waiting.remove(decoding)
            process = decoding.process
        if process is not None:
            self._lost(process)


class _InProcess(Decoding):
    """A Decoding in a process of the pool; what is public here is for the pool."""

    def __init__(self, pool: Decoders, segment: Segment, source: bytes | BinaryIO | None) -> None:
        self.process: DecoderProcess | None = None
        self.unusable: DecodersUnusable | None = None
        self.has_ended = False
        self.data = source if isinstance(source, bytes) else None
        self._pool = pool
        self._reader: Reader | None = None
        self._bounds = wire.bounds_from_child(len(segment.takes))
        self._received = 0
        self._left: deque[ClipResult] = deque()
        self._end: wire.End | None = None
        self._results = 0
        self._untold = 0
        self._end_s: float | None = None
        self._is_again = False
        kind, size_bytes = "path", segment.recording.size_bytes
        if self.data is not None:
            kind, size_bytes = "inbox", len(self.data)
        elif source is not None and not isinstance(source, bytes):
            try:
                self._reader = Reader(source)
            except AudioError as error:
                self.error, self.has_ended = error, True
                return
            kind, size_bytes = "parent", self._reader.size_bytes
        self.job = wire.job_values(segment, kind, size_bytes)

    def __next__(self) -> ClipResult:
        try:
            if not self.has_ended:
                self._pool._raise_if_closed()
            while not self._left:
                if self.has_ended:
                    self._tell_end()
                    raise StopIteration
                self._listen()
        except BaseException:
            self.close()
            raise
        return self._left.popleft()

    def close(self) -> None:
        self._left.clear()
        if not self.has_ended:
            self._ended()
            self._pool._withdraw(self)
        self._tell_end()

    def _ended(self) -> None:
        self.has_ended = True
        self.data = self._reader = None

    def _listen(self) -> None:
        """Wait until the process says something, and take it in: results are left in `_left`."""
        process = self.process or self._pool._process_for(self)
        try:
            messages = process.receive(self._bounds)
            for message in messages:
                if message.kind == wire.END and message is not messages[-1]:
                    raise WireError("something after a job's end")
                self._take(process, message)
                self._received += message.kind != wire.READY
            if self._untold >= TAKEN_AT_ONCE and not self.has_ended:
                with suppress(Gone, Idle):  # shows in what is received next, if there is anything
                    process.send(wire.TAKEN, self._untold)
                self._untold = 0
        except (Gone, Idle, WireError) as error:
            self._is_gone(process, error)

    def _take(self, process: DecoderProcess, message: Message) -> None:
        """Take in what the process says. Raises Gone, Idle, WireError."""
        kind = message.kind
        if kind in _RESULTS:
            result = wire.result_of(message, process.ring)
            if self._format is None:
                raise WireError("a result before the recording's format")
            self._results += 1
            if isinstance(result, Clip):
                self._untold += 1
                self._end_s = max(self._end_s or 0.0, result.end_s)
            self._left.append(result)
        elif kind == wire.FORMAT:
            self._format = SourceFormat(*wire.format_of(message.values))
        elif kind == wire.ASK:
            self._answer(process, message.values)
        elif kind == wire.END:
            self._take_end(process, message.values)

    def _answer(self, process: DecoderProcess, values: object) -> None:
        if self._reader is None:
            raise WireError("it asks for a file that it has")
        offset, size = wire.ask_of(values)
        try:
            data = self._reader.peek_at(offset, size)
        except AudioError as error:
            process.send(wire.FAULT, wire.error_values(error))
        else:
            process.fill_inbox(data)
            process.send(wire.DATA, len(data))

    def _take_end(self, process: DecoderProcess, values: object) -> None:
        """Let go of the process, though results may be left here; how the job ended is told after those."""
        self._end = end = wire.end_of(values)
        self._ended()
        if end.is_last:
            self._pool._lost(process)
        else:
            self._pool._finished(process)

    def _tell_end(self) -> None:
        if self._end is not None:
            self.info, self.error, self.error_s, self.failed_takes, _ = self._end

    def _is_gone(self, process: DecoderProcess, error: Exception) -> None:
        """Try once more, or end with an error of the recording. Raises DecodersUnusable and DecodersClosed."""
        with self._pool._changed:
            self._pool._raise_if_closed()
        if not process.is_ready:
            raise process.why_not_started()
        match error:
            case Idle():
                self.error = timed_out()
            case WireError():
                self.error = crashed("it says what no decoder says")
            case _:
                self.error = process.why_gone()
        with suppress(WireError):
            for message in process.unsent(self._received)[: SLOTS + 1]:
                if message.kind == wire.FORMAT or message.kind in _RESULTS:
                    self._take(process, message)
        may_be_the_process = isinstance(self.error, DecoderCrashed) and process.jobs > 1 and self._results == 0
        if may_be_the_process and not self._is_again:
            self._is_again = True
            self._received = 0
            self.error = self._format = self.process = None
            self._pool._lost(process, again=self)
            return
        self.error_s = self._end_s
        if self._format is not None:
            rate_hz, channels, container, codec, decoder = self._format
            self.info = AudioInfo(self._end_s, rate_hz, channels, container, codec, decoder, gap_s=0.0, gaps=0)
        self._ended()
        self._pool._lost(process)
