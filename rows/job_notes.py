"""What runs note in the checkpoint about their batch prediction jobs, so that a later run goes on where one was cut off.

RUN/written.json      the clips are on Cloud Storage, all of them: how many
RUN/submitting.json   from now on there may be a job
RUN/job.json          there is one: its name
RUN/closed.json       all that is to be had of it is stored: its files are of no use any more
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from rows.store import MissingFile, Store, StoreError

WRITTEN_FILE: Final = "written.json"
SUBMITTING_FILE: Final = "submitting.json"
JOB_FILE: Final = "job.json"
CLOSED_FILE: Final = "closed.json"
NOTES: Final = (WRITTEN_FILE, SUBMITTING_FILE, JOB_FILE, CLOSED_FILE)


class Written(NamedTuple):
    """What a run has written for a job."""

    instance_format: str
    clips: int
    shards: int
    size_bytes: int
    clipped_samples: int


class OpenBatch(NamedTuple):
    """Clips that were written for a job and whose results are not stored yet."""

    run_id: str
    """Of the run that wrote them."""
    folder: str
    """Where its files are, `gs://bucket/.../`."""
    written: Written
    job: str | None
    """The job's resource name, if it was noted."""
    is_kept: bool
    """Whether its files are to stay."""


def note_written(store: Store, run_id: str, written: Written) -> None:
    """All clips of the run are where the job will read them."""
    _write(store, run_id, WRITTEN_FILE, written._asdict())


class Attempt(NamedTuple):
    """At submitting a job, of which nothing more may be known."""

    since_s: float
    """When it was first begun, in Unix seconds."""
    parent: str
    """Where the job would be: `projects/P/locations/L`."""


def note_submitting(store: Store, run_id: str, parent: str) -> None:
    """A job is about to be submitted there."""
    if attempt(store, run_id) is None:
        _write(store, run_id, SUBMITTING_FILE, {"since": _now(), "since_s": time.time(), "parent": parent})


def attempt(store: Store, run_id: str) -> Attempt | None:
    """The first attempt to submit a job, if there was one."""
    noted = _read(store, run_id, SUBMITTING_FILE)
    return None if noted is None else Attempt(float(noted["since_s"]), str(noted["parent"]))


def note_job(store: Store, run_id: str, name: str) -> None:
    """The job was submitted."""
    _write(store, run_id, JOB_FILE, {"name": name, "since": _now()})


def note_closed(store: Store, run_id: str, state: str) -> None:
    """All that is to be had of the job is stored, or there will be none."""
    _write(store, run_id, CLOSED_FILE, {"state": state, "since": _now()})


def open_batch(store: Store, described: Mapping[str, Any]) -> OpenBatch | None:
    """What a run has left open, by what it says about itself (`run.json`); None if there is nothing."""
    if described.get("send") != "batch":
        return None
    run_id, folder = described.get("run_id"), described.get("staged")
    if not (isinstance(run_id, str) and isinstance(folder, str)) or _read(store, run_id, CLOSED_FILE) is not None:
        return None
    written = _read(store, run_id, WRITTEN_FILE)
    if written is None or not written["clips"]:
        return None
    job = _read(store, run_id, JOB_FILE)
    return OpenBatch(
        run_id,
        folder,
        Written(**written),
        None if job is None else str(job["name"]),
        bool(described.get("keep_staged")),
    )


def open_batches(store: Store, runs: list[dict[str, Any]]) -> Iterator[OpenBatch]:
    """What earlier runs have left open."""
    for described in runs:
        if (found := open_batch(store, described)) is not None:
            yield found


def _write(store: Store, run_id: str, name: str, content: Mapping[str, Any]) -> None:
    store.write(f"{run_id}/{name}", json.dumps(content, indent=2).encode())


def _read(store: Store, run_id: str, name: str) -> dict[str, Any] | None:
    try:
        content = json.loads(store.read(f"{run_id}/{name}"))
    except MissingFile:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StoreError(
            f"{store.folder}/{run_id}/{name} is damaged: without it nobody knows whether a job was submitted; remove the folder "
            f"{run_id} from the checkpoint once its job has ended, or give --fresh_checkpoint"
        )
    return content


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
