"""How many requests a run may still send: one count for all of its processes on this machine, kept before each goes out."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from endpoint.errors import BudgetSpent, RequestCountLost
from endpoint.private_folder import default_folder, folder_unusable, open_private_folder, remove_old_files

if TYPE_CHECKING:
    from endpoint.settings import EndpointSettings

_PREFIX = "requests-"
_COUNT = struct.Struct("<8sQ")
_CHECKSUM = struct.Struct("<I")
_FORMAT = b"HEARSENT"
_FILE_BYTES = _COUNT.size + _CHECKSUM.size


class RequestBudget(Protocol):
    """The number of requests that may go out in a run, retries included; for any threads."""

    @property
    def limit(self) -> int:
        """How many that are in all."""

    def take(self) -> bool:
        """Whether one more request may go out. It is counted then, and must be sent: nothing is given back.

        Raises:
            RunEnded: `RequestCountLost` if it is not known how many went out, or `PrivateFolderUnusable`; no more may then.
        """

    def left(self) -> int:
        """How many more may go out; once this is 0 it stays so.

        Raises:
            RunEnded: as above.
        """


class LocalBudget:
    """The budget of one process alone.

    Args:
        limit: requests, at least 1.

    Raises:
        ValueError: for another limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = _checked(limit)
        self._left = limit
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """See `RequestBudget`."""
        return self._limit

    def take(self) -> bool:
        """See `RequestBudget`."""
        with self._lock:
            if self._left == 0:
                return False
            self._left -= 1
            return True

    def left(self) -> int:
        """See `RequestBudget`."""
        return self._left


class SharedBudget:
    """The budget of all processes of this machine and user that belong to a run (see `RequestBudget`).

    The count is in a file that they lock in turn, some 20 µs a call. One process, the run's first, makes it by `begin`;
    nobody else does, and nobody makes it again: a file that is missing, damaged, no longer in a private folder, or that
    cannot be written means that nothing more is sent, for no one knows what was. So no accident lets more requests out
    than the limit. The file is written before a request goes out; a process that is killed in between has counted one
    that nobody saw.

    Nothing is kept open or in memory: an object may be used by any threads, and in a process forked from this one.

    Args:
        path_folder: where the file is; must belong to this user, closed to others.
        key: names the run; processes with the same key share a count.
        limit: requests in all, at least 1.

    Raises:
        ValueError: for another limit.
    """

    def __init__(self, path_folder: str | Path, key: str, limit: int) -> None:
        self._folder = Path(path_folder)
        self._name = f"{_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._limit = _checked(limit)

    @classmethod
    def of(cls, settings: EndpointSettings) -> SharedBudget:
        """The budget of the settings' run, which must have one, in this user's own folder (`default_folder`)."""
        assert settings.max_requests is not None
        return cls(default_folder(), settings.run_id, settings.max_requests)

    @property
    def limit(self) -> int:
        """See `RequestBudget`."""
        return self._limit

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / self._name

    def begin(self) -> None:
        """Starts the count, once in a run and before anything is sent. One that is there already goes on.

        Counts of other runs that nobody has used for a day are removed. A run that sends nothing for that long may find
        its own gone, and ends.

        Raises:
            PrivateFolderUnusable: if the folder cannot be made or is not private, or cannot hold the file.
        """
        folder = open_private_folder(self._folder)
        unnamed = f"{self._name}.{secrets.token_hex(8)}"
        try:
            file = os.open(
                unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                os.write(file, _written(0))
            finally:
                os.close(file)
            # Under its name it is whole from the start, and only the first of two processes gives it one.
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(unnamed, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                os.unlink(unnamed, dir_fd=folder)
            remove_old_files(folder, _PREFIX)
        except OSError as error:
            raise folder_unusable(self._folder, f"cannot hold a file ({error.strerror})") from None
        finally:
            os.close(folder)

    def take(self) -> bool:
        """See `RequestBudget`."""
        with self._locked() as file:
            sent = self._read(file)
            if sent >= self._limit:
                return False
            if os.pwrite(file, _written(sent + 1), 0) != _FILE_BYTES:
                raise self._lost("cannot be written")
            return True

    def left(self) -> int:
        """See `RequestBudget`."""
        with self._locked() as file:
            return max(0, self._limit - self._read(file))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, while no other process or thread has it."""
        try:
            folder = open_private_folder(self._folder)
            try:
                file = os.open(self._name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            finally:
                os.close(folder)
            try:
                # Unlocked by closing: each call opens it anew, so that threads are kept apart as well.
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
            finally:
                os.close(file)
        except FileNotFoundError:
            raise self._lost("is missing") from None
        except OSError as error:
            raise self._lost(f"cannot be used ({error.strerror})") from None

    def _read(self, file: int) -> int:
        """How many requests went out."""
        data = os.pread(file, _FILE_BYTES + 1, 0)
        counted, checksum = data[: _COUNT.size], data[_COUNT.size :]
        if len(data) == _FILE_BYTES and _CHECKSUM.pack(zlib.crc32(counted)) == checksum:
            tag, sent = _COUNT.unpack(counted)
            if tag == _FORMAT:
                return int(sent)
        raise self._lost("is damaged")

    def _lost(self, reason: str) -> RequestCountLost:
        return RequestCountLost(
            f"The file {self.path}, in which the processes of this run count their requests, {reason}: nothing more is "
            f"sent, as more than --max_requests {self._limit} could be. Start the command again for a new count."
        )


def require_left(budget: RequestBudget | None) -> None:
    """Does nothing as long as another request may go out; None is no limit.

    Raises:
        RunEnded: `BudgetSpent` if none may, or as `RequestBudget.left`.
    """
    if budget is not None and not budget.left():
        raise _spent(budget)


def take_one(budget: RequestBudget | None) -> None:
    """Counts a request, which must be sent then; None is no limit.

    Raises:
        RunEnded: `BudgetSpent` if it may not be sent, or as `RequestBudget.take`.
    """
    if budget is not None and not budget.take():
        raise _spent(budget)


def _spent(budget: RequestBudget) -> BudgetSpent:
    return BudgetSpent(
        f"All requests that --max_requests {budget.limit} allows this run are used up, so that nothing more is sent; the "
        "same command goes on with what is left."
    )


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"the limit of requests is {limit!r}: expected a whole number of at least 1")
    return limit


def _written(sent: int) -> bytes:
    counted = _COUNT.pack(_FORMAT, sent)
    return counted + _CHECKSUM.pack(zlib.crc32(counted))
