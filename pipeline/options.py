"""The command's options, parsed strictly: an unknown flag or a wrong value is one line and exit status 2."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.manifest import ManifestSettings
from endpoint.codec import make_codec
from endpoint.settings import MAX_REQUEST_BYTES, InstanceFormat, TransportName
from pipeline import dataflow
from pipeline.beam_options import LOCAL_RUNNERS, parse_beam_flags
from pipeline.endpoints import resolve, resolve_model
from pipeline.flags import make_parser
from pipeline.settings import BatchSettings, RunSettings, Send
from pipeline.usage import UsageError
from pipeline.values import MODEL_ID
from pipeline.worker_pool import WorkerPool
from rows.bigquery import TableName
from transforms.staging import StagingArea

_MOST_DECODERS = 4
_STAGED = ("uris", "batch")
_ONLY_URIS = ("bucket_service_account", "full_scope_tokens")
_ONLY_REQUESTS = (
    *("clips_per_request", "max_request_bytes", "max_requests_per_minute", "max_requests", "requests_in_flight"),
    *("timeout_s", "max_attempts", "no_probe"),
)
_ONLY_BATCH = (
    *("batch_model", "batch_project", "batch_machine_type", "batch_accelerator_type", "batch_accelerator_count"),
    *("batch_starting_replicas", "batch_max_replicas", "batch_step"),
)
_LONGEST_OBJECT_PREFIX = 900
"""Bytes: what runs append is shorter than what is left of the 1024 that an object's name may have."""


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    run: RunSettings
    plan: bool
    beam: PipelineOptions
    pool: WorkerPool | None
    """On Dataflow."""
    waits: bool
    """Whether the run is followed to its end."""


def parse(argv: Sequence[str]) -> Arguments:
    """The settings that the command line describes.

    Raises UsageError with a one-line message for whatever cannot be meant.
    """
    if "--help" in argv or "-h" in argv:
        make_parser().print_help()
        sys.exit(0)
    given, rest = make_parser().parse_known_args(argv)
    stray = next((text for text in rest if not text.startswith("-")), None)
    if stray is not None and (rest[0] == stray):
        raise UsageError(f"{stray!r} belongs to no option; a glob must be quoted, and each input follows --input")
    beam = parse_beam_flags(rest, local_endpoint=given.endpoint == "local")
    runner = beam.view_as(StandardOptions).runner
    on_dataflow = runner == dataflow.RUNNER
    _check_what(given)
    if not given.endpoint and (given.send != "batch" or given.endpoint == ""):
        raise UsageError("--endpoint is missing: expected for example --endpoint local")
    _check_output(given)
    for option in ("checkpoint", "endpoint_host", "model_id", "batch_model", "batch_project"):
        if getattr(given, option) == "":
            raise UsageError(f"--{option} is empty: leave it out for its default")
    if given.model_id is not None and not re.fullmatch(MODEL_ID, given.model_id):
        raise UsageError(f"--model_id is {given.model_id!r}: expected letters, digits and . _ : / @ + -, 200 at most")
    if given.output_format not in ("tfrecord", "parquet"):
        raise UsageError(f"--output_format is {given.output_format!r}: expected tfrecord or parquet")
    _check_sending(given, on_dataflow=on_dataflow)
    try:
        clips = ClipSettings(
            given.channel,
            given.hop_s,
            given.tail,
            given.min_audio_s,
            given.min_rms_dbfs,
            given.event_context,
            given.resampler,
        )
    except ValueError as error:  # its fields are named as the options are
        raise UsageError(f"--{error}") from None
    try:
        if given.send == "batch":
            target = resolve_model(given.endpoint, given.batch_model, given.endpoint_host, given.instance_format)
        else:
            target = resolve(given.endpoint, given.endpoint_host, given.send, given.instance_format)
        run = RunSettings(
            inputs=tuple(dict.fromkeys(map(_checked_input, given.input))),
            manifest=_manifest(given),
            limit=given.limit,
            clips=clips,
            target=target,
            model_id=given.model_id or target.default_model_id,
            send=given.send,
            batch=_batch(given),
            instance_format=given.instance_format,
            transport=given.transport,
            timeout_s=given.timeout_s,
            max_attempts=given.max_attempts,
            requests_in_flight=given.requests_in_flight,
            clips_per_request=given.clips_per_request,
            max_request_bytes=given.max_request_bytes,
            max_requests_per_minute=given.max_requests_per_minute,
            max_requests=given.max_requests,
            endpoint_service_account=given.endpoint_service_account,
            bucket_service_account=given.bucket_service_account,
            full_scope_tokens=given.full_scope_tokens,
            staging_location=given.staging_location if given.send in _STAGED else None,
            keep_staged=given.keep_staged,
            probe=not given.no_probe,
            output=None if given.output is None else _checked_prefix("--output", given.output),
            output_table=_table(given),
            job_project=beam.view_as(GoogleCloudOptions).project,
            load_location=_load_location(given, beam),
            output_format=given.output_format,
            checkpoint=_checked_prefix("--checkpoint", _checkpoint(given)),
            fresh_checkpoint=given.fresh_checkpoint,
            delete_checkpoint=given.delete_checkpoint,
            retry_failed=given.retry_failed,
            decoder_processes=_decoder_processes(dataflow.worker_cores(beam) if on_dataflow else os.cpu_count())
            if given.decoder_processes is None
            else given.decoder_processes,
            decoder_limits=DecoderLimits(given.decoder_timeout_s, given.decoder_memory_mb << 20),
            overwrite=given.overwrite,
            max_failure_fraction=given.max_failure_fraction,
        )
        if not target.local:
            _check_settings(run)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _check_reach(run, runner)
    writes_template = bool(beam.view_as(GoogleCloudOptions).template_location)
    if not on_dataflow:
        for option, is_given in (("no_wait", given.no_wait), ("template_location", writes_template)):
            if is_given:
                raise UsageError(f"--{option} is given, but has a meaning only with --runner {dataflow.RUNNER}")
    waits = not (given.no_wait or writes_template)
    if run.batch is not None and run.batch.step is None and not waits:
        alone = "--no_wait is given" if given.no_wait else "a template's launcher never waits"
        raise UsageError(
            f"--batch_step is missing: with --send batch something must wait for the job, but {alone}: expected write, and once the "
            "job has ended join"
        )
    if run.delete_checkpoint and not waits:
        raise UsageError(
            f"--delete_checkpoint is given together with --{'no_wait' if given.no_wait else 'template_location'}: the job needs the "
            "checkpoint to its end, for which nobody waits here"
        )
    pool = dataflow.complete(beam, run, given.staging_location) if on_dataflow else None
    return Arguments(run, given.plan, beam, pool, waits)


def _decoder_processes(cores: int | None) -> int:
    """One for each processor core but that of the process that sends, and no more than it can keep up with."""
    return max(1, min(_MOST_DECODERS, (cores or 1) - 1))


def _check_what(given: argparse.Namespace) -> None:
    """Refuses no recordings at all, two ways of naming them, and options that would have no effect."""
    if not given.input and given.manifest is None:
        raise UsageError("--input is missing: expected for example --input data/coughs, or --manifest FILE")
    if given.input and given.manifest is not None:
        raise UsageError("--input and --manifest are given: expected one of them, as the manifest names the recordings")
    if given.manifest is None:
        for option in ("uri_column", "uri_template"):
            if getattr(given, option) is not None:
                raise UsageError(f"--{option} is given, but has a meaning only with --manifest")


def _check_output(given: argparse.Namespace) -> None:
    """Refuses no output at all, and tables alone without a checkpoint of a known place."""
    if not (given.output or given.output_table):
        raise UsageError(
            "--output is missing: expected for example --output out/coughs, or --output_table PROJECT:DATASET.TABLE"
        )
    if given.output == "":
        raise UsageError("--output is empty: leave it out to write to --output_table only")
    if given.output is None:
        if not given.checkpoint:
            raise UsageError(
                "--checkpoint is missing: expected with --output_table alone, for example --checkpoint gs://bucket/checkpoint"
            )
        if given.overwrite:
            raise UsageError("--overwrite is given, but has a meaning only with --output: tables are merged into")


def _table(given: argparse.Namespace) -> TableName | None:
    if given.output_table is None:
        return None
    try:
        return TableName.parse(given.output_table)
    except ValueError as error:
        raise UsageError(f"--output_table is {given.output_table!r}: {error}") from None


def _checkpoint(given: argparse.Namespace) -> str:
    return str(given.checkpoint or f"{given.output}-checkpoint").rstrip("/")


def _load_location(given: argparse.Namespace, beam: PipelineOptions) -> str | None:
    """Where the files are put that BigQuery's load jobs read: they read Cloud Storage only."""
    if given.output_table is None:
        return None
    for location in (beam.view_as(GoogleCloudOptions).temp_location, _checkpoint(given)):
        if location and re.fullmatch(r"gs://[^/]+(/.*)?", location):
            return str(location).rstrip("/")
    raise UsageError(
        "--temp_location is missing: expected with --output_table, for example --temp_location gs://bucket/temp, for the files "
        "that BigQuery loads (or a --checkpoint on gs://)"
    )


def _manifest(given: argparse.Namespace) -> ManifestSettings | None:
    if given.manifest is None:
        return None
    path = _checked_input(given.manifest, "--manifest")
    try:
        return ManifestSettings(path, given.uri_column, given.uri_template, given.channel)
    except ValueError as error:  # its fields are named as the options are
        raise UsageError(f"--{error}") from None


def _batch(given: argparse.Namespace) -> BatchSettings | None:
    if given.send != "batch":
        return None
    return BatchSettings(
        given.batch_project,
        given.batch_machine_type,
        given.batch_accelerator_type,
        given.batch_accelerator_count,
        given.batch_starting_replicas,
        given.batch_max_replicas,
        given.batch_step,
    )


def _check_settings(run: RunSettings) -> None:
    """Raises ValueError, or UsageError, for what the client of the endpoint, or of the job service, would refuse."""
    target = run.target
    if run.batch is None:
        run.endpoint_settings(target.name, target.host)
        return
    try:
        run.job_settings(target.name, target.host)
    except ValueError as error:  # its fields are named as the options are
        raise UsageError(f"--{error}") from None


def _check_sending(given: argparse.Namespace, *, on_dataflow: bool) -> None:
    """Refuses ways of sending that do not exist, and options that would have no effect."""
    for option, choices in (("send", Send), ("instance_format", InstanceFormat), ("transport", TransportName)):
        if (value := getattr(given, option)) not in get_args(choices):
            raise UsageError(f"--{option} is {value!r}: expected {' or '.join(get_args(choices))}")
    if given.send == "batch":
        _check_batch(given)
        return
    _check_no_effect(given, _ONLY_BATCH, "batch")
    most = make_codec(given.transport, given.instance_format, given.send, "").max_instances
    if given.clips_per_request is not None and given.clips_per_request > most:
        raise UsageError(f"--clips_per_request is {given.clips_per_request}: the endpoint takes at most {most}")
    if given.instance_format == "research" and given.max_request_bytes != MAX_REQUEST_BYTES:
        raise UsageError(
            f"--max_request_bytes is {given.max_request_bytes}: research endpoints take {MAX_REQUEST_BYTES} at most"
        )
    if given.send == "uris":
        _check_staging(given)
        return
    for option in ("staging_location", "keep_staged"):
        if option == "staging_location" and on_dataflow:
            continue  # the job's own files go there
        if getattr(given, option) not in (None, False):
            raise UsageError(f"--{option} is given, but has a meaning only with --send uris or batch")
    _check_no_effect(given, _ONLY_URIS, "uris")


def _check_batch(given: argparse.Namespace) -> None:
    """Refuses for a batch prediction job what has a meaning only for requests."""
    _check_staging(given)
    _check_no_effect(given, _ONLY_URIS, "uris")
    _check_no_effect(given, _ONLY_REQUESTS, "audio or uris")
    if given.batch_step == "write" and given.delete_checkpoint:
        raise UsageError(
            "--delete_checkpoint is given, but has no meaning with --batch_step write: the step join needs it"
        )
    if given.batch_step == "join" and given.fresh_checkpoint:
        raise UsageError("--fresh_checkpoint is given, but would drop what --batch_step join is to read")


def _check_no_effect(given: argparse.Namespace, options: tuple[str, ...], send: str) -> None:
    defaults = make_parser()
    for option in options:
        if getattr(given, option) != defaults.get_default(option):
            raise UsageError(f"--{option} is given, but has a meaning only with --send {send}")


def _check_staging(given: argparse.Namespace) -> None:
    if given.staging_location is None:
        raise UsageError(
            f"--staging_location is missing: expected with --send {given.send}, for example --staging_location gs://bucket/staging"
        )
    try:
        StagingArea.of(given.staging_location, "run")
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    if given.endpoint == "local" and not os.environ.get("STORAGE_EMULATOR_HOST"):
        raise UsageError(
            f"--send is {given.send!r}, but --endpoint local reads objects from a storage server on this machine only: expected its "
            "address in STORAGE_EMULATOR_HOST"
        )


def _check_reach(run: RunSettings, runner: str) -> None:
    """Refuses paths on this machine for a runner whose workers are elsewhere."""
    if runner not in LOCAL_RUNNERS:
        if run.max_requests_per_minute is not None and runner != dataflow.RUNNER:
            raise UsageError(
                f"--max_requests_per_minute is {run.max_requests_per_minute:g}, which the processes of one machine keep together: "
                f"workers of --runner {runner} are on several, and only on Dataflow is the limit divided among them"
            )
        if run.max_requests is not None:
            raise UsageError(
                f"--max_requests is {run.max_requests}, which the processes of one machine count together: workers of --runner "
                f"{runner} are on several; expected instead --limit, for fewer recordings"
            )
        manifest = () if run.manifest is None else (run.manifest.path,)
        for option, paths in (
            ("input", run.inputs),
            ("manifest", manifest),
            ("output", () if run.output is None else (run.output,)),
            ("checkpoint", (run.checkpoint,)),
        ):
            local = next((path for path in paths if not path.startswith("gs://")), None)
            if local is not None:
                raise UsageError(
                    f"--{option} is {local!r}, which workers of --runner {runner} cannot reach: expected gs://..."
                )


def _checked_input(text: str, option: str = "--input") -> str:
    if not text:
        raise ValueError(f"{option} is empty: expected a file{', a folder or a glob' if option == '--input' else ''}")
    if not text.startswith("gs://") and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError(f"{option} is {text!r}: expected a local path or gs://bucket/path")
    _check_utf8(option, text)
    return os.path.expanduser(text)  # noqa: PTH111  (a shell leaves a quoted ~ to us)


def _check_utf8(option: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option} is {text!r}, which is not valid UTF-8: no table can hold it") from None


def _checked_prefix(option: str, text: str) -> str:
    if not text or text.rsplit("/", 1)[-1] in ("", ".", ".."):
        raise ValueError(f"{option} is {text!r}: expected the beginning of file names, such as out/study, not a folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) and not re.fullmatch(r"gs://[^/]+/.+", text, re.DOTALL):
        raise ValueError(f"{option} is {text!r}: expected a local path or gs://bucket/path")
    _check_utf8(option, text)
    if text.startswith("gs://"):
        _check_object_name(option, text)
    return os.path.expanduser(text)  # noqa: PTH111


def _check_object_name(option: str, text: str) -> None:
    """Refuses what Cloud Storage takes for no name, and parts that are there by mistake, such as of an empty variable."""
    parts = text.removeprefix("gs://").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{option} is {text!r}: expected gs://bucket/path without empty or dotted parts")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{option} is {text!r}: expected gs://bucket/path without control characters")
    if len("/".join(parts[1:]).encode()) > _LONGEST_OBJECT_PREFIX:
        raise ValueError(f"{option} is {text!r}: expected less than {_LONGEST_OBJECT_PREFIX} bytes behind the bucket")
