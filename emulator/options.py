"""The options of `python -m emulator`, checked one by one before anything is started."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emulator.endpoints import (
    DEFAULT_AUDIO_ENDPOINT,
    DEFAULT_GARDEN_ENDPOINT,
    DEFAULT_URI_ENDPOINT,
    MAX_REQUEST_BYTES,
    Endpoints,
    InstanceFormat,
    ServedEndpoint,
    is_endpoint_name,
)
from emulator.faults import Faults, parse_faults
from emulator.job_faults import JobFaults, parse_job_faults
from emulator.job_rules import DEFAULT_GARDEN_MODEL, DEFAULT_MODEL, Models, ServedModel, is_model_name
from emulator.jobs import JobSettings
from emulator.loopback import is_loopback_url, storage_address
from emulator.service import ServiceSettings

MAX_LATENCY_MS = 60_000
"""The real service gives up after 60 s, whatever the client asks."""


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        service: how requests are answered.
        jobs: how batch prediction jobs are.
        port: of gRPC, 0 for a free one.
        rest_port: of REST, 0 for a free one.
        arrivals_log: a file, None for no log.
        storage_host: `http://127.0.0.1:PORT` of the storage server, None if there is none.
        token_info_url: where tokens are asked about, None if any is good.
        exit_with_parent: whether to stop when the parent does.
    """

    service: ServiceSettings
    jobs: JobSettings
    port: int
    rest_port: int
    arrivals_log: str | None
    storage_host: str | None
    token_info_url: str | None
    exit_with_parent: bool


def parse_options(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Options:
    """Reads the command line (`sys.argv` if None); wrong usage is told in one line and ends the process with 2."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        endpoints = Endpoints(
            [
                ServedEndpoint(given.endpoint, InstanceFormat.RESEARCH_AUDIO),
                ServedEndpoint(given.uri_endpoint, InstanceFormat.RESEARCH_URIS),
                ServedEndpoint(given.garden_endpoint, InstanceFormat.MODEL_GARDEN, given.max_request_bytes),
            ]
        )
    except ValueError as error:
        parser.error(f"--endpoint, --uri_endpoint, --garden_endpoint: {error}")
    try:
        models = Models(
            [
                ServedModel(given.model, InstanceFormat.RESEARCH_AUDIO),
                ServedModel(given.garden_model, InstanceFormat.MODEL_GARDEN),
            ]
        )
    except ValueError as error:
        parser.error(f"--model, --garden_model: {error}")
    # A storage emulator elsewhere is of no use here, and no reason not to serve what needs none.
    storage_host = given.storage_host or storage_address(environment.get("STORAGE_EMULATOR_HOST", ""))
    return Options(
        ServiceSettings(
            endpoints,
            given.latency_ms,
            couple_batch_mates=given.couple_batch_mates,
            faults=given.faults,
            quota_per_minute=given.quota_per_minute,
        ),
        JobSettings(models, given.job_faults),
        given.port,
        given.rest_port,
        given.arrivals_log,
        storage_host,
        given.token_info_url,
        given.exit_with_parent,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="Local HeAR endpoints on 127.0.0.1. Their embeddings come from a stand-in; it is not HeAR.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--port", type=_port, default=0, metavar="N", help="port of gRPC (default: a free one)")
    add("--rest_port", type=_port, default=0, metavar="N", help="port of REST (default: a free one)")
    add("--latency_ms", type=_latency_ms, default=0.0, metavar="N", help="service time of a request (default: 0)")
    add("--arrivals_log", metavar="FILE", help="append a JSON line for each request")
    for option, default, what in (
        ("--endpoint", DEFAULT_AUDIO_ENDPOINT, "raw audio"),
        ("--uri_endpoint", DEFAULT_URI_ENDPOINT, "object URIs"),
        ("--garden_endpoint", DEFAULT_GARDEN_ENDPOINT, "the Model Garden format"),
    ):
        help_text = f"name of the endpoint for {what} (default: %(default)s)"
        add(option, type=_endpoint, default=default, metavar="NAME", help=help_text)
    for option, default, what in (
        ("--model", DEFAULT_MODEL, "raw audio"),
        ("--garden_model", DEFAULT_GARDEN_MODEL, "the Model Garden format"),
    ):
        help_text = f"name of the model of batch prediction jobs for {what} (default: %(default)s)"
        add(option, type=_model, default=default, metavar="NAME", help=help_text)
    add(
        "--max_request_bytes",
        type=_at_least_1,
        default=MAX_REQUEST_BYTES,
        metavar="N",
        help="longest request of the Model Garden endpoint; dedicated ones take 10000000 (default: %(default)s)",
    )
    add(
        "--storage_host",
        type=_storage_host,
        metavar="URL",
        help="storage server on loopback that objects are read from (default: the environment's STORAGE_EMULATOR_HOST)",
    )
    add(
        "--token_info_url",
        type=_token_info_url,
        metavar="URL",
        help="token server on loopback that is asked about each bearer token (default: any token is good)",
    )
    add("--couple_batch_mates", action="store_true", help="let an embedding depend on the other clips of its request")
    add(
        "--faults",
        type=_faults,
        default=Faults(),
        metavar="SPEC",
        help="faults on purpose, such as seed=7,429=0.1,503=0.05 (see docs/local-endpoint.md)",
    )
    add(
        "--job_faults",
        type=_job_faults,
        default=JobFaults(),
        metavar="SPEC",
        help="the same for batch prediction jobs, such as invalid=0.1,die_after=0.5 (see docs/local-endpoint.md)",
    )
    add(
        "--quota_per_minute",
        type=_at_least_1,
        metavar="N",
        help="requests accepted in any 60 s; others are RESOURCE_EXHAUSTED (default: no limit)",
    )
    add("--exit_with_parent", action="store_true", help="stop when standard input closes or the parent ends")
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: expected 0 to 65535")


def _latency_ms(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and 0 <= value <= MAX_LATENCY_MS:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a service time: expected 0 to {MAX_LATENCY_MS} milliseconds")


def _endpoint(text: str) -> str:
    if is_endpoint_name(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not an endpoint: expected projects/P/locations/L/endpoints/E")


def _model(text: str) -> str:
    if is_model_name(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a model: expected projects/P/locations/L/models/M")


def _at_least_1(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a count: expected a whole number, 1 or more")


def _storage_host(text: str) -> str:
    address = storage_address(text)
    if address is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a storage server here: expected http://127.0.0.1:PORT")
    return address


def _token_info_url(text: str) -> str:
    if is_loopback_url(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a token server here: expected http://127.0.0.1:PORT/PATH")


def _faults(text: str) -> Faults:
    try:
        return parse_faults(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _job_faults(text: str) -> JobFaults:
    try:
        return parse_job_faults(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
