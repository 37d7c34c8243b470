"""The command: from arguments to an exit status."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from audio.listing import Ignored, ListingError, PatternError, Unlisted, list_input
from audio.recording import Recording
from endpoint.errors import EndpointError
from endpoint.settings import EndpointSettings
from pipeline.launch import RunFailed, launch, running_endpoint
from pipeline.options import parse
from pipeline.outputs import make_folders, note_run, remove_replaced, remove_unfinished, replaced_outputs
from pipeline.preflight import check, check_credentials, nothing_left_staged, staged_in
from pipeline.report import print_summary, shortfall
from pipeline.settings import RunSettings
from pipeline.stopping import INTERRUPTED, INTERRUPTED_TEXT, stopping
from pipeline.usage import PROGRAM, UsageError
from pipeline.versions import versions
from transforms.files import WriteError, read_whole
from transforms.staging import StagingError

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (design: 0 done, 1 failed, 2 wrong usage)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        _check_inputs(arguments.run)
        existing = replaced_outputs(arguments.run)
        if arguments.plan:
            return _plan(arguments.run)
        make_folders(arguments.run)
        return _run(arguments.run, arguments.beam, existing)
    except UsageError as error:
        return _say(error, WRONG_USAGE)
    except (EndpointError, ListingError, RunFailed, StagingError, WriteError) as error:
        return _say(error, FAILED)
    except KeyboardInterrupt:
        return _say(INTERRUPTED_TEXT, INTERRUPTED)


def _say(message: object, status: int) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return status


def _check_inputs(run: RunSettings) -> None:
    """Refuses an input that names nothing, before anything runs."""
    for text in run.inputs:
        try:
            nothing = all(isinstance(listed, Ignored) for listed in list_input(text))
        except PatternError as error:
            raise UsageError(f"--input is {text!r}: {error}") from None
        if nothing:
            raise UsageError(
                f"--input is {text!r}, which matches no recording: expected a file, a folder with audio files, or a glob "
                "that matches files (add /** for those in folders)"
            )


def _plan(run: RunSettings) -> int:
    """Prints what a run would do."""
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
    target = run.target
    plan = {
        "recordings": len(chosen),
        "size_bytes": sum(found[uri] for uri in chosen),
        "first": chosen[0] if chosen else None,
        "last": chosen[-1] if chosen else None,
        "not_readable": unlisted,
        "ignored_files": len(ignored),
        "audio_goes_to": "a local endpoint on this machine (a stand-in, not HeAR)"
        if target.local
        else f"{target.name} at {target.host}",
        "send": run.send,
        "instance_format": run.instance_format,
        "transport": run.transport,
        "staging": None if run.staging_location is None else run.staging_location,
        "max_requests_per_minute": run.max_requests_per_minute,
        "model_id": run.model_id,
        "fingerprint": run.fingerprint,
        "clips": run.clip_choice,
        "output": f"{run.output}-*.{run.output_format}",
        "checkpoint": run.checkpoint,
    }
    print(json.dumps(plan, indent=2, ensure_ascii=False))
    return DONE


def _facts(run: RunSettings, endpoint: EndpointSettings) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "inputs": list(run.inputs),
        "limit": run.limit,
        "model_id": run.model_id,
        "endpoint": endpoint.name,
        "fingerprint": run.fingerprint,
        "fingerprint_settings": run.fingerprint_settings,
        "clip_choice": run.clip_choice,
        "send": run.send,
        "instance_format": run.instance_format,
        "transport": run.transport,
        "staged": None if run.staging is None else run.staging.run_uri,
        "keep_staged": run.keep_staged,
        "checkpoint": run.checkpoint,
        "versions": versions(),
    }


def _run(run: RunSettings, options: Any, existing: list[str]) -> int:
    with stopping(staged_in=staged_in(run)), running_endpoint(run) as endpoint:
        check_credentials(run, endpoint)
        facts = _facts(run, endpoint)
        note_run(run, facts)
        with nothing_left_staged(run):
            facts["probe"] = check(run, endpoint)
            # Whatever the probe has shown, the run's own clients need not find out by a canary.
            launch(run, replace(endpoint, is_proven=run.probe), options, facts)
    summary = json.loads(read_whole(run.summary_path))
    remove_replaced(existing, [*summary["files"], run.summary_path])
    remove_unfinished(run.output)
    with contextlib.suppress(OSError):  # whoever read the output has left; the summary is in its file
        print_summary(summary, Console())
    missed = shortfall(summary, run.max_failure_fraction)
    return DONE if missed is None else _say(missed, FAILED)
