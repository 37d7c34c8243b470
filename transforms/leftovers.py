"""Staged clips that a run has left behind: found, removed, reported, and what a bucket keeps of deleted ones."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from audio.fetch import storage_client, widen_pool
from endpoint.items import ClipObject
from rows.objects import RETRY_FOR_S, how
from transforms.staged_objects import ClientFactory, StagingError, delete, staging_error
from transforms.staging_area import FOLDER, StagingArea, split_run_uri

if TYPE_CHECKING:
    from google.cloud import storage

_THREADS = 32
_PAGE = 200
_LIST = "storage.objects.list"


class Sweep(NamedTuple):
    """What became of the objects in a run's folder."""

    removed: int
    left: int
    """Objects that could not be deleted."""


def sweep(
    run_uri: str,
    client: ClientFactory = storage_client,
    *,
    retry_for_s: float = RETRY_FOR_S,
    first_pause_s: float = 1.0,
) -> Sweep:
    """Delete everything in a run's folder, `StagingArea.run_uri`.

    Not one object is tried beyond a page of which nothing could be deleted. A bucket that is no longer there has
    nothing left. Raises ValueError for any other folder than a run's, and
    StagingError where the folder cannot be listed.
    """
    bucket, prefix = split_run_uri(run_uri)
    try:
        made = client()
        widen_pool(made, _THREADS)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sweep") as pool:
            removed = 0
            while True:
                there = gone = 0
                is_hopeless = False
                for names in _pages(made, bucket, prefix):
                    there += len(names)
                    if is_hopeless:  # the rest is only counted
                        continue
                    targets = [ClipObject(bucket, name) for name in names]
                    deleted = sum(pool.map(lambda t: _is_deleted(made, t, retry_for_s, first_pause_s), targets))
                    is_hopeless = not deleted
                    gone += deleted
                removed += gone
                # A listing that objects vanish from can skip some: only one that nothing was taken from tells.
                if not gone:
                    return Sweep(removed, there)
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        if _is_missing(error):
            return Sweep(0, 0)
        raise staging_error(error, bucket, "listing", _LIST) from None


def other_leftovers(area: StagingArea, client: ClientFactory = storage_client) -> list[str]:
    """Return the folders of other runs below the same staging location, as URIs, sorted. Raises StagingError.

    They may be of runs that are at work: they are reported, and never removed unasked.
    """
    try:
        blobs = client().list_blobs(
            area.bucket, prefix=area.prefix + FOLDER, delimiter="/", fields="prefixes,nextPageToken", **how()
        )
        for _ in blobs.pages:  # the prefixes are complete once the last page was read
            pass
        return [f"gs://{area.bucket}/{prefix}" for prefix in sorted(blobs.prefixes) if prefix != area.run_prefix]
    except Exception as error:  # noqa: BLE001 - likewise
        raise staging_error(error, area.bucket, "listing", _LIST) from None


def bucket_warnings(area: StagingArea, client: ClientFactory = storage_client) -> list[str]:
    """Return a sentence for each way in which the bucket keeps what is deleted; none where that may not be asked.

    Raises StagingError for a bucket that is not there, or without usable credentials.
    """
    from google.api_core import exceptions

    try:
        bucket = client().get_bucket(area.bucket, **how())
    except exceptions.Forbidden:
        return []
    except Exception as error:  # noqa: BLE001 - likewise
        raise staging_error(error, area.bucket, "looking for", "storage.buckets.get") from None
    keeps = f"staged clips stay in gs://{area.bucket} after they are deleted"
    warnings = []
    if kept_s := int(bucket.soft_delete_policy.retention_duration_seconds or 0):
        warnings.append(f"{keeps}: its soft delete keeps them for {_duration(kept_s)}; switch it off for this bucket")
    if bucket.versioning_enabled:
        warnings.append(f"{keeps}: its object versioning keeps them; stage in a bucket without it")
    if kept_s := int(bucket.retention_period or 0):
        warnings.append(
            f"staged clips in gs://{area.bucket} cannot be deleted for {_duration(kept_s)}: its retention policy "
            "forbids it; stage in a bucket without one"
        )
    if bucket.default_event_based_hold:
        warnings.append(
            f"staged clips in gs://{area.bucket} cannot be deleted: it puts a hold on every new object; "
            "stage in a bucket without a default event-based hold"
        )
    return warnings


def _pages(client: storage.Client, bucket: str, prefix: str) -> Iterator[list[str]]:
    blobs = client.list_blobs(bucket, prefix=prefix, page_size=_PAGE, fields="items(name),nextPageToken", **how())
    for page in blobs.pages:
        yield [blob.name for blob in page]


def _is_deleted(client: storage.Client, target: ClipObject, retry_for_s: float, first_pause_s: float) -> bool:
    try:
        delete(client, target, retry_for_s, first_pause_s)
    except StagingError:
        return False
    return True


def _is_missing(error: Exception) -> bool:
    from google.api_core import exceptions

    return isinstance(error, exceptions.NotFound)


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if days and not rest else f"{seconds} s"
