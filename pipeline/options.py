"""The command's options, parsed strictly: an unknown flag or a wrong value is one line and exit status 2."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from audio.clips import ClipSettings
from pipeline.beam_options import LOCAL_RUNNERS, parse_beam_flags
from pipeline.endpoints import MAX_CLIPS_PER_REQUEST, resolve
from pipeline.settings import RunSettings
from pipeline.usage import PROGRAM, UsageError

_LONGEST_TIMEOUT_S = 3600
_MOST_IN_FLIGHT = 1024
"""Each takes some 3 MB of memory."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def _whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {most}")
        return int(text)

    return parse


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= _LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, {_LONGEST_TIMEOUT_S} at most")
    return value


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    run: RunSettings
    plan: bool
    beam: PipelineOptions


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
        "--limit", type=_whole_number(1), metavar="N", help="only the first N recordings, in the order of their URIs"
    )

    clips = parser.add_argument_group("clips")
    clips.add_argument("--channel", default="mean", help="mean, each, or a channel's number from 0 (default: mean)")
    clips.add_argument(
        "--hop_s",
        type=_number,
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
        type=_number,
        default=0.5,
        metavar="S",
        help="a padded last clip with less audio is skipped (default: 0.5)",
    )
    clips.add_argument(
        "--min_rms_dbfs", type=_number, metavar="DB", help="clips that are quieter are skipped (default: none)"
    )

    where = parser.add_argument_group("endpoint")
    where.add_argument(
        "--endpoint",
        metavar="NAME",
        help="where audio is sent (required): local (a stand-in on this machine, not HeAR), research (the documented HeAR endpoint), "
        "or projects/P/locations/L/endpoints/E",
    )
    where.add_argument("--endpoint_host", metavar="HOST", help="another host than LOCATION-aiplatform.googleapis.com")
    where.add_argument(
        "--model_id",
        metavar="ID",
        help="written to all rows (default: hear; for endpoints on this machine the stand-in's)",
    )
    where.add_argument(
        "--clips_per_request", type=_whole_number(1), default=4, metavar="N", help="at most (default: 4)"
    )
    where.add_argument(
        "--requests_in_flight",
        type=_whole_number(1, _MOST_IN_FLIGHT),
        default=32,
        metavar="N",
        help="at most, in each process (default: 32)",
    )
    where.add_argument("--timeout_s", type=_seconds, default=60.0, metavar="S", help="of one request (default: 60)")
    where.add_argument(
        "--max_attempts",
        type=_whole_number(1),
        default=8,
        metavar="N",
        help="attempts in a row until the clips of a request count as failed (default: 8)",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="PREFIX", help="of the output files' names, such as out/study (required)")
    output.add_argument("--output_format", default="tfrecord", help="tfrecord or parquet (default: tfrecord)")
    output.add_argument(
        "--checkpoint", metavar="DIR", help="where rows are kept as they arrive (default: PREFIX-checkpoint)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace output files that are there already")
    output.add_argument(
        "--max_failure_fraction",
        type=_fraction,
        default=1.0,
        metavar="F",
        help="exit with status 1 if a larger share of the recordings has a failure (default: 1.0)",
    )
    parser.add_argument("--plan", action="store_true", help="say what would be done, and send nothing")
    return parser


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
    for option, example in (
        ("input", "--input data/coughs"),
        ("endpoint", "--endpoint local"),
        ("output", "--output out/coughs"),
    ):
        if not getattr(given, option):
            raise UsageError(f"--{option} is missing: expected for example {example}")
    for option in ("checkpoint", "endpoint_host", "model_id"):
        if getattr(given, option) == "":
            raise UsageError(f"--{option} is empty: leave it out for its default")
    if given.model_id is not None and not re.fullmatch(r"[A-Za-z0-9._:/@+-]{1,200}", given.model_id):
        raise UsageError(f"--model_id is {given.model_id!r}: expected letters, digits and . _ : / @ + -, 200 at most")
    if given.output_format not in ("tfrecord", "parquet"):
        raise UsageError(f"--output_format is {given.output_format!r}: expected tfrecord or parquet")
    if given.clips_per_request > MAX_CLIPS_PER_REQUEST:
        raise UsageError(
            f"--clips_per_request is {given.clips_per_request}: the endpoint takes at most {MAX_CLIPS_PER_REQUEST}"
        )
    try:
        clips = ClipSettings(given.channel, given.hop_s, given.tail, given.min_audio_s, given.min_rms_dbfs)
    except ValueError as error:  # its fields are named as the options are
        raise UsageError(f"--{error}") from None
    try:
        target = resolve(given.endpoint, given.endpoint_host)
        run = RunSettings(
            inputs=tuple(dict.fromkeys(map(_checked_input, given.input))),
            limit=given.limit,
            clips=clips,
            target=target,
            model_id=given.model_id or target.default_model_id,
            timeout_s=given.timeout_s,
            max_attempts=given.max_attempts,
            requests_in_flight=given.requests_in_flight,
            clips_per_request=given.clips_per_request,
            output=_checked_prefix("--output", given.output),
            output_format=given.output_format,
            checkpoint=_checked_prefix("--checkpoint", (given.checkpoint or f"{given.output}-checkpoint").rstrip("/")),
            overwrite=given.overwrite,
            max_failure_fraction=given.max_failure_fraction,
        )
        if not target.local:
            run.endpoint_settings(target.name, target.host)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _check_reach(run, beam.view_as(StandardOptions).runner)
    return Arguments(run, given.plan, beam)


def _check_reach(run: RunSettings, runner: str) -> None:
    """Refuses paths on this machine for a runner whose workers are elsewhere."""
    if runner not in LOCAL_RUNNERS:
        for option, paths in (("input", run.inputs), ("output", (run.output,)), ("checkpoint", (run.checkpoint,))):
            local = next((path for path in paths if not path.startswith("gs://")), None)
            if local is not None:
                raise UsageError(
                    f"--{option} is {local!r}, which workers of --runner {runner} cannot reach: expected gs://..."
                )


def _checked_input(text: str) -> str:
    if not text:
        raise ValueError("--input is empty: expected a file, a folder or a glob")
    if not text.startswith("gs://") and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError(f"--input is {text!r}: expected a local path or gs://bucket/path")
    _check_utf8("--input", text)
    return os.path.expanduser(text)  # noqa: PTH111  (a shell leaves a quoted ~ to us)


def _check_utf8(option: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option} is {text!r}, which is not valid UTF-8: no table can hold it") from None


def _checked_prefix(option: str, text: str) -> str:
    if not text or text.rsplit("/", 1)[-1] in ("", ".", ".."):
        raise ValueError(f"{option} is {text!r}: expected the beginning of file names, such as out/study, not a folder")
    if re.search(r"[*?\[\]]", text):
        raise ValueError(
            f"{option} is {text!r}: expected a path without * ? [ ], which stand for other characters in Beam's file systems"
        )
    if "://" in text and not re.fullmatch(r"gs://[^/]+/.+", text):
        raise ValueError(f"{option} is {text!r}: expected a local path or gs://bucket/path")
    _check_utf8(option, text)
    return os.path.expanduser(text)  # noqa: PTH111
