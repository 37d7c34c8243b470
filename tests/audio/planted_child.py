"""A decoding process for tests, in which files that begin with `PLANT` make decoding go wrong in a certain way."""

import ctypes
import io
import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

import audio.decoder_child as child
from audio.clip import ClipResult
from audio.clips import ClipSettings, ClipStream, open_clips

_kept: list[Any] = []
_wires: list[int] = []
_jobs = 0


def planted(what: str, after: int, wav: bytes) -> bytes:
    """A recording of which decoding goes wrong after so many clips of `wav`."""
    return f"PLANT {what} {after}\n".encode() + wav


def main() -> None:
    original = child.Channel

    def channel(read_fd: int, write_fd: int, wait: Any) -> Any:
        _wires.append(write_fd)
        return original(read_fd, write_fd, wait)

    child.Channel = channel  # type: ignore[misc, assignment]
    child.open_clips = _open  # type: ignore[attr-defined, assignment]
    child.main()


def _open(file: BinaryIO, settings: ClipSettings, *more: Any) -> ClipStream:
    global _jobs
    _jobs += 1
    head = file.read(64)
    file.seek(0)
    if not head.startswith(b"PLANT "):
        return open_clips(file, settings, *more)
    data = file.read()
    line, _, wav = data.partition(b"\n")
    _, what, after = line.decode().split()
    stream = open_clips(io.BytesIO(wav), settings, *more)
    stream._results = _go_wrong(stream._results, what, int(after))  # type: ignore[assignment]
    return stream


def _go_wrong(results: Iterator[ClipResult], what: str, after: int) -> Iterator[ClipResult]:
    for _ in range(after):
        yield next(results)
    _act(what)
    yield from results


def _say(data: bytes) -> None:
    """Says something and goes no further: clips that were sent behind it would be as unintelligible as it is."""
    os.write(_wires[0], data)
    time.sleep(60)


def _act(what: str) -> None:
    match what:
        case "segv":
            ctypes.string_at(0)
        case "segv-if-used":
            if _jobs > 1:
                ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "python-loop":
            while True:
                pass
        case "regex":
            re.match(r"(a+)+b", "a" * 64)
        case "c-hang":
            ctypes.PyDLL(None).pause()
        case "memory":
            while True:
                _kept.append(bytearray(1 << 24))
        case "bloat":
            _kept.append(np.ones(150 << 17))
        case "garbage":
            _say(b"all work and no play makes a decoder a dull boy")
        case "not-json":
            _say(struct.pack("<cI", b"C", 5) + b"[1,2]")
        case "huge":
            _say(struct.pack("<cI", b"C", 0xFFFFFFFF))
        case "end-of-another-form":
            _say(struct.pack("<cI", b"E", 2) + b"{}")
        case "hang-up":
            os.close(_wires[0])
            time.sleep(60)
        case "noise":
            os.write(1, b"a library's noise" * 10_000)
            os.write(2, b"a library's noise" * 10_000)
        case "slow":
            time.sleep(0.2)
        case _:
            raise AssertionError(what)
