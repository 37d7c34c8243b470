"""What a run says about itself: in the checkpoint before it begins, and in its summary."""

from __future__ import annotations

import time
from typing import Any

from pipeline.preflight import staging_facts
from pipeline.settings import RunSettings
from pipeline.tables import table_facts
from pipeline.versions import versions
from rows.generations import note_run
from rows.store import open_store
from transforms.files import absolute


def run_facts(run: RunSettings, endpoint: str) -> dict[str, Any]:
    """The facts of a run; `endpoint` is the resource name of the endpoint, or of the model, that it asks."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "inputs": list(run.inputs),
        "manifest": None if run.manifest is None else run.manifest.path,
        "limit": run.limit,
        "model_id": run.model_id,
        "endpoint": endpoint,
        "fingerprint": run.fingerprint,
        "fingerprint_settings": run.fingerprint_settings,
        "clip_choice": run.clip_choice,
        "instance_format": run.instance_format,
        "transport": run.transport,
        **staging_facts(run),
        "checkpoint": run.checkpoint,
        **table_facts(run),
        "max_requests": run.max_requests,
        "versions": versions(run.clips.resampler),
    }


def note_facts(run: RunSettings, facts: dict[str, Any]) -> None:
    """Notes them in the checkpoint, before the run has stored anything. Raises StoreError."""
    output = None if run.output is None else absolute(run.output)
    note_run(open_store(run.checkpoint), run.run_id, {"output": output, **facts})
