"""What is checked before a run sends anything that counts: credentials, the staging bucket, the endpoint, its model."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np

from endpoint import credentials
from endpoint.client import Client
from endpoint.errors import RunEnded
from endpoint.items import ClipObject, Item
from endpoint.probe import TOLERANCE, ProbeAnswer, largest_difference, probe, probe_clips
from endpoint.request_budget import SharedBudget
from endpoint.settings import EndpointSettings
from endpoint.wav import encode_wav
from pipeline.endpoints import is_loopback
from pipeline.resuming import Earlier
from pipeline.settings import RunSettings
from rows.generations import PROBE_FILE
from rows.job_notes import OpenBatch, open_batch
from rows.store import StoreError, open_store
from transforms.leftovers import bucket_warnings, other_leftovers, sweep
from transforms.staging import Stager, StagingArea, StagingError, prove_rights


def check_credentials(run: RunSettings, host: str, *, on_dataflow: bool = False) -> None:
    """Raises RunEnded, with the remedy, where the run's credentials are missing or not accepted; `host` is the service's."""
    accounts: set[str | None] = {None} if on_dataflow else set()
    if not is_loopback(host):
        accounts.add(run.endpoint_service_account)
        if run.send == "uris":
            accounts.add(run.bucket_service_account)
    elif run.bucket_service_account is not None:
        accounts.add(run.bucket_service_account)
    if accounts:
        credentials.check_credentials(*accounts)


def check(run: RunSettings, endpoint: EndpointSettings, earlier: Earlier) -> dict[str, Any]:
    """Raises RunEnded or StagingError for what would end the run later; returns what the probe found, for the summary."""
    if endpoint.max_requests is not None:
        # Here alone: whoever finds no count of the run's requests later on sends none.
        SharedBudget.of(endpoint).begin()
    check_staging(run)
    if run.full_scope_tokens:
        _note("with --full_scope_tokens, whoever sees a token can do all that its account can, for up to an hour")
    if not run.probe:
        return {"requests": 0, "difference": None}
    answer = _probe(run, endpoint)
    _compare_with_earlier(run, answer, earlier)
    return {"requests": answer.requests, "difference": answer.difference}


def check_staging(run: RunSettings, known: Collection[str] = ()) -> None:
    """Raises StagingError where the run may not stage what it is to stage; says what the bucket would keep of it.

    Says as well whose clips are there, but for folders of the checkpoint's own runs that are `known`.
    """
    if run.staging is None:
        return
    try:
        _check_bucket(run.staging, known)
    except StagingError as error:
        raise type(error)(f"--staging_location is {run.staging_location!r}: {error}") from None


@contextlib.contextmanager
def nothing_left_staged(
    run: RunSettings, earlier: Earlier, is_at_work: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Removes what earlier runs of this checkpoint left staged, and at the end of the context what this one did.

    Not so if the run is then still at work, elsewhere; nor what a batch prediction job reads, or has written.
    """
    needed = {batch.folder for batch in earlier.batches}
    sweep_folders(
        other["staged"]
        for other in earlier.runs
        if isinstance(other.get("staged"), str) and not other.get("keep_staged") and other["staged"] not in needed
    )
    try:
        yield
    finally:
        if not is_at_work():
            remove_staged(run)


def staged_in(run: RunSettings) -> str | None:
    """The folder of clips that the run is to remove, if it stages any."""
    return None if run.staging is None or run.keep_staged else run.staging.run_uri


def remove_staged(run: RunSettings) -> None:
    """Removes what the run itself has staged, unless a job needs it, and says where something is left."""
    if (folder := staged_in(run)) is not None and not _is_needed(run):
        sweep_folders([folder])


def _is_needed(run: RunSettings) -> bool:
    """Whether what the run has staged is for a batch prediction job whose results are not stored yet, or may be."""
    if run.batch is None:
        return False
    try:
        return own_batch(run) is not None
    except StoreError:
        return True


def own_batch(run: RunSettings) -> OpenBatch | None:
    """What this run has written for a job, from when it is complete until the results are stored. Raises StoreError."""
    return open_batch(open_store(run.checkpoint), staging_facts(run))


def staging_facts(run: RunSettings) -> dict[str, Any]:
    """What a run says about what it stages."""
    return {
        "run_id": run.run_id,
        "send": run.send,
        "staged": None if run.staging is None else run.staging.run_uri,
        "keep_staged": run.keep_staged,
    }


def sweep_folders(folders: Iterable[str]) -> None:
    """Removes what is staged in folders of runs, and says where something is left."""
    failing: set[str] = set()
    for folder in sorted(folders):
        bucket = folder.removeprefix("gs://").partition("/")[0]
        if bucket in failing:  # it has been tried for minutes
            _note(f"staged clips may be left in {folder}")
            continue
        try:
            left = sweep(folder).left
        except ValueError as error:
            _note(f"staged clips may be left in {folder}: {error}")
        except StagingError as error:
            failing.add(bucket)
            _note(f"staged clips may be left in {folder}: {error}")
        else:
            if left:
                clips = "a staged clip" if left == 1 else f"{left} staged clips"
                _note(f"{clips} could not be deleted from {folder}: the next run on this checkpoint tries again")


def _check_bucket(area: StagingArea, known: Collection[str]) -> None:
    prove_rights(area)
    for warning in bucket_warnings(area):
        _note(warning)
    with contextlib.suppress(StagingError):  # a run needs no right to list
        if others := [folder for folder in other_leftovers(area) if folder not in known]:
            _note(f"staged clips of other runs, at work or killed, are in {', '.join(others)}")


def _probe(run: RunSettings, endpoint: EndpointSettings) -> ProbeAnswer:
    with Client(endpoint) as client, _probe_items(run) as items:
        return probe(endpoint, client, items)


@contextlib.contextmanager
def _probe_items(run: RunSettings) -> Iterator[list[Item]]:
    clips = probe_clips()
    if run.send == "audio" and run.instance_format == "research":
        yield list(clips)
        return
    wavs = [encode_wav(clip) for clip in clips]
    if run.staging is None:
        yield list(wavs)
        return
    with contextlib.closing(Stager(run.staging, keep=run.keep_staged)) as stager:
        staged = [stager.put(wav.data) for wav in wavs]
        try:
            for one in staged:
                if (error := one.result()) is not None:
                    raise error
            yield [ClipObject(one.bucket, one.name) for one in staged]
        finally:
            for one in staged:
                stager.remove(one)


def _compare_with_earlier(run: RunSettings, answer: ProbeAnswer, earlier: Earlier) -> None:
    """Keeps the answer with the checkpoint; RunEnded if an earlier run's model answered differently."""
    store = open_store(run.checkpoint)
    for other in earlier.runs:
        if other.get("fingerprint") != run.fingerprint:
            continue
        try:
            kept = json.loads(store.read(f"{other['run_id']}/{PROBE_FILE}"))
            difference = largest_difference(np.asarray(kept["embedding"], np.float32), answer.embedding)
        except (ValueError, KeyError, TypeError, StoreError):
            continue  # that run was not probed, or ended before
        if difference > TOLERANCE:
            raise RunEnded(
                f"The model behind {run.target.name or 'the local endpoint'} is not the one that the checkpoint "
                f"{run.checkpoint!r} was begun with: it answers the probe differently (by {difference:.2g}). Rows of two models "
                f"must not be mixed: choose another {run.destinations} with a --model_id that tells them apart."
            )
    kept = {"fingerprint": run.fingerprint, "embedding": [float(value) for value in answer.embedding]}
    store.write(f"{run.run_id}/{PROBE_FILE}", json.dumps(kept).encode())


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
