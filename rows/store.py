"""Where a checkpoint is: a folder on disk, or one on Cloud Storage. Files are written once, under their final names, whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from audio.fetch import storage_client

if TYPE_CHECKING:
    from google.cloud import storage

_GS: Final = "gs://"
_RETRY_FOR_S: Final = 60.0
_ANSWER_WITHIN_S: Final = (10.0, 60.0)
"""To connect, and between two bytes of an answer."""
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
        """See Store: one request; where the object is there already, an earlier attempt's answer was lost."""
        from google.api_core import exceptions

        try:
            self._blob(name).upload_from_string(
                data, "application/octet-stream", if_generation_match=0, timeout=_ANSWER_WITHIN_S, retry=_retry()
            )
        except exceptions.PreconditionFailed:
            return
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise _cannot("write", f"{self._folder}/{name}", error) from None

    def read(self, name: str) -> bytes:
        """See Store."""
        from google.api_core import exceptions

        try:
            data: bytes = self._blob(name).download_as_bytes(
                raw_download=True, timeout=_ANSWER_WITHIN_S, retry=_retry()
            )
        except exceptions.NotFound:
            raise MissingFile(f"there is no {name!r} in {self._folder!r}") from None
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("read", f"{self._folder}/{name}", error) from None
        return data

    def names(self, prefix: str = "") -> Iterator[str]:
        """See Store."""
        try:
            blobs = storage_client().list_blobs(
                self._bucket, prefix=self._prefix + prefix, fields="items(name),nextPageToken", retry=_retry()
            )
            for blob in blobs:
                yield blob.name.removeprefix(self._prefix)
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("list", f"{self._folder}/{prefix}", error) from None

    def folders(self) -> list[str]:
        """See Store."""
        try:
            blobs = storage_client().list_blobs(
                self._bucket, prefix=self._prefix, delimiter="/", fields="prefixes,nextPageToken", retry=_retry()
            )
            for _ in blobs.pages:  # the prefixes are complete once the last page was read
                pass
            return sorted(prefix.removeprefix(self._prefix).rstrip("/") for prefix in blobs.prefixes)
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("list", self._folder, error) from None

    def remove(self, names: Iterable[str]) -> None:
        """See Store."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="checkpoint") as pool:
            for _ in pool.map(self._remove, names):
                pass

    def _remove(self, name: str) -> None:
        from google.api_core import exceptions

        try:
            self._blob(name).delete(timeout=_ANSWER_WITHIN_S, retry=_retry())
        except exceptions.NotFound:
            return
        except Exception as error:  # noqa: BLE001 - likewise
            raise _cannot("remove", f"{self._folder}/{name}", error) from None

    def _blob(self, name: str) -> storage.Blob:
        return storage_client().bucket(self._bucket).blob(self._prefix + name)


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


def _retry() -> object:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_RETRY_FOR_S)


def _cannot(what: str, path: str, error: BaseException) -> StoreError:
    code = getattr(error, "code", None)
    because = getattr(error, "strerror", None) or (f"HTTP {code}" if isinstance(code, int) else type(error).__name__)
    return StoreError(f"cannot {what} {path!r} of the checkpoint ({because}): is there space, and may it be done?")
