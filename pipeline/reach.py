"""Whether a run may do on Cloud Storage what its options ask for: found out before it sends anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from audio.fetch import storage_client
from audio.listing import BucketError, ListingError, bucket_error
from endpoint.credentials import default_credentials
from endpoint.errors import RunEnded
from pipeline.settings import RunSettings
from pipeline.usage import UsageError
from rows import objects
from transforms.files import is_local
from transforms.shards import unfinished_folder

_FORBIDDEN = 403
_LIST = "storage.objects.list"
_WRITE = "storage.objects.create, get, list and delete"


def check_signed_in(run: RunSettings) -> None:
    """Raises ListingError if there are no Google credentials, but something is on Cloud Storage.

    The storage client would find out as well, but may search for them for longer.
    """
    manifest = () if run.manifest is None else (("manifest", run.manifest.path),)
    staging = () if run.staging_location is None else (("staging_location", run.staging_location),)
    named = (*(("input", text) for text in run.inputs), *manifest, *_places(run), *staging)
    found = next(((option, value) for option, value in named if not is_local(value)), None)
    if found is None or os.environ.get("STORAGE_EMULATOR_HOST"):
        return
    try:
        default_credentials()
    except RunEnded as error:
        raise ListingError(f"--{found[0]} is {found[1]!r}: {error}") from None


def check_readable(run: RunSettings) -> None:
    """Asks for what is under output, checkpoint and the place of load files, where they are on Cloud Storage.

    Raises UsageError for a bucket that is not there or may not be listed, ListingError where Cloud Storage fails.
    """
    for option, place in _places(run):
        bucket, name = objects.split(f"{place}-" if option == "output" else f"{place}/")
        try:
            next(iter(storage_client().list_blobs(bucket, prefix=name, max_results=1, **objects.how())), None)
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise explained(option, place, bucket_error(error, place, "listing", _LIST)) from None


def prove_writable(run: RunSettings) -> None:
    """Writes, lists, moves, reads and deletes an object beside the output, in the checkpoint, and where load files go.

    That is, where they are on Cloud Storage.

    Raises UsageError where that may not be done, ListingError where Cloud Storage fails.
    """
    for option, place in _places(run):
        # What is left if this is cut off goes with what runs leave there that are.
        folder = place
        if option == "output":
            folder = unfinished_folder(place, run.run_id, ".tfrecord")
        elif run.table_write is not None and place == run.load_location:
            folder = run.table_write.load_folder
        try:
            objects.prove_rights(f"{folder}/")
        except Exception as error:  # noqa: BLE001 - likewise
            raise explained(option, place, bucket_error(error, place, "writing", _WRITE)) from None


def check_job_files(run_id: str, temp_location: str, staging_location: str) -> None:
    """Finds out whether Dataflow's files can be put where they are to be: Beam would try for ten minutes, and say nothing.

    Args:
      run_id: names an object that is written and deleted.
      temp_location: must be there; workers write to it, as which this process cannot try.
      staging_location: must be there, and be looked at, as Beam does, and written to.

    Raises UsageError where that cannot be, ListingError where Cloud Storage fails.
    """
    for option, place in (("temp_location", temp_location), ("staging_location", staging_location)):
        folder = place.rstrip("/")
        doing, right = "looking at", "storage.buckets.get"
        try:
            storage_client().get_bucket(objects.split(folder)[0], **objects.how())
            if option == "staging_location":
                doing, right = "writing", "storage.objects.create"
                proof = objects.blob_at(f"{folder}/{run_id}-check")
                objects.write_new(proof, b"")
                with contextlib.suppress(Exception):  # to delete it is no right that a launcher needs
                    objects.delete(proof)
        except Exception as error:  # noqa: BLE001 - likewise
            if option == "temp_location" and getattr(error, "code", None) == _FORBIDDEN:
                continue
            raise explained(option, place, bucket_error(error, place, doing, right)) from None


def explained(option: str, value: str, error: ListingError) -> ListingError | UsageError:
    """The error, with the option that it is about: a mistake of the user's where somebody must change something first."""
    kind = UsageError if isinstance(error, BucketError) else ListingError
    return kind(f"--{option} is {value!r}: {error}")


def _places(run: RunSettings) -> Iterator[tuple[str, str]]:
    """What is written to on Cloud Storage, with the options that name it."""
    yield from (
        (option, place)
        for option, place in (
            ("output", run.output),
            ("checkpoint", run.checkpoint),
            ("temp_location", None if run.load_location == run.checkpoint else run.load_location),
        )
        if place is not None and not is_local(place)
    )
