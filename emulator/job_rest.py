"""The job service over HTTP: `/v1/projects/P/locations/L/batchPredictionJobs`, JSON by protobuf's own mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format

from emulator.job_messages import BatchPredictionJob, ListBatchPredictionJobsRequest
from emulator.jobs import JobService
from emulator.refusals import InvalidArgumentError, RefusalError

_PATH = re.compile(r"/v1/(?P<parent>projects/[^/]+/locations/[^/]+)/batchPredictionJobs(?P<rest>/.*)?")
_JOB = re.compile(r"/(?P<id>[^/:]+)(?P<cancel>:cancel)?")

_QUERY = {"filter": "filter", "pageSize": "page_size", "pageToken": "page_token", "readMask": "read_mask"}


def is_job_path(path: str) -> bool:
    """Whether a request with this path is the job service's to answer."""
    return _PATH.fullmatch(path) is not None


async def answer_job_call(jobs: JobService, method: str, path: str, query: Mapping[str, str], body: bytes) -> bytes:
    """The body of the answer; raises RefusalError."""
    match = _PATH.fullmatch(path)
    assert match is not None
    parent, rest = match["parent"], match["rest"]
    if rest is None:
        if method == "POST":
            return _json(await jobs.create("rest", parent, _read(body, BatchPredictionJob())))
        if method == "GET":
            return _json(jobs.list(_list_request(parent, query)))
    elif job := _JOB.fullmatch(rest):
        name = f"{parent}/batchPredictionJobs/{job['id']}"
        if method == "GET" and job["cancel"] is None:
            return _json(jobs.get(name))
        if method == "POST" and job["cancel"] is not None:
            jobs.cancel(name)
            return b"{}"
    raise RefusalError(grpc.StatusCode.NOT_FOUND, "The requested URL was not found on this server.")


def _read(body: bytes, message: Any) -> Any:
    try:
        return json_format.Parse(body, message)
    except (json_format.ParseError, UnicodeDecodeError):
        raise InvalidArgumentError(f"Invalid JSON payload received: it is no {message.DESCRIPTOR.name}.") from None


def _list_request(parent: str, query: Mapping[str, str]) -> Any:
    if unknown := sorted(query.keys() - _QUERY.keys()):
        raise InvalidArgumentError(f"Invalid query parameter: {unknown[0]}.")
    content = {_QUERY[key]: value for key, value in query.items()}
    try:
        return json_format.ParseDict({**content, "parent": parent}, ListBatchPredictionJobsRequest())
    except json_format.ParseError:
        raise InvalidArgumentError("Invalid value of a query parameter.") from None


def _json(message: Any) -> bytes:
    return json_format.MessageToJson(message, indent=None).encode()
