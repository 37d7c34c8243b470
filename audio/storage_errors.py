"""What Cloud Storage and Google's sign-in answer when they refuse or fail, in our own words: their texts are not ours to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from audio.errors import AccessDenied, FetchError, MissingFile, StorageError

if TYPE_CHECKING:
    from google.cloud import storage

LOGIN: Final = "run: gcloud auth application-default login"


def reason(error: BaseException) -> str:
    """What went wrong, in brackets' length: `HTTP 403`, `HTTP 503, again and again`, `ConnectionError`, `No space left on device`."""
    cause = getattr(error, "cause", None)  # of a RetryError: what the last attempt met
    if isinstance(cause, BaseException):
        return f"{reason(cause)}, again and again"
    response = getattr(error, "response", None)  # of the library's InvalidResponse
    for code in (getattr(error, "code", None), getattr(response, "status_code", None)):
        if isinstance(code, int):
            return f"HTTP {int(code)}"
    said = getattr(error, "strerror", None)
    return said if isinstance(said, str) and said else type(error).__name__


def client_errors() -> tuple[type[Exception], ...]:
    """What the Cloud Storage client raises, besides OSError, where it has given up."""
    from http.client import HTTPException

    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from urllib3.exceptions import HTTPError

    return GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, HTTPException, HTTPError


def is_bad_request(error: BaseException) -> bool:
    """Whether the service did not take the request as it was, though there is nothing wrong with its form."""
    from google.api_core import exceptions

    return isinstance(error, exceptions.BadRequest)


def fetch_error(error: Exception, doing: str, right: str, remedy: str = "try again") -> FetchError:
    """The FetchError for what the client raised.

    Args:
      error: what it raised.
      doing: `reading the object`.
      right: what must be granted if it was refused: `storage.objects.get on its bucket`.
      remedy: if it may pass.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    match error:
        case exceptions.NotFound():
            return MissingFile("the object was listed, but is no longer there")
        case exceptions.Forbidden():
            return AccessDenied(f"{doing} was refused (HTTP 403); grant {right}")
        case exceptions.Unauthorized():
            return AccessDenied(f"the Google credentials were not accepted (HTTP 401); {LOGIN}")
        case DefaultCredentialsError():
            return AccessDenied(f"there are no usable Google credentials ({type(error).__name__}); {LOGIN}")
        case GoogleAuthError() if error.retryable:
            return StorageError(f"Google's sign-in service failed ({type(error).__name__}); {remedy}")
        case GoogleAuthError():
            return AccessDenied(f"the Google credentials were not accepted ({type(error).__name__}); {LOGIN}")
        case _:
            return StorageError(f"{doing} failed ({reason(error)}); {remedy}")


def requester_pays() -> AccessDenied:
    """What it means that nothing of a bucket can be asked for."""
    return AccessDenied(
        "its bucket has whoever reads pay for it (requester pays), which is not supported; copy what is in it to another bucket"
    )


def why_not_as_it_is(blob: storage.Blob) -> FetchError:
    """Why an object that is there cannot be read by a request that is well-formed; asks for what is known of it."""
    try:
        found = blob.bucket.get_blob(blob.name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the object cannot be read
        if is_bad_request(error):
            return requester_pays()
        return fetch_error(error, "reading the object", "storage.objects.get on its bucket")
    if found is not None and found._properties.get("customerEncryption"):
        return AccessDenied(
            "the object is encrypted with a key that only its owner has (customer-supplied), which is not supported; store it "
            "without one"
        )
    return StorageError("reading the object failed (HTTP 400); try again")
