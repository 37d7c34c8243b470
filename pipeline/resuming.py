"""What a run finds in its checkpoint: whose it is, what counts of it, and that nobody else is at work on it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline.settings import RESAMPLERS, RunSettings
from pipeline.usage import UsageError
from rows.bucket_lease import BucketLease, nobody_to_ask
from rows.generations import Described, Merge, due_merge, generations, live, remove_all, remove_rows, replaced
from rows.job_notes import OpenBatch, open_batches
from rows.lease import holding
from rows.lease_holder import AskJob
from rows.store import Store, open_store

_OPTIONS = {"model_id": "--model_id", "resampler": "--resampler"}
_GIVEN: dict[object, str] = {named: given for given, named in RESAMPLERS.items()}
"""Values of options, where the fingerprint names them otherwise."""


@dataclass(frozen=True)
class Earlier:
    """What earlier runs have left in the checkpoint."""

    described: Described
    """All of them by name, with what they say about themselves."""
    live: tuple[str, ...] = ()
    """Those whose rows count."""
    merge: Merge | None = None
    """Those that this run should put together at its end."""
    batches: tuple[OpenBatch, ...] = ()
    """What was written for batch prediction jobs whose results are not stored yet."""

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What the runs say about themselves."""
        return [run for run in self.described.values() if run is not None and "run_id" in run]


def find_earlier(run: RunSettings) -> Earlier:
    """What the checkpoint holds. Raises UsageError where it is of other settings, and StoreError."""
    store = open_store(run.checkpoint)
    earlier = Earlier(generations(store))
    if not run.fresh_checkpoint:
        _check_fingerprint(run, earlier)
    return earlier


@contextmanager
def alone_on_checkpoint(run: RunSettings, ask_job: AskJob = nobody_to_ask) -> Iterator[BucketLease | None]:
    """While the context is open, no other run can be at work on the checkpoint; see `rows.lease.holding`.

    Raises LeaseTaken, LeaseError.
    """

    def stop(why: str) -> None:
        print(f"error: {why}", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)

    with holding(run.checkpoint, run.run_id, stop, ask_job) as lease:
        yield lease


def take_over(run: RunSettings) -> Earlier:
    """What this run goes on from, once it is alone on the checkpoint.

    With `fresh_checkpoint` all is removed, and earlier runs are known by what they said: they may have left clips staged.
    """
    store = open_store(run.checkpoint)
    earlier = find_earlier(run)
    batches = tuple(open_batches(store, earlier.runs))
    if batches and run.batch is None:
        raise UsageError(
            f"--send is {run.send!r}, but run {batches[0].run_id} has clips of this checkpoint in a batch prediction job whose results "
            "were not read yet: run with --send batch first (or with --send batch --fresh_checkpoint, to cancel the job)"
        )
    if run.fresh_checkpoint:
        # What is known of jobs is removed once these are cancelled.
        remove_all(store, but_notes_of={batch.run_id for batch in batches})
        return Earlier(earlier.described, batches=batches)
    remove_rows(store, sorted(replaced(earlier.described)))  # a run that was cut off while it did so has left some
    return replace(_counted(run, store, earlier.described), batches=batches)


def look_again(run: RunSettings) -> Earlier:
    """What the checkpoint holds by now, of the run itself, too."""
    store = open_store(run.checkpoint)
    return _counted(run, store, generations(store))


def _counted(run: RunSettings, store: Store, described: Described) -> Earlier:
    counting = live(described)
    return Earlier(described, counting, due_merge(store, counting, run.run_id))


def _check_fingerprint(run: RunSettings, earlier: Earlier) -> None:
    for other in earlier.runs:
        if other.get("fingerprint") in (None, run.fingerprint):
            continue
        remedy = (
            f"choose another {run.destinations} or --checkpoint for it, or give --fresh_checkpoint to drop what is stored there and "
            "start over (and --overwrite, to replace its tables)"
        )
        theirs = other.get("fingerprint_settings")
        for name, value in run.fingerprint_settings.items():
            if isinstance(theirs, dict) and (their_value := theirs.get(name)) != value:
                what = _OPTIONS.get(name, f"the setting {name!r}")
                ours, begun_with = (repr(_GIVEN.get(one, one)) for one in (value, their_value))
                raise UsageError(
                    f"{what} is {ours}, but the checkpoint {run.checkpoint!r} was begun with {begun_with}: {remedy}"
                )
        raise UsageError(f"the checkpoint {run.checkpoint!r} was begun with other settings: {remedy}")
