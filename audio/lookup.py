"""What is behind URIs that are named one by one: the recording in its present version, or why there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from audio.errors import AccessDenied, FetchError, MissingFile, NotARegularFile, StorageError
from audio.fetch import check_regular, error_name, local_version, storage_client, widen_pool
from audio.listing import Unlisted
from audio.recording import Recording

if TYPE_CHECKING:
    from google.cloud import storage

_GS: Final = "gs://"
_THREADS: Final = 32
"""Requests at a time: one takes some 50 ms, nearly all of it waiting."""
_RETRY_FOR_S: Final = 60.0
_LOGIN: Final = "run: gcloud auth application-default login"


def resolve(uris: Sequence[str]) -> list[Recording | Unlisted]:
    """What each of `uris`, local paths or `gs://bucket/name`, stands for, in their order.

    They are taken literally, never as globs. Objects are looked up in parallel, one request each, tried again for a
    minute. An Unlisted has the code `missing_file`, `not_a_regular_file`, `permission_denied` or `storage_error`; the
    last two may pass and are retryable.
    """
    found: dict[str, Recording | Unlisted] = {}
    objects: list[str] = []
    for uri in dict.fromkeys(uris):
        if uri.startswith(_GS):
            objects.append(uri)
        else:
            found[uri] = _outcome(uri, _local(uri))
    if objects:
        found.update(zip(objects, _look_up(objects), strict=True))
    return [found[uri] for uri in uris]


def _outcome(uri: str, found: Recording | FetchError) -> Recording | Unlisted:
    if isinstance(found, FetchError):
        return Unlisted(uri, found.code, found.message, found.retryable)
    return found


def _local(path: str) -> Recording | FetchError:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path is looked up as it is, never normalised
        check_regular(status)
    except NotARegularFile as error:
        return error
    except (FileNotFoundError, NotADirectoryError):
        return MissingFile("there is no such file")
    except PermissionError:
        return AccessDenied("this user may not look into the file's folder; change its permissions")
    except ValueError:  # a zero byte, or what the file system's encoding does not have
        return MissingFile("no file can have this name")
    except OSError as error:
        name = error_name(error)
        if name in ("ELOOP", "ENAMETOOLONG"):
            return MissingFile(f"there can be no such file ({name})")
        return StorageError(f"looking at the file failed ({name}); try again")
    return Recording(path, local_version(status), status.st_size)


def _look_up(uris: list[str]) -> list[Recording | Unlisted]:
    from google.auth.exceptions import GoogleAuthError

    try:
        client = storage_client()
    except GoogleAuthError as error:
        denied = AccessDenied(f"there are no usable Google credentials ({type(error).__name__}); {_LOGIN}")
        return [_outcome(uri, denied) for uri in uris]
    if len(uris) == 1:
        return [_outcome(uris[0], _object(client, uris[0]))]
    widen_pool(client, _THREADS)
    with ThreadPoolExecutor(min(_THREADS, len(uris)), thread_name_prefix="lookup") as pool:
        return list(pool.map(lambda uri: _outcome(uri, _object(client, uri)), uris))


def _object(client: storage.Client, uri: str) -> Recording | FetchError:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.retry import DEFAULT_RETRY

    bucket, _, name = uri.removeprefix(_GS).partition("/")
    if not bucket or not name:
        return MissingFile("this names no object; expected gs://bucket/name")
    if name.endswith("/"):
        return NotARegularFile("this is a folder, not an object")
    try:
        blob = client.bucket(bucket).get_blob(name, retry=DEFAULT_RETRY.with_timeout(_RETRY_FOR_S))
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        return AccessDenied(
            f"the object may not be read, or does not exist (HTTP {error.code}); grant storage.objects.get and "
            "storage.objects.list on its bucket"
        )
    except exceptions.GoogleAPICallError as error:
        return StorageError(f"looking up the object failed (HTTP {error.code}); try again")
    except exceptions.RetryError as error:
        return StorageError(
            f"looking up the object failed again and again (last: {type(error.cause).__name__}); try again later"
        )
    except GoogleAuthError as error:
        if error.retryable:
            return StorageError(f"Google's sign-in service failed ({type(error).__name__}); try again")
        return AccessDenied(f"the Google credentials were not accepted ({type(error).__name__}); {_LOGIN}")
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        return StorageError(f"looking up the object failed ({type(error).__name__}); try again")
    if blob is None:
        return MissingFile("there is no such object, or no such bucket")
    return Recording(uri, str(blob.generation), int(blob.size))
