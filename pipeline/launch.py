"""Runs the graph: locally always on Beam's FnApiRunner, elsewhere on the runner that was asked for."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from rich.console import Console

from emulator.process import LocalEndpointError, start_local_endpoint
from endpoint.settings import EndpointSettings
from pipeline.beam_options import LOCAL_RUNNERS
from pipeline.graph import build
from pipeline.settings import RunSettings
from pipeline.watch import watching
from transforms.embed_packets import release_client
from transforms.progress import PROGRESS

_KNOWN_ERROR = re.compile(
    r"^(?:audio\.listing\.ListingError|endpoint\.errors\.\w+|rows\.writer\.CheckpointWriteError|transforms\.choose_rows\.LostClip)"
    r": (?P<message>.+?)(?: \[while running .*)?$",
    re.MULTILINE,
)


class RunFailed(Exception):
    """The run ended early; the message says why."""


class _NoTracesOfKnownErrors(logging.Filter):
    """Keeps Beam from logging a stack trace of what will be said in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += (
                f"\n{type(record.exc_info[1]).__module__}.{type(record.exc_info[1]).__qualname__}: {record.exc_info[1]}"
            )
        return not _KNOWN_ERROR.search(text)


@contextmanager
def running_endpoint(run: RunSettings) -> Iterator[EndpointSettings]:
    """The endpoint that the run asks; a local one is started, and ends with this process, however that ends."""
    if not run.target.local:
        yield run.endpoint_settings(run.target.name, run.target.host)
        return
    try:
        local = start_local_endpoint()
    except LocalEndpointError as error:
        raise RunFailed(str(error)) from None
    with local:
        yield run.endpoint_settings(local.endpoint_name, local.host)


def launch(run: RunSettings, endpoint: EndpointSettings, options: PipelineOptions, facts: Mapping[str, Any]) -> None:
    """Builds the graph, runs it, and waits for its end; RunFailed says in one line why it ended early."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_NoTracesOfKnownErrors())
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline, run, endpoint, facts)
    try:
        with watching(PROGRESS, Console(stderr=True)):
            pipeline.run().wait_until_finish()
    except Exception as error:
        known = _KNOWN_ERROR.findall(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
        if not known:
            raise
        raise RunFailed(known[-1]) from None
    finally:
        release_client()


def _runner(options: PipelineOptions) -> Any:
    """`DirectRunner` too runs on FnApiRunner: Beam's own DirectRunner first tries to download another runner's binary."""
    runner = options.view_as(StandardOptions).runner
    if runner not in LOCAL_RUNNERS:
        return runner
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        _prepare_worker_processes()
    return FnApiRunner()


def _prepare_worker_processes() -> None:
    """Lets the worker processes that Beam starts find this project and reach this process."""
    packages = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    # gRPC sends even calls to this machine through a proxy that the environment names.
    # It knows only the lower-case names.
    without = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [without, "localhost", "127.0.0.1"]))
    print(
        "note: with --direct_running_mode=multi_processing, Beam listens on all network interfaces of this machine while it runs",
        file=sys.stderr,
    )
