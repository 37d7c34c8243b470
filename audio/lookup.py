"""What is behind URIs that are named one by one: the recording in its present version, or why there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from audio.errors import AccessDenied, FetchError, MissingFile, NotARegularFile, StorageError
from audio.fetch import (
    ANSWER_WITHIN_S,
    check_regular,
    error_name,
    local_version,
    retry_policy,
    storage_client,
    widen_pool,
)
from audio.listing import Unlisted
from audio.recording import Recording
from audio.storage_errors import fetch_error, is_bad_request, requester_pays

if TYPE_CHECKING:
    from google.cloud import storage

_GS: Final = "gs://"
_THREADS: Final = 32
"""Requests at a time: one takes some 50 ms, nearly all of it waiting."""
_RETRY_FOR_S: Final = 60.0
_LOOKING: Final = "looking up the object"
_RIGHTS: Final = "storage.objects.get and storage.objects.list on its bucket, if the object is there at all"


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
        return [_outcome(uri, fetch_error(error, _LOOKING, _RIGHTS)) for uri in uris]
    if len(uris) == 1:
        return [_outcome(uris[0], _object(client, uris[0]))]
    widen_pool(client, _THREADS)
    with ThreadPoolExecutor(min(_THREADS, len(uris)), thread_name_prefix="lookup") as pool:
        return list(pool.map(lambda uri: _outcome(uri, _object(client, uri)), uris))


def _object(client: storage.Client, uri: str) -> Recording | FetchError:
    bucket, _, name = uri.removeprefix(_GS).partition("/")
    if not bucket or not name:
        return MissingFile("this names no object; expected gs://bucket/name")
    if name.endswith("/"):
        return NotARegularFile("this is a folder, not an object")
    try:
        blob = client.bucket(bucket).get_blob(name, timeout=ANSWER_WITHIN_S, retry=retry_policy(_RETRY_FOR_S))
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        return requester_pays() if is_bad_request(error) else fetch_error(error, _LOOKING, _RIGHTS)
    if blob is None:
        return MissingFile("there is no such object, or no such bucket")
    return Recording(uri, str(blob.generation), int(blob.size))
