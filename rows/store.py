"""Where a checkpoint is: a folder on disk, or one on Cloud Storage. Files are written once, under their final names, whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from audio.storage_errors import reason
from rows import objects

if TYPE_CHECKING:
    from google.cloud import storage

_GS: Final = "gs://"
_THREADS: Final = 16
_TEMPORARY: Final = ".tmp"


class StoreError(Exception):
    """Something in the checkpoint could not be read, written or removed; the message names it and says why."""


class MissingFile(StoreError):
    """There is no file of that name."""


class Store(Protocol):
    """A folder; names are paths below it, with slashes. All methods raise StoreError, and may be called on any thread."""

    @property
    def folder(self) -> str:
        """The folder's path, without a slash at the end."""

    def write(self, name: str, data: bytes) -> None:
        """Stores a file that nobody has written before: all of it or nothing."""

    def read(self, name: str) -> bytes:
        """The whole file; MissingFile if there is none."""

    def names(self, prefix: str = "") -> Iterator[str]:
        """The files whose names begin with `prefix`, which is empty or ends with a slash; in no order."""

    def folders(self) -> list[str]:
        """The names of the folders right below, sorted."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; one that is gone is no error."""


def open_store(folder: str) -> Store:
    """The store at `folder`, a path on disk or `gs://bucket/folder`."""
    return BucketStore(folder) if folder.startswith(_GS) else LocalStore(folder)


class LocalStore:
    """A folder on disk."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._root = Path(folder)

    @property
    def folder(self) -> str:
        """See Store."""
        return self._folder

    def write(self, name: str, data: bytes) -> None:
        """See Store: a temporary file beside it is synced and renamed."""
        target = self._root / name
        try:
            write_on_disk(target, data)
        except OSError as error:
            raise _cannot("write", str(target), error) from error

    def read(self, name: str) -> bytes:
        """See Store."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise MissingFile(f"there is no {name!r} in {self._folder!r}") from None
        except OSError as error:
            raise _cannot("read", f"{self._folder}/{name}", error) from error

    def names(self, prefix: str = "") -> Iterator[str]:
        """See Store."""
        pending = [prefix]
        while pending:
            below = pending.pop()
            try:
                with os.scandir(self._root / below) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _cannot("list", f"{self._folder}/{below}", error) from error
            pending.extend(f"{below}{name}/" for name, is_folder in found if is_folder)
            yield from (f"{below}{name}" for name, is_folder in found if not is_folder and not _is_temporary(name))

    def folders(self) -> list[str]:
        """See Store."""
        try:
            with os.scandir(self._root) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _cannot("list", self._folder, error) from error

    def remove(self, names: Iterable[str]) -> None:
        """See Store; folders that are empty then go as well, with what writers that were killed have left in them."""
        emptied: set[Path] = set()
        for name in names:
            path = self._root / name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _cannot("remove", str(path), error) from error
            emptied.update(parent for parent in path.parents if self._root in parent.parents)
        for folder in sorted(emptied, key=lambda folder: -len(folder.parts)):
            with contextlib.suppress(OSError):
                for entry in list(folder.iterdir()):
                    if _is_temporary(entry.name):
                        entry.unlink()
                folder.rmdir()


class BucketStore:
    """A folder on Cloud Storage."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._bucket, _, path = folder.removeprefix(_GS).partition("/")
        self._prefix = f"{path}/" if path else ""

    @property
    def folder(self) -> str:
        """See Store."""
        return self._folder

    def write(self, name: str, data: bytes) -> None:
        """See Store: one request, on the condition that the object is not there."""
        try:
            objects.write_new(self._blob(name), data)
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise _cannot("write", f"{self._folder}/{name}", error) from None

    def read(self, name: str) -> bytes:
        """See Store."""
        from google.api_core import exceptions

        try:
            return objects.read(self._blob(name))
        except exceptions.NotFound:
            raise MissingFile(f"there is no {name!r} in {self._folder!r}") from None
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("read", f"{self._folder}/{name}", error) from None

    def names(self, prefix: str = "") -> Iterator[str]:
        """See Store."""
        try:
            for name in objects.names(self._bucket, self._prefix + prefix):
                yield name.removeprefix(self._prefix)
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("list", f"{self._folder}/{prefix}", error) from None

    def folders(self) -> list[str]:
        """See Store."""
        try:
            found = objects.folders(self._bucket, self._prefix)
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("list", self._folder, error) from None
        return [folder.removeprefix(self._prefix).rstrip("/") for folder in found]

    def remove(self, names: Iterable[str]) -> None:
        """See Store."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="checkpoint") as pool:
            for _ in pool.map(self._remove, names):
                pass

    def _remove(self, name: str) -> None:
        try:
            objects.delete(self._blob(name))
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("remove", f"{self._folder}/{name}", error) from None

    def _blob(self, name: str) -> storage.Blob:
        return objects.blob_at(f"{self._folder}/{name}")


def write_on_disk(target: Path, data: bytes) -> None:
    """Writes a file, all of it or nothing, in folders that are made if need be: a temporary one beside it is synced and renamed.

    Raises OSError.
    """
    temporary = target.with_name(f".{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(_TEMPORARY)


def _cannot(what: str, path: str, error: BaseException) -> StoreError:
    return StoreError(
        f"cannot {what} {path!r} of the checkpoint ({reason(error)}): is there space, and may it be done?"
    )
