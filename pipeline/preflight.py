"""What is checked before a run sends anything that counts: credentials, the staging bucket, the endpoint, its model."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from audio.fetch import storage_client
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
from rows.store import StoreError, open_store
from transforms.leftovers import bucket_warnings, other_leftovers, sweep
from transforms.staging import Stager, StagingArea, StagingError, prove_rights

_ANSWER_WITHIN_S = 60.0
_NO_RIGHT, _MISSING = 403, 404


def check_credentials(run: RunSettings, endpoint: EndpointSettings, *, on_dataflow: bool = False) -> None:
    """Raises RunEnded, with the remedy, where the run's credentials are missing or not accepted."""
    accounts: set[str | None] = {None} if on_dataflow else set()
    if not is_loopback(endpoint.host):
        accounts.add(run.endpoint_service_account)
        if run.send == "uris":
            accounts.add(run.bucket_service_account)
    elif run.bucket_service_account is not None:
        accounts.add(run.bucket_service_account)
    if accounts:
        credentials.check_credentials(*accounts)


def check_job_files(run: RunSettings, temp_location: str, staging_location: str) -> None:
    """Raises StagingError unless a job's files can be put where they are to be: Beam would try for ten minutes, and say nothing.

    Args:
      run: names an object that is written and deleted.
      temp_location: must be there; the workers write to it.
      staging_location: must be there, and this account must be allowed to look at the bucket, as Beam does, and to write.
    """
    for option, location in (("temp_location", temp_location), ("staging_location", staging_location)):
        bucket, _, folder = location.removeprefix("gs://").partition("/")
        blob = storage_client().bucket(bucket).blob(f"{folder.rstrip('/')}/{run.run_id}-check".lstrip("/"))
        doing, right = "looked at", "storage.buckets.get"
        try:
            storage_client().get_bucket(bucket, timeout=_ANSWER_WITHIN_S)
            if option == "staging_location":
                doing, right = "written", "storage.objects.create"
                blob.upload_from_string(b"", if_generation_match=0, timeout=_ANSWER_WITHIN_S)
                with contextlib.suppress(Exception):  # to delete it is no right that a launcher needs
                    blob.delete(timeout=_ANSWER_WITHIN_S)
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            code = getattr(error, "code", None)
            if code == _NO_RIGHT and option == "temp_location":
                continue
            why = {
                _MISSING: "there is no such bucket",
                _NO_RIGHT: f"it may not be {doing} (HTTP 403): grant {right} on the bucket",
            }.get(code or 0, f"it cannot be {doing} ({type(error).__name__})")
            raise StagingError(f"--{option} is {location!r}: {why}") from None


def check(run: RunSettings, endpoint: EndpointSettings, earlier: Earlier) -> dict[str, Any]:
    """Raises RunEnded or StagingError for what would end the run later; returns what the probe found, for the summary."""
    if endpoint.max_requests is not None:
        # Here alone: whoever finds no count of the run's requests later on sends none.
        SharedBudget.of(endpoint).begin()
    if run.staging is not None:
        _check_bucket(run.staging)
    if run.full_scope_tokens:
        _note("with --full_scope_tokens, whoever sees a token can do all that its account can, for up to an hour")
    if not run.probe:
        return {"requests": 0, "difference": None}
    answer = _probe(run, endpoint)
    _compare_with_earlier(run, answer, earlier)
    return {"requests": answer.requests, "difference": answer.difference}


@contextlib.contextmanager
def nothing_left_staged(
    run: RunSettings, earlier: Earlier, is_at_work: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Removes what earlier runs of this checkpoint left staged, and at the end of the context what this one did.

    Not so if the run is then still at work, elsewhere.
    """
    _sweep(
        other["staged"]
        for other in earlier.runs
        if isinstance(other.get("staged"), str) and not other.get("keep_staged")
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
    """Removes what the run itself has staged, and says where something is left."""
    if (folder := staged_in(run)) is not None:
        _sweep([folder])


def _sweep(folders: Iterable[str]) -> None:
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


def _check_bucket(area: StagingArea) -> None:
    prove_rights(area)
    for warning in bucket_warnings(area):
        _note(warning)
    with contextlib.suppress(StagingError):  # a run needs no right to list
        if others := other_leftovers(area):
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
                "must not be mixed: choose another --output with a --model_id that tells them apart."
            )
    kept = {"fingerprint": run.fingerprint, "embedding": [float(value) for value in answer.embedding]}
    store.write(f"{run.run_id}/{PROBE_FILE}", json.dumps(kept).encode())


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
