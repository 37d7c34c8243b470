"""Where clips are staged: a folder of the run's own below `--staging_location`."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from audio.listing import STAGING_FOLDER
from endpoint.items import ClipObject

FOLDER = STAGING_FOLDER
"""What the name of every run's folder begins with: nothing outside of such folders is ever removed."""

# https://cloud.google.com/storage/docs/buckets#naming: 3 to 63 characters, with dots up to 222.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RUN_FOLDER = re.compile(rf"(?:.*/)?{FOLDER}{_RUN_ID.pattern}/", re.DOTALL)
_MAX_NAME_BYTES = 1024
_OBJECT_NAME_BYTES = 36
_MAX_PREFIX_BYTES = _MAX_NAME_BYTES - len(FOLDER) - 64 - 1 - _OBJECT_NAME_BYTES


@dataclass(frozen=True)
class StagingArea:
    """A run's folder for staged clips. Wrong values raise ValueError with a message for the user."""

    bucket: str
    """Without `gs://` and slashes."""
    prefix: str
    """The staging location inside the bucket: empty, or ending with a slash."""
    run_id: str
    """Letters, digits, `-` and `_`, at most 64."""

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id is {self.run_id!r}; expected 1 to 64 letters, digits, - or _")
        if not _BUCKET.fullmatch(self.bucket):
            raise ValueError(f"{self.bucket!r} is no bucket's name; expected one as in gs://bucket/folder")
        if self.prefix and not self.prefix.endswith("/"):
            raise ValueError(f"prefix is {self.prefix!r}; expected a folder that ends with a slash, or nothing")

    @classmethod
    def of(cls, staging_location: str, run_id: str) -> StagingArea:
        """Return the area of a run below `gs://bucket[/folder]`. Raises ValueError with a message for the user."""
        expected = "expected gs://bucket or gs://bucket/folder"
        bucket, _, folder = staging_location.removeprefix("gs://").partition("/")
        if not staging_location.startswith("gs://") or not _BUCKET.fullmatch(bucket):
            raise ValueError(f"staging_location is {staging_location!r}; {expected}, a bucket that you may write to")
        folder = folder.removesuffix("/")
        if folder and any(part in ("", ".", "..") for part in folder.split("/")):
            raise ValueError(f"staging_location is {staging_location!r}; {expected}, without empty or dotted parts")
        if re.search(r"[\x00-\x1f\x7f#?*\[\]]", folder):
            raise ValueError(
                f"staging_location is {staging_location!r}; {expected}, without control characters and without # ? * [ ]"
            )
        if len(folder.encode(errors="surrogatepass")) >= _MAX_PREFIX_BYTES:
            raise ValueError(f"staging_location is too long; {expected}, of less than {_MAX_PREFIX_BYTES} bytes")
        return cls(bucket, f"{folder}/" if folder else "", run_id)

    @property
    def run_prefix(self) -> str:
        """The run's folder in the bucket: what the names of all of its objects begin with; ends with a slash."""
        return f"{self.prefix}{FOLDER}{self.run_id}/"

    @property
    def run_uri(self) -> str:
        """The run's folder as `gs://bucket/.../hear-staged-<run id>/`, as `leftovers.sweep` takes it."""
        return f"gs://{self.bucket}/{self.run_prefix}"

    def new_object(self) -> ClipObject:
        """Return a name for a clip: random, so that it says nothing about the recording and is nobody else's."""
        return ClipObject(self.bucket, f"{self.run_prefix}{secrets.token_hex(16)}.wav")


def split_run_uri(run_uri: str) -> tuple[str, str]:
    """Return (bucket, prefix) of a run's folder, `gs://bucket/.../hear-staged-<run id>/`; ValueError for all else."""
    bucket, _, prefix = run_uri.removeprefix("gs://").partition("/")
    if not run_uri.startswith("gs://") or not _BUCKET.fullmatch(bucket) or not _RUN_FOLDER.fullmatch(prefix):
        raise ValueError(f"{run_uri!r} is no folder of staged clips; expected gs://bucket/.../{FOLDER}<run id>/")
    return bucket, prefix
