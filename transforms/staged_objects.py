"""Single objects in a staging bucket: written once, deleted until they are gone, with errors in our own words.

AudioError
└── StagingError          staging_error: the storage failed for too long; the same clip may well succeed later
    └── StagingRefused    staging_error: rights, credentials or the bucket are missing; no other clip will fare better
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from audio.errors import AudioError
from audio.storage_errors import LOGIN
from endpoint.items import ClipObject
from rows import objects
from rows.objects import RETRY_FOR_S

if TYPE_CHECKING:
    from google.cloud import storage

ClientFactory = Callable[[], "storage.Client"]
"""Returns the process's one Cloud Storage client: `audio.fetch.storage_client`."""


class StagingError(AudioError):
    """A clip could not be staged, or what is staged not be listed or removed."""

    code = "staging_error"
    retryable = True


class StagingRefused(StagingError):
    """The same for every clip, until somebody grants a right or makes the bucket."""

    retryable = False


def upload(
    client: storage.Client,
    target: ClipObject,
    wav: bytes,
    retry_for_s: float = RETRY_FOR_S,
    first_pause_s: float = 1.0,
) -> None:
    """Write an object under a name that nobody has used. Raises StagingError; the object may then be there, or come.

    Args:
      client: see ClientFactory.
      target: the object, by a random name.
      wav: a WAV file.
      retry_for_s: how long to try.
      first_pause_s: the longest pause before the first retry; doubled for each further one.
    """
    blob = client.bucket(target.bucket).blob(target.name)
    try:
        objects.write_new(blob, wav, "audio/wav", retry_for_s, first_pause_s)
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        raise staging_error(error, target.bucket, "writing", "storage.objects.create") from None


def delete(
    client: storage.Client, target: ClipObject, retry_for_s: float = RETRY_FOR_S, first_pause_s: float = 1.0
) -> None:
    """Delete an object; one that is not there is deleted. Raises StagingError. Arguments as of `upload`."""
    try:
        objects.delete(client.bucket(target.bucket).blob(target.name), retry_for_s, first_pause_s)
    except Exception as error:  # noqa: BLE001 - likewise
        raise staging_error(error, target.bucket, "deleting", "storage.objects.delete") from None


def staging_error(error: Exception, bucket: str, doing: str, permission: str) -> StagingError:
    """Return, in our own words, what `error` says about `doing` something in gs://bucket, which needs `permission`."""
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    where = f"{doing} staged clips in gs://{bucket}"
    match error:
        case StagingError():
            return error
        case exceptions.NotFound():
            return StagingRefused(f"{where}: there is no such bucket; make it, or name another --staging_location")
        case exceptions.Forbidden():
            return StagingRefused(f"{where} was refused (HTTP 403); grant {permission} on the bucket")
        case exceptions.Unauthorized():
            return StagingRefused(f"{where}: the Google credentials were not accepted (HTTP 401); {LOGIN}")
        case exceptions.RetryError():
            cause = type(error.cause).__name__
            return StagingError(f"{where} failed again and again (last: {cause}); try again later")
        case exceptions.ClientError() if error.code != exceptions.TooManyRequests.code:
            return StagingRefused(f"{where} was refused (HTTP {error.code}); name another --staging_location")
        case exceptions.GoogleAPICallError():
            return StagingError(f"{where} failed (HTTP {error.code}); try again later")
        case DefaultCredentialsError():
            return StagingRefused(f"{where}: there are no usable Google credentials; {LOGIN}")
        case GoogleAuthError() if not error.retryable:
            return StagingRefused(
                f"{where}: the Google credentials were not accepted ({type(error).__name__}); {LOGIN}"
            )
        case _:
            return StagingError(f"{where} failed ({type(error).__name__}); try again later")
