"""The Flex Template's metadata, `templates/metadata.json`, made from the command's own options: `make template-metadata`.

Each option is either a parameter of the template or excluded for a reason. Names, help, defaults and, as far as patterns
can say it, the values that are taken are those of the command; `google.cloud.dataflow_v1beta3.TemplateMetadata` is the format.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

from audio.mix import CHANNEL_PATTERN
from endpoint.settings import InstanceFormat, TransportName
from pipeline.flags import make_parser
from pipeline.settings import Send
from pipeline.values import IMAGE, MODEL_ID, TRUTHS, Kind, truth
from rows.bigquery import PROJECT
from transforms.write_tables import OutputFormat


@dataclass(frozen=True)
class Parameter:
    """How an option is shown in launch forms, and what its flag does not say of itself."""

    label: str
    type: str = "TEXT"
    """A name of `dataflow_v1beta3.ParameterType`; switches, numbers and choices have theirs without saying so."""
    pattern: str = ".+"
    """Of values of an option whose flag has no kind of its own."""
    choices: tuple[str, ...] = ()
    required: bool = False
    with_send: tuple[Send, ...] = ()
    """Shown only where one of these is sent; empty: always."""
    help: str | None = None
    """Instead of the flag's own, where that speaks of a command line or of paths on a disk."""


_PLACE: Final = r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9]"
_PREFIX: Final = _PLACE + r"(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))+"

PARAMETERS: Final[dict[str, Parameter]] = {
    "input": Parameter(
        "Recordings",
        "GCS_READ_FILE",
        _PLACE + "(/.*)?",
        help="One file, one folder (all audio files below it), or one glob with * ? [] **, on gs://. For several places, give a "
        "glob that covers them, or name the recordings in a manifest.",
    ),
    "manifest": Parameter(
        "Manifest",
        "GCS_READ_FILE",
        _PLACE + r"/(.*/)?[^/]*\.([cC][sS][vV]|[tT][sS][vV]|[jJ][sS][oO][nN][lL])(\.[gG][zZ])?",
        help="Instead of recordings: a table on gs:// with a recording, or an annotated event (start_s, end_s) of one, in each "
        "row: .csv, .tsv, .jsonl, also with .gz. Other columns are kept as text and joined to the rows.",
    ),
    "uri_column": Parameter("Manifest: column of URIs"),
    "uri_template": Parameter("Manifest: template of URIs", pattern=r".*\{.+\}.*"),
    "limit": Parameter("Only the first recordings"),
    "channel": Parameter("Channel", pattern=CHANNEL_PATTERN),
    "hop_s": Parameter("Hop (s)"),
    "tail": Parameter("Last piece", choices=("pad", "shift", "drop")),
    "min_audio_s": Parameter("Least audio of a padded clip (s)"),
    "min_rms_dbfs": Parameter("Least level (dBFS)"),
    "event_context": Parameter("Around an event"),
    "decoder_processes": Parameter("Decoder processes"),
    "decoder_timeout_s": Parameter("Decoder's time limit (s)"),
    "decoder_memory_mb": Parameter("Decoder's memory limit (MB)"),
    "endpoint": Parameter(
        "Endpoint",
        pattern="research|projects/[^/ ]+/locations/[a-z0-9-]+/endpoints/[^/ ]+",
        help="Where audio is sent: research (the documented HeAR endpoint), or projects/P/locations/L/endpoints/E. To be left out only "
        "where batch_model is given instead.",
    ),
    "endpoint_host": Parameter("Endpoint's host", pattern="[A-Za-z0-9._-]+(:[0-9]{1,5})?"),
    "send": Parameter("Send", choices=get_args(Send)),
    "instance_format": Parameter("Instance format", choices=get_args(InstanceFormat)),
    "transport": Parameter("Transport", choices=get_args(TransportName)),
    "model_id": Parameter("Model's name", pattern=MODEL_ID),
    "clips_per_request": Parameter("Clips in a request"),
    "max_request_bytes": Parameter("Largest request (bytes)"),
    "max_requests_per_minute": Parameter("Requests a minute"),
    "requests_in_flight": Parameter("Requests in flight"),
    "timeout_s": Parameter("Time limit (s)"),
    "max_attempts": Parameter("Attempts"),
    "no_probe": Parameter("No probe"),
    "endpoint_service_account": Parameter("Endpoint's service account"),
    "keep_staged": Parameter("Keep staged clips", with_send=("uris", "batch")),
    "batch_step": Parameter(
        "Batch: step",
        with_send=("batch",),
        help="Must be given, as nothing waits for the batch prediction job within a launch. write: what is missing is written, and the "
        "job submitted; join, once that has ended: rows are made of its results.",
    ),
    "batch_model": Parameter(
        "Batch: model",
        pattern="projects/[^/ ]+/locations/[a-z0-9-]+/models/[^/ @]+(@[^/ @]+)?",
        with_send=("batch",),
        help="projects/P/locations/L/models/M, with @VERSION if need be: a model of your own, instead of an endpoint.",
    ),
    "batch_project": Parameter("Batch: project", pattern="[a-z0-9][a-z0-9.:-]*", with_send=("batch",)),
    "batch_machine_type": Parameter("Batch: machine type", pattern="[a-z0-9]+(-[a-z0-9]+)+", with_send=("batch",)),
    "batch_accelerator_type": Parameter("Batch: accelerator", pattern="[A-Z][A-Z0-9_]+", with_send=("batch",)),
    "batch_accelerator_count": Parameter("Batch: accelerators of each machine", with_send=("batch",)),
    "batch_starting_replicas": Parameter("Batch: machines at the beginning", with_send=("batch",)),
    "batch_max_replicas": Parameter("Batch: machines at most", with_send=("batch",)),
    "bucket_service_account": Parameter("Bucket's service account", with_send=("uris",)),
    "full_scope_tokens": Parameter("Full-scope tokens", with_send=("uris",)),
    "output": Parameter(
        "Output files",
        "GCS_WRITE_FILE",
        _PREFIX,
        help="What the output files' names begin with, such as gs://bucket/study/run.",
    ),
    "output_table": Parameter(
        "Output table",
        "BIGQUERY_TABLE",
        PROJECT + r"[:.][A-Za-z0-9_]+\.[A-Za-z0-9_-]+",
    ),
    "output_format": Parameter("Format of the output files", choices=get_args(OutputFormat)),
    "checkpoint": Parameter("Checkpoint", "GCS_WRITE_FOLDER", _PREFIX + "/?"),
    "retry_failed": Parameter("Retry what failed"),
    "fresh_checkpoint": Parameter("Fresh checkpoint"),
    "overwrite": Parameter("Overwrite"),
    "max_failure_fraction": Parameter("Largest share of failures"),
}

EXCLUDED: Final[dict[str, str]] = {
    "delete_checkpoint": "nobody waits for the job's end, before which it needs the checkpoint",
    "max_requests": "workers are on several machines, which cannot count together: limit is there for trials",
    "resampler": "the template's image holds no TensorFlow",
    "plan": "prints to a terminal, and starts no job",
    "no_wait": "a template's launcher never waits",
    "staging_location": "every launch has one of its own (gcloud's --staging-location), and the launcher passes it on",
}
"""Options of the command that are no parameters, and why."""

BEAMS: Final = {
    "sdk_container_image": Parameter(
        "Workers' image",
        pattern=IMAGE,
        required=True,
        help="The image that the workers run, by digest: the one that this template was built with.",
    )
}
"""Beam's options that a launch has no other way to give."""


def metadata() -> dict[str, Any]:
    """The template's metadata, in the JSON form of `TemplateMetadata`."""
    return {
        "name": "HeAR embeddings of health recordings",
        "description": "Turns recordings on Cloud Storage into a table with one HeAR embedding for each 2-second clip.",
        "parameters": [*_parameters(make_parser()), *(_shown(name, beams) for name, beams in BEAMS.items())],
    }


def _parameters(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.dest == "help" or action.dest in EXCLUDED:
                continue
            if action.dest not in PARAMETERS:
                raise KeyError(f"--{action.dest} is neither among PARAMETERS of {__name__} nor among EXCLUDED")
            yield _shown(action.dest, PARAMETERS[action.dest], action, group.title)


def _shown(
    name: str, parameter: Parameter, action: argparse.Action | None = None, group: str | None = None
) -> dict[str, Any]:
    kind = None if action is None else action.type
    choices = parameter.choices or (() if action is None or action.choices is None else tuple(action.choices))
    type_name, pattern = parameter.type, parameter.pattern
    if choices:
        type_name, pattern = "ENUM", "|".join(choices)
    elif kind is truth:
        type_name, pattern = "BOOLEAN", "|".join(TRUTHS)
    elif isinstance(kind, Kind):
        type_name, pattern = "TEXT" if kind.convert is str else "NUMBER", kind.pattern
    shown: dict[str, Any] = {
        "name": name,
        "label": parameter.label,
        "helpText": _sentence(parameter.help or ("" if action is None else action.help) or ""),
        "isOptional": not parameter.required,
        "regexes": [f"^({pattern})$"],
        "paramType": type_name,
    }
    if group is not None and not parameter.with_send:
        shown["groupName"] = group.capitalize()
    if parameter.with_send:
        shown |= {"parentName": "send", "parentTriggerValues": list(parameter.with_send)}
    if choices:
        shown["enumOptions"] = [{"value": choice, "label": choice} for choice in choices]
    if action is not None and action.default not in (None, []):
        shown["defaultValue"] = str(action.default).lower() if kind is truth else str(action.default)
    return shown


def _sentence(text: str) -> str:
    return re.sub(r"(?<![.!?])$", ".", text[:1].upper() + text[1:])


if __name__ == "__main__":
    json.dump(metadata(), sys.stdout, indent=2, ensure_ascii=False)
    print()
