"""What `--plan` says: what would be sent where, without sending anything or opening a recording."""

from __future__ import annotations

from typing import Any

from audio.listing import Ignored, Unlisted, list_input
from audio.manifest import ManifestProblem, ManifestSettings, read_manifest
from audio.recording import Recording
from pipeline.settings import RunSettings

_SHOWN_PROBLEMS = 10


def plan(run: RunSettings) -> dict[str, Any]:
    """What a run would do."""
    recordings = _listed(run) if run.manifest is None else _in_manifest(run.manifest)
    target = run.target
    return {
        **recordings,
        "audio_goes_to": "a local endpoint on this machine (a stand-in, not HeAR)"
        if target.local
        else f"{target.name} at {target.host}",
        "send": run.send,
        "instance_format": run.instance_format,
        "transport": run.transport,
        "batch": _batch(run),
        "staging": None if run.staging_location is None else run.staging_location,
        "max_requests_per_minute": run.max_requests_per_minute,
        "model_id": run.model_id,
        "fingerprint": run.fingerprint,
        "clips": run.clip_choice,
        "output": None if run.output is None else f"{run.output}-*.{run.output_format}",
        "output_table": None if run.output_table is None else str(run.output_table),
        "checkpoint": run.checkpoint,
        "max_requests": run.max_requests,
    }


def _batch(run: RunSettings) -> dict[str, Any] | None:
    """The batch prediction job that would be submitted, but for its files."""
    if run.batch is None:
        return None
    job = None if run.target.local else run.job_settings(run.target.name, run.target.host)
    batch = run.batch
    return {
        "step": batch.step or "write, wait for the job, join",
        "model": None if job is None else job.model,
        "project": None if job is None else job.project,
        "machine_type": batch.machine_type,
        "accelerator": f"{batch.accelerator_count} x {batch.accelerator_type}" if batch.accelerator_count else None,
        "replicas": [batch.starting_replicas, batch.max_replicas],
    }


def _listed(run: RunSettings) -> dict[str, Any]:
    found: dict[str, int] = {}
    unlisted: dict[str, str] = {}
    ignored: set[str] = set()
    for text in run.inputs:
        for listed in list_input(text):
            match listed:
                case Recording():
                    found[listed.uri] = listed.size_bytes
                case Unlisted():
                    unlisted[listed.uri] = listed.code
                case Ignored():
                    ignored.add(listed.uri)
    first = sorted({*found, *unlisted})[: run.limit]
    chosen = [uri for uri in first if uri in found]
    unlisted = {uri: unlisted[uri] for uri in first if uri not in found}
    return {
        "recordings": len(chosen),
        "size_bytes": sum(found[uri] for uri in chosen),
        "first": chosen[0] if chosen else None,
        "last": chosen[-1] if chosen else None,
        "not_readable": unlisted,
        "ignored_files": len(ignored),
    }


def _in_manifest(manifest: ManifestSettings) -> dict[str, Any]:
    """What the manifest says; whether its files are there, the run will show."""
    rows = events = problems = 0
    shown: list[str] = []
    for item in read_manifest(manifest):
        rows += 1
        if isinstance(item, ManifestProblem):
            problems += 1
            if len(shown) < _SHOWN_PROBLEMS:
                shown.append(item.message)
        else:
            events += item.take.stop is not None
    return {"manifest_rows": rows, "events": events, "rows_that_cannot_be_used": problems, "first_of_them": shown}
