"""A decoding process: takes jobs from its parent, one at a time, and says what comes of them."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from audio import decoder_wire as wire
from audio import tensorflow_resampler
from audio.clip import Samples
from audio.clips import Clip, ClipSettings, ClipStream, open_clips
from audio.decoder_limits import DecoderLimits, Memory, Timer, give_up_rights
from audio.decoder_ring import SLOTS, TAKEN_AT_ONCE, Ring
from audio.decoder_wire import Channel, Message
from audio.errors import TOO_MUCH_MEMORY, AudioError, DecoderError, DecoderMemory, StorageError
from audio.fetch import open_recording
from audio.ranged_file import RangedFile
from audio.recording import Segment

_PIECES = 3
_HOLD_S = 0.005
"""For so long, what is decoded is held back to be said together with what follows."""


def main() -> None:
    """Work until the parent closes its end, on the pipes that are standard input and output at first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    read_fd, write_fd = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    # What a library prints must not get among the messages.
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    try:
        _Child(read_fd, write_fd, nowhere).run()
    except (EOFError, BrokenPipeError):
        # The parent is gone. Freeing what a decoder holds is up to the system.
        os._exit(0)


class _Child:
    def __init__(self, read_fd: int, write_fd: int, nowhere: int) -> None:
        self._timer: Timer | None = None
        self._polls = {False: select.poll(), True: select.poll()}
        self._polls[False].register(read_fd, select.POLLIN)
        self._polls[True].register(write_fd, select.POLLOUT)
        self._channel = Channel(read_fd, write_fd, self._wait)
        setup = self._channel.receive(wire.FROM_PARENT).values
        self._settings = ClipSettings(**setup["settings"])
        limits = DecoderLimits(**setup["limits"])
        self._idle_s = limits.idle_s
        self._flushed_s = 0.0
        self._sent = 0
        self._held = 0
        self._inbox: int = setup["inbox"]
        self._ring = Ring(setup["ring"])
        os.close(setup["ring"])
        self._free_slots = SLOTS
        self._timer = Timer(limits.idle_s)
        if self._settings.resampler == "tensorflow_io":
            tensorflow_resampler.check()  # now, as what it loads and its threads are not the recordings' memory
        give_up_rights()
        self._memory = Memory(limits.memory_bytes)
        # Until here, standard error says why the process cannot work; from here on, decoders write of files' oddities.
        os.dup2(nowhere, 2)
        os.close(nowhere)
        gc.collect()
        gc.freeze()  # what was imported stays

    def run(self) -> None:
        self._channel.send(wire.READY)
        while True:
            values = self._receive().values
            self._free_slots = SLOTS  # for a job's end is read after its clips
            self._sent = 0
            self._ring.restart()
            self._ring.release(0)
            self._decode(wire.segment_of(values), values["source"])

    def _receive(self) -> Message:
        """Return the parent's next message, but for what it has taken."""
        while True:
            message = self._channel.receive(wire.FROM_PARENT)
            if message.kind != wire.TAKEN:
                return message
            self._free_slots += message.values

    def _wait(self, for_writing: bool) -> None:
        """Wait for the parent; the time that it takes is not the decoder's."""
        left_s = self._timer.stop() if self._timer else 0.0
        self._polls[for_writing].poll()
        if self._timer:
            self._timer.go_on(left_s)

    def _decode(self, segment: Segment, source: str) -> None:
        assert self._timer is not None
        stream: ClipStream | None = None
        error: AudioError | None = None
        self._flushed_s = time.monotonic()
        try:
            self._timer.start()
            with self._open(segment, source) as file:
                stream = open_clips(file, self._settings, segment.takes or None, segment.start_s, segment.stop_s)
                stream.on_block, stream.new_samples = self._goes_on, self._free_slot
                self._send_results(stream)
            error = stream.error
        except AudioError as opening:
            error = opening
        except MemoryError:
            error = DecoderMemory(TOO_MUCH_MEMORY)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as unforeseen:  # noqa: BLE001 - else it would be told as a crash, and why would be lost
            error = DecoderError(f"decoding failed in an unforeseen way ({type(unforeseen).__name__})")
        self._timer.stop()
        is_last = isinstance(error, DecoderMemory) or self._memory.is_bloated()
        self._send(wire.END, wire.end_values(stream, error, is_last=is_last))

    def _send_results(self, stream: ClipStream) -> None:
        assert self._timer is not None
        is_first = True
        for result in stream:
            if is_first:
                source = stream.source
                self._hold(
                    wire.FORMAT, [source.rate_hz, source.channels, source.container, source.codec, source.decoder]
                )
                is_first = False
            if isinstance(result, Clip):
                self._free_slots -= 1
                self._ring.go_on()
            self._hold(*wire.result_values(result))
            if self._held > TAKEN_AT_ONCE or time.monotonic() >= self._flushed_s + _HOLD_S:
                self._flush()
            self._timer.start()

    def _free_slot(self) -> Samples:
        """Return where the next clip's samples go, when there is room."""
        while self._free_slots == 0:
            self._flush()
            self._free_slots += self._channel.receive(wire.FROM_PARENT).values
        return self._ring.slot

    def _hold(self, kind: bytes, values: Any) -> None:
        """Say something soon: for a short while, or until there are some more things to say."""
        message = self._channel.hold(kind, values)
        self._sent += 1
        self._held += 1
        if not self._ring.hold(message):
            self._flush()

    def _send(self, kind: bytes, values: Any = None) -> None:
        """Say something now."""
        self._channel.send(kind, values)
        self._sent += 1
        self._let_go()

    def _flush(self) -> None:
        self._channel.flush()
        self._let_go()

    def _let_go(self) -> None:
        self._held = 0
        self._ring.release(self._sent)
        self._flushed_s = time.monotonic()

    def _goes_on(self) -> None:
        """Note that there is progress; say so, if there was nothing else to say for long."""
        assert self._timer is not None
        self._timer.start()
        now_s = time.monotonic()
        if self._held and now_s >= self._flushed_s + _HOLD_S:
            self._flush()
        elif now_s >= self._flushed_s + self._idle_s:
            self._send(wire.ALIVE)

    def _open(self, segment: Segment, source: str) -> BinaryIO:
        if source == "path":
            return open_recording(segment.recording)
        if source == "inbox":
            os.lseek(self._inbox, 0, os.SEEK_SET)
            return cast(BinaryIO, open(self._inbox, "rb", closefd=False))
        return cast(BinaryIO, io.BufferedReader(_ParentsFile(self._ask, segment.recording.size_bytes)))

    def _ask(self, offset: int, size: int) -> bytes:
        """Return bytes of the file that the parent has. Raises what reading it raised there."""
        self._send(wire.ASK, [offset, size])
        answer = self._receive()
        if answer.kind == wire.FAULT:
            raise wire.error_of(answer.values) or StorageError("reading the file failed; try again")
        return os.pread(self._inbox, answer.values, 0)


class _ParentsFile(RangedFile):
    """A file that the parent has: each read asks for it."""

    def __init__(self, ask: Callable[[int, int], bytes], size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._ask = ask
        self._pieces: dict[int, bytes] = {}

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not 0 <= self._position < self._size_bytes:
            return 0
        number, at = divmod(self._position, wire.PIECE_BYTES)
        data = memoryview(self._piece(number))[at : at + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _piece(self, number: int) -> bytes:
        """Return a piece, of which the last few are kept: decoders go back and forth."""
        data = self._pieces.pop(number, None)
        if data is None:
            start = number * wire.PIECE_BYTES
            data = self._ask(start, min(wire.PIECE_BYTES, self._size_bytes - start))
            if len(self._pieces) == _PIECES:
                del self._pieces[next(iter(self._pieces))]
        self._pieces[number] = data
        return data


if __name__ == "__main__":
    sys.exit("this is started by the process that wants something decoded")
