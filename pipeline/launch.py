"""Runs the graph: locally always on Beam's FnApiRunner, elsewhere on the runner that was asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from rich.console import Console

from emulator.process import LocalEndpoint, LocalEndpointError, start_local_endpoint
from endpoint.job_settings import JobSettings
from endpoint.settings import EndpointSettings
from pipeline.beam_options import LOCAL_RUNNERS
from pipeline.outputs import remove_unfinished
from pipeline.preflight import remove_staged, staged_in
from pipeline.settings import RunSettings
from pipeline.stopping import stopping_workers
from pipeline.tables import remove_own
from pipeline.watch import watching
from rows.writer import flush_all
from transforms.bigquery_jobs import explain_load
from transforms.packet_bundles import release_shared
from transforms.progress import PROGRESS
from transforms.quiet import INTERRUPT, KNOWN_ERROR, QuietLog, mark_workers

Build = Callable[[beam.Pipeline], None]
"""Adds a graph to a pipeline."""


class RunFailed(Exception):
    """The run ended early; the message says why."""


@contextmanager
def running_endpoint(run: RunSettings) -> Iterator[EndpointSettings]:
    """The endpoint that the run asks; a local one is started, and ends with this process, however that ends."""
    if not run.target.local:
        yield run.endpoint_settings(run.target.name, run.target.host)
        return
    with _started() as local:
        if run.instance_format == "model_garden":
            name = local.garden_endpoint
        else:
            name = local.uri_endpoint if run.send == "uris" else local.endpoint_name
        yield run.endpoint_settings(name, _host(run, local))


@contextmanager
def running_job_service(run: RunSettings) -> Iterator[JobSettings]:
    """The service of batch prediction jobs that the run asks, and its job but for the files; likewise."""
    if not run.target.local:
        yield run.job_settings(run.target.name, run.target.host)
        return
    with _started() as local:
        model = local.garden_model if run.instance_format == "model_garden" else local.model
        yield run.job_settings(model, _host(run, local))


def _started() -> LocalEndpoint:
    try:
        return start_local_endpoint()
    except LocalEndpointError as error:
        raise RunFailed(str(error)) from None


def _host(run: RunSettings, local: LocalEndpoint) -> str:
    return local.rest_host if run.transport == "rest" else local.host


def launch(run: RunSettings, options: PipelineOptions, build: Build) -> None:
    """Builds a graph, runs it, and waits for its end; RunFailed says in one line why it ended early."""
    _keep_quiet()
    ending: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if _has_worker_processes(options):
        _prepare_worker_processes()
        ending = stopping_workers(partial(_clean_up, run), staged_in=staged_in(run))
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    try:
        with ending, watching(PROGRESS, Console(stderr=True)):
            pipeline.run().wait_until_finish()
    except Exception as error:
        text = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
        if INTERRUPT.search(text):  # it was raised within a bundle
            raise KeyboardInterrupt from None
        known = KNOWN_ERROR.findall(text)
        said = known[-1] if known else explain_load("".join(traceback.format_exception(error)))
        if said is None:
            raise
        raise RunFailed(said) from None
    finally:
        release_shared()
        flush_all()
        if is_local_run(options):  # elsewhere a job may go on whose launcher has been stopped
            remove_unfinished(run.output, run.run_id)


def _clean_up(run: RunSettings) -> None:
    remove_unfinished(run.output, run.run_id)
    remove_staged(run)
    remove_own(run)


def _keep_quiet() -> None:
    for handler in logging.getLogger().handlers:
        if not any(isinstance(existing, QuietLog) for existing in handler.filters):
            handler.addFilter(QuietLog())


def is_local_run(options: PipelineOptions) -> bool:
    """Whether the run's work is done by this process, and processes that it starts."""
    return options.view_as(StandardOptions).runner in LOCAL_RUNNERS


def _has_worker_processes(options: PipelineOptions) -> bool:
    return is_local_run(options) and options.view_as(DirectOptions).direct_running_mode == "multi_processing"


def _runner(options: PipelineOptions) -> Any:
    """`DirectRunner` too runs on FnApiRunner: Beam's own DirectRunner first tries to download another runner's binary."""
    runner = options.view_as(StandardOptions).runner
    return FnApiRunner() if is_local_run(options) else runner


def _prepare_worker_processes() -> None:
    """Lets the worker processes that Beam starts find this project and reach this process."""
    mark_workers()
    packages = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    # gRPC sends even calls to this machine through a proxy that the environment names.
    # It knows only the lower-case names.
    without = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [without, "localhost", "127.0.0.1"]))
    _note_listening()


@cache
def _note_listening() -> None:
    """Once, however many graphs the run has."""
    print(
        "note: with --direct_running_mode=multi_processing, Beam listens on all network interfaces of this machine while it runs",
        file=sys.stderr,
    )
