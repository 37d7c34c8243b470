"""One pace for all processes of a machine that ask the same endpoint: its state in a file that they lock in turn."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from endpoint.packing import Packing
from endpoint.private_folder import default_folder, folder_unusable, open_private_folder, remove_old_files
from endpoint.rate import RateState
from endpoint.tally import COUNTED_S

if TYPE_CHECKING:
    from endpoint.settings import EndpointSettings

_T = TypeVar("_T")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FORMAT = b"HEARRATE2"
_HEADER = struct.Struct(f"<{len(_FORMAT)}s16s")
_STATE = Packing(RateState, COUNTED_S)
_CHECKSUM = struct.Struct("<I")
_FILE_BYTES = _HEADER.size + _STATE.size_bytes + _CHECKSUM.size
_MOST_UNSAVED = 256
_PREFIX = "rate-"


class SharedRate:
    """The pace of all processes of this machine and user that ask the same endpoint (see `rate.Rate`).

    The state outlives its processes, so that a run that follows another does not start anew; it is forgotten after
    some minutes without requests, and when the machine starts again. One that cannot be read, say because a process
    was killed while writing, is forgotten as well: the pace begins as that of a first process, without a burst.

    For one thread of a process; in a process that was forked from this one it goes on with a lock of its own. Answers
    are noted when the next slot is taken: a call locks, reads and writes the file once, in some 30 µs.

    Args:
        path_folder: where the file is; made if it does not exist. Must belong to this user, closed to others.
        key: names the endpoint; processes with the same key share a pace.
        max_requests_per_minute: the limit; None for what the endpoint lets through.

    Raises:
        PrivateFolderUnusable: on construction.
    """

    def __init__(self, path_folder: str | Path, key: str, max_requests_per_minute: float | None = None) -> None:
        self._folder = Path(path_folder)
        self._name = f"{_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._limit = max_requests_per_minute
        self._boot_id = boot_id()
        self._unsaved: list[tuple[float, float]] = []
        self._file = -1
        self._process = -1
        self._open()
        try:
            self._change(lambda _: None)
        except OSError as error:
            raise folder_unusable(
                self._folder, f"holds no file that can be locked and written ({error.strerror})"
            ) from None

    @classmethod
    def of(cls, settings: EndpointSettings) -> SharedRate:
        """The pace of the settings' endpoint, in this user's own folder (`default_folder`)."""
        return cls(default_folder(), f"{settings.name} {settings.host}", settings.max_requests_per_minute)

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / self._name

    def reserve(self, now_s: float) -> float:
        """See `Rate`."""
        return self._change(lambda state: state.reserve(now_s, self._limit))

    def release(self, slot_s: float) -> None:
        """See `Rate`."""
        self._change(lambda state: state.release(slot_s, self._limit))

    def answered(self, sent_s: float, now_s: float) -> None:
        """See `Rate`."""
        self._unsaved.append((sent_s, now_s))
        if len(self._unsaved) >= _MOST_UNSAVED:
            self._change(lambda _: None)

    def refused(self, sent_s: float, now_s: float, hint_s: float | None) -> None:
        """See `Rate`."""
        self._change(lambda state: state.refused(sent_s, now_s, hint_s))

    def close(self) -> None:
        """Notes what is left to note, and closes the file; the state stays. Not to be used any more after that."""
        if self._process != os.getpid():
            return
        if self._unsaved:
            self._change(lambda _: None)
        os.close(self._file)
        self._process = -1

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SharedRate belongs to its process; make one in each")

    def _change(self, action: Callable[[RateState], _T]) -> _T:
        """Applies the answers that are not noted yet and an action to the state, while no other process can."""
        if self._process != os.getpid():
            self._unsaved.clear()  # the parent notes them
            self._open()
        self._lock()
        try:
            state = _read(os.pread(self._file, _FILE_BYTES, 0), self._boot_id)
            for sent_s, now_s in self._unsaved:
                state.answered(sent_s, now_s)
            self._unsaved.clear()
            result = action(state)
            os.pwrite(self._file, _written(state, self._boot_id), 0)
            return result
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self) -> None:
        """Locks the file under its name: another one, if somebody removed the first."""
        while True:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                return
            os.close(self._file)
            self._process = -1
            self._open()

    def _open(self) -> None:
        folder = open_private_folder(self._folder)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._name, flags, 0o600, dir_fd=folder)
        except OSError as error:
            raise folder_unusable(self._folder, f"cannot hold a file ({error.strerror})") from None
        else:
            remove_old_files(folder, _PREFIX)
        finally:
            os.close(folder)
        self._process = os.getpid()


def boot_id() -> bytes:
    """Names the time since this machine started, in 16 bytes; nothing but zeros where the system has no such name."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def _written(state: RateState, boot: bytes) -> bytes:
    data = _HEADER.pack(_FORMAT, boot) + _STATE.pack(state)
    return data + _CHECKSUM.pack(zlib.crc32(data))


def _read(data: bytes, boot: bytes) -> RateState:
    """The state that was written; a new one for anything else, or one of before the machine's start."""
    body, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
    is_whole = len(data) == _FILE_BYTES and _CHECKSUM.unpack(checksum)[0] == zlib.crc32(body)
    if not is_whole or _HEADER.unpack(body[: _HEADER.size]) != (_FORMAT, boot):
        return RateState()
    return _STATE.unpack(body[_HEADER.size :])
