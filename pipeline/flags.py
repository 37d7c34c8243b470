"""The command's own flags, their defaults and what they say about themselves."""

from __future__ import annotations

import argparse
from typing import NoReturn

from endpoint.job_settings import JobSettings
from endpoint.settings import MAX_REQUEST_BYTES
from pipeline.usage import PROGRAM, UsageError
from pipeline.values import ACCOUNT, FRACTION, NUMBER, RATE, SECONDS, SWITCH, whole_number

_MOST_DECODERS = 64
_MOST_ACCELERATORS = 16
_MOST_IN_FLIGHT = 1024
"""Each takes some 3 MB of memory."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def make_parser() -> argparse.ArgumentParser:
    """The parser of this project's own options; what it does not know is left to Beam's."""
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Turns recordings into a table with one HeAR embedding for each 2-second clip.",
        epilog="Apache Beam's own options (--runner, --direct_num_workers, --temp_location, ...) are accepted too.\n"
        "Exit status: 0 done; 1 the run failed, nothing could be embedded, or too many recordings failed; 2 wrong usage.",
    )
    what = parser.add_argument_group("recordings")
    what.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="a file, a folder (all audio files below it), or a glob with * ? [] **; local or gs://; repeatable; quote globs; "
        "a name that begins with a dash is written --input=-NAME",
    )
    what.add_argument(
        "--manifest",
        metavar="FILE",
        help="instead of --input: a table with a recording, or an annotated event (start_s, end_s) of one, in each row: .csv, .tsv, "
        ".jsonl, also with .gz; local or gs://; other columns are kept as text and joined to the rows",
    )
    what.add_argument(
        "--uri_column",
        metavar="NAME",
        help="the manifest's column with the recordings' paths or gs:// URIs; relative ones are relative to the manifest (default: uri)",
    )
    what.add_argument(
        "--uri_template",
        metavar="TEXT",
        help="builds the URIs from the manifest's columns instead, for example 'gs://bucket/{uuid}.webm'",
    )
    what.add_argument(
        "--limit", type=whole_number(1), metavar="N", help="only the first N recordings, in the order of their URIs"
    )

    clips = parser.add_argument_group("clips")
    clips.add_argument("--channel", default="mean", help="mean, each, or a channel's number from 0 (default: mean)")
    clips.add_argument(
        "--hop_s",
        type=NUMBER,
        default=2.0,
        metavar="S",
        help="seconds from one clip's start to the next (default: 2.0)",
    )
    clips.add_argument(
        "--tail",
        default="pad",
        help="what becomes of a last piece shorter than 2 s: pad it with zeros, shift it back, or drop it (default: pad)",
    )
    clips.add_argument(
        "--min_audio_s",
        type=NUMBER,
        default=0.5,
        metavar="S",
        help="a padded last clip with less audio is skipped (default: 0.5)",
    )
    clips.add_argument(
        "--min_rms_dbfs", type=NUMBER, metavar="DB", help="clips that are quieter are skipped (default: none)"
    )

    clips.add_argument(
        "--event_context",
        choices=("audio", "zeros"),
        default="audio",
        help="what surrounds a manifest's event in its clips: the recording's audio, or zeros (default: audio)",
    )
    clips.add_argument(
        "--resampler",
        default="soxr",
        help="soxr, or tensorflow_io for features that must match those made with tfio.audio.resample: it needs the environment that "
        "make tfio makes (default: soxr)",
    )

    decoding = parser.add_argument_group("decoding")
    decoding.add_argument(
        "--decoder_processes",
        type=whole_number(0, _MOST_DECODERS),
        metavar="N",
        help="child processes that decode, for each process of the runner; 0: no child processes, so that a file that crashes its "
        "decoder ends the run (default: one less than there are processor cores, on Dataflow those of a worker, 1 to 4)",
    )
    decoding.add_argument(
        "--decoder_timeout_s",
        type=SECONDS,
        default=60.0,
        metavar="S",
        help="a file whose decoder makes no progress for so long has failed (default: 60)",
    )
    decoding.add_argument(
        "--decoder_memory_mb",
        type=whole_number(64),
        default=1024,
        metavar="N",
        help="a file whose decoder takes up more memory has failed (default: 1024)",
    )

    where = parser.add_argument_group("endpoint")
    where.add_argument(
        "--endpoint",
        metavar="NAME",
        help="where audio is sent (required, unless --batch_model says it): local (a stand-in on this machine, not HeAR), research (the "
        "documented HeAR endpoint), or projects/P/locations/L/endpoints/E",
    )
    where.add_argument(
        "--endpoint_host",
        metavar="HOST",
        help="another host than LOCATION-aiplatform.googleapis.com, as dedicated endpoints have",
    )
    where.add_argument(
        "--send",
        default="audio",
        help="audio (in the requests), uris (of objects on Cloud Storage, up to 640 a request, staged if need be), or batch (all clips "
        "in files on Cloud Storage, for one batch prediction job: no endpoint is asked) (default: audio)",
    )
    where.add_argument(
        "--instance_format",
        default="research",
        help="research, or model_garden for HeAR deployed in a project of your own (default: research)",
    )
    where.add_argument("--transport", default="grpc", help="grpc, or rest for networks that block it (default: grpc)")
    where.add_argument(
        "--model_id",
        metavar="ID",
        help="written to all rows (default: hear; for endpoints on this machine the stand-in's)",
    )
    where.add_argument(
        "--clips_per_request",
        type=whole_number(1),
        metavar="N",
        help="at most (default: what the endpoint takes: 4, 640 URIs, or for audio to Model Garden what fits)",
    )
    where.add_argument(
        "--max_request_bytes",
        type=whole_number(MAX_REQUEST_BYTES, 10_000_000),
        default=MAX_REQUEST_BYTES,
        metavar="N",
        help="up to 10000000 for dedicated endpoints (default: 1500000)",
    )
    where.add_argument(
        "--max_requests_per_minute",
        type=RATE,
        metavar="N",
        help="of all processes on this machine or all workers on Dataflow together, retries included (default: as the endpoint lets "
        "through)",
    )
    where.add_argument(
        "--max_requests",
        type=whole_number(1),
        metavar="N",
        help="end this run after N requests, the probe's and retries included; the same command goes on with what is left. The "
        "service's operators watch the daily volume (default: no limit)",
    )
    where.add_argument(
        "--requests_in_flight",
        type=whole_number(1, _MOST_IN_FLIGHT),
        default=32,
        metavar="N",
        help="at most, in each process (default: 32)",
    )
    where.add_argument("--timeout_s", type=SECONDS, default=60.0, metavar="S", help="of one request (default: 60)")
    where.add_argument(
        "--max_attempts",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="attempts in a row until the clips of a request count as failed (default: 8)",
    )

    where.add_argument(
        "--no_probe",
        **SWITCH,
        help="don't check the endpoint with two requests before the run (the second shows whether clips of a request "
        "influence each other)",
    )
    where.add_argument(
        "--endpoint_service_account",
        type=ACCOUNT,
        metavar="EMAIL",
        help="call the endpoint as this service account (default: as the application default credentials)",
    )

    staged = parser.add_argument_group("with --send uris or batch")
    staged.add_argument(
        "--staging_location",
        metavar="gs://...",
        help="where clips are put until they are answered (required): as 16-bit WAV for URIs, where recordings on Cloud Storage that "
        "are such clips already are sent as they are; as JSON lines for a batch prediction job, which writes its results beside "
        "them. On Dataflow the job's packages are put there, too",
    )
    staged.add_argument("--keep_staged", **SWITCH, help="don't delete what is staged, nor a job's results")

    batch = parser.add_argument_group("with --send batch")
    batch.add_argument(
        "--batch_model",
        metavar="NAME",
        help="projects/P/locations/L/models/M, with @VERSION if need be: a model of your own, such as one from Model Garden, instead of "
        "--endpoint (default: the documented one with --endpoint research)",
    )
    batch.add_argument(
        "--batch_project",
        metavar="ID",
        help="in which the job runs, and is paid for (default: the model's)",
    )
    batch.add_argument(
        "--batch_machine_type",
        default=JobSettings.machine_type,
        metavar="TYPE",
        help=f"of the job (default: {JobSettings.machine_type})",
    )
    batch.add_argument(
        "--batch_accelerator_type",
        default=JobSettings.accelerator_type,
        metavar="TYPE",
        help=f"of each machine (default: {JobSettings.accelerator_type})",
    )
    batch.add_argument(
        "--batch_accelerator_count",
        type=whole_number(0, _MOST_ACCELERATORS),
        default=1,
        metavar="N",
        help="of each machine; 0: none (default: 1)",
    )
    batch.add_argument(
        "--batch_starting_replicas",
        type=whole_number(1),
        metavar="N",
        help="machines that the job begins with (default: as the service chooses)",
    )
    batch.add_argument(
        "--batch_max_replicas",
        type=whole_number(1),
        metavar="N",
        help="machines at most (default: as the service chooses)",
    )
    batch.add_argument(
        "--batch_step",
        choices=("write", "join"),
        help="only the first half, which writes what is missing and submits the job, or only the second, which makes rows of its "
        "results: for where nothing waits in between (default: both, and the wait)",
    )

    uris = parser.add_argument_group("with --send uris")
    uris.add_argument(
        "--bucket_service_account",
        type=ACCOUNT,
        metavar="EMAIL",
        help="the service reads objects with tokens of this service account (default: the application default "
        "credentials')",
    )
    uris.add_argument(
        "--full_scope_tokens",
        **SWITCH,
        help="don't restrict these tokens to reading the bucket: whoever holds one can do all that the account can",
    )

    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        metavar="PREFIX",
        help="of the output files' names, such as out/study (required, unless --output_table is given)",
    )
    output.add_argument(
        "--output_table",
        metavar="PROJECT:DATASET.TABLE",
        help="a BigQuery table, instead of files or beside them; also TABLE_recordings and TABLE_failures. New rows are merged into "
        "what is there. Needs --checkpoint where there is no --output, and --temp_location gs://... or a checkpoint on gs://",
    )
    output.add_argument("--output_format", default="tfrecord", help="tfrecord or parquet (default: tfrecord)")
    output.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="where rows are kept as they arrive, so that the next run sends only what is missing (default: PREFIX-checkpoint)",
    )
    output.add_argument("--retry_failed", **SWITCH, help="send again what failed for good in earlier runs, too")
    output.add_argument("--fresh_checkpoint", **SWITCH, help="drop what the checkpoint holds, and start over")
    output.add_argument("--delete_checkpoint", **SWITCH, help="remove the checkpoint once all is done and written")
    output.add_argument("--overwrite", **SWITCH, help="replace output files that are there already")
    output.add_argument(
        "--max_failure_fraction",
        type=FRACTION,
        default=1.0,
        metavar="F",
        help="exit with status 1 if a larger share of the recordings has a failure (default: 1.0)",
    )
    remote = parser.add_argument_group("with --runner DataflowRunner")
    remote.add_argument(
        "--no_wait",
        action="store_true",
        help="don't follow the job to its end: print its link and where its summary will be",
    )
    parser.add_argument("--plan", action="store_true", help="say what would be done, and send nothing")
    return parser
