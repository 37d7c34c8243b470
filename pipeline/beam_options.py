"""Beam's own options, parsed as strictly as ours: Beam itself drops what it does not know."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions, _BeamArgumentParser

from pipeline.usage import PROGRAM, UsageError
from pipeline.values import truth

LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner")
REMOTE_RUNNERS = ("DataflowRunner", "FlinkRunner", "PortableRunner", "PrismRunner", "SparkRunner")


class _StrictParser(_BeamArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> None:
        raise UsageError(message)


def parse_beam_flags(flags: Sequence[str], *, local_endpoint: bool) -> PipelineOptions:
    """Beam's options from the flags that are not ours.

    Raises UsageError for an unknown flag, a wrong value, an unsupported runner, or a remote runner with the local endpoint.
    """
    parser = _StrictParser(allow_abbrev=False)
    for group in {str(group): group for group in PipelineOptions.__subclasses__()}.values():
        group._add_argparse_args(parser)
    flags = list(_as_switches(parser, flags))
    with contextlib.redirect_stderr(io.StringIO()):
        _, unknown = parser.parse_known_args(flags)
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}: see {PROGRAM} --help, and Apache Beam's options")
    options = PipelineOptions(flags)
    standard = options.view_as(StandardOptions)
    runner = standard.runner or LOCAL_RUNNERS[0]
    if runner not in (*LOCAL_RUNNERS, *REMOTE_RUNNERS):
        raise UsageError(f"--runner is {runner!r}: expected one of {', '.join((*LOCAL_RUNNERS, *REMOTE_RUNNERS))}")
    if runner in REMOTE_RUNNERS and local_endpoint:
        raise UsageError(
            f"--endpoint local runs on this machine, where workers of --runner {runner} cannot reach it: name another endpoint"
        )
    if standard.streaming:
        raise UsageError("--streaming is set: expected a run over recordings that are there, which is a batch job")
    direct = options.view_as(DirectOptions)
    if direct.direct_num_workers < 0:
        raise UsageError(f"--direct_num_workers is {direct.direct_num_workers}: expected 0 (one for each core) or more")
    standard.runner = runner
    return options


def _as_switches(parser: argparse.ArgumentParser, flags: Sequence[str]) -> Iterator[str]:
    """`--switch=true` as Beam knows it, `--switch`, and without `--switch=false`: a template's parameters have values."""
    switches = {
        name
        for action in parser._actions
        if isinstance(action, (argparse._StoreTrueAction, argparse._StoreFalseAction))
        for name in action.option_strings
    }
    for flag in flags:
        name, given, value = flag.partition("=")
        if not given or name not in switches:
            yield flag
            continue
        try:
            if truth(value):
                yield name
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{name}: {error}") from None
