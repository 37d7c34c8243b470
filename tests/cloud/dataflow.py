"""A stand-in for Dataflow's REST service: it keeps jobs as the client libraries create them, and lets a test play their course.

What it answers is what the service documents (v1b3: projects.locations.jobs): a second request with the same
`clientRequestId` is the same job, another active job of the same name is refused. It runs nothing: what was staged can be run
by `tests/cloud/staged_pipeline.py`.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cloud.token_server import serving

_ENDED = {f"JOB_STATE_{state}" for state in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")}

Answer = tuple[int, dict[str, Any]]


class Dataflow:
    """The service; `address` goes to the command as --dataflow_endpoint."""

    def __init__(self) -> None:
        self.address = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        """As they were created, by id, with the states that they went through."""
        self.requests: list[str] = []
        """Method and path of all that have arrived."""
        self.authorizations: set[str] = set()
        self.counters: dict[str, int] = {}
        """Of the stage that embeds."""
        self.errors: list[str] = []
        """Texts of error messages of all jobs."""
        self.refuse_with: int | None = None
        """A status with which everything is refused, in a text that echoes the token."""
        self.on_created: Callable[[dict[str, Any]], None] = lambda _: None
        """Called before a job's creation is answered."""
        self.course: list[str] = ["JOB_STATE_RUNNING"]
        """States that a job has, one for each time that it is looked at; the last one stays."""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def job(self) -> dict[str, Any]:
        """The only job."""
        (job,) = self.jobs.values()
        return job

    def add_job(self, name: str, state: str, *, age_s: float = 0.0) -> str:
        """A job that somebody else has created; its id."""
        created = datetime.now(timezone.utc) - timedelta(seconds=age_s)
        job = {"name": name, "id": f"job-{next(self._numbers)}", "currentState": state, "createTime": _text(created)}
        self.jobs[str(job["id"])] = job
        return str(job["id"])

    def answer(self, method: str, path: str, body: bytes, authorization: str) -> Answer:
        """Status and JSON for a request."""
        url = urlsplit(path)
        with self._lock:
            self.requests.append(f"{method} {url.path}")
            self.authorizations.add(authorization)
            if self.refuse_with is not None:
                return self.refuse_with, {"error": {"code": self.refuse_with, "message": f"refused {authorization}"}}
            match url.path.strip("/").split("/"):
                case ["v1b3", "projects", project, "locations", location, "jobs", *rest]:
                    query = {name: values[0] for name, values in parse_qs(url.query).items()}
                    return self._route(method, rest, query, body, {"projectId": project, "location": location})
            return 404, {"error": {"code": 404, "message": "no such method"}}

    def _route(self, method: str, rest: list[str], query: dict[str, str], body: bytes, where: dict[str, str]) -> Answer:
        match method, rest:
            case "POST", []:
                return self._create({**json.loads(body), **where})
            case "GET", []:
                name = query.get("name")
                return 200, {"jobs": [job for job in self.jobs.values() if name in (None, job["name"])]}
        job = self.jobs.get(rest[0])
        if job is None:
            return 404, {"error": {"code": 404, "message": "no such job"}}
        match method, rest[1:]:
            case "GET", []:
                states = job.get("states", [])
                job["currentState"] = states.pop(0) if states else job["currentState"]
                return 200, {key: value for key, value in job.items() if key != "states"}
            case "PUT", []:
                job["requestedState"] = json.loads(body)["requestedState"]
                return 200, job
            case "GET", ["messages"]:
                messages = [
                    {
                        "id": str(number),
                        "messageText": text,
                        "messageImportance": "JOB_MESSAGE_ERROR",
                        "time": job["createTime"],
                    }
                    for number, text in enumerate(self.errors)
                ]
                return 200, {"jobMessages": messages}
            case "GET", ["metrics"]:
                return 200, {
                    "metrics": [metric for name, value in self.counters.items() for metric in _metrics(name, value)]
                }
        return 404, {"error": {"code": 404, "message": "no such method"}}

    def _create(self, job: dict[str, Any]) -> Answer:
        for other in self.jobs.values():
            if other.get("clientRequestId") == job["clientRequestId"]:
                return 200, other
            if other["name"] == job["name"] and other["currentState"] not in _ENDED:
                return 409, {"error": {"code": 409, "message": "there is an active job of that name"}}
        identity = self.add_job(job["name"], "JOB_STATE_PENDING")
        self.jobs[identity] = job = {**job, **self.jobs[identity], "states": list(self.course)}
        self.on_created(job)
        return 200, {key: value for key, value in job.items() if key != "states"}


def _metrics(name: str, value: int) -> Iterator[dict[str, Any]]:
    context = {"namespace": "embed", "step": "s7"}
    for more in ({}, {"tentative": "true"}):
        yield {"name": {"origin": "user", "name": name, "context": {**context, **more}}, "scalar": value}
    yield {"name": {"origin": "dataflow/v1b3", "name": name, "context": {}}, "scalar": 7 * value}


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextmanager
def dataflow() -> Iterator[Dataflow]:
    """Runs the service on loopback, for the time of the context."""
    service = Dataflow()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, message = service.answer(self.command, self.path, body, self.headers.get("authorization", ""))
            data = json.dumps(message).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._respond()

        do_POST = do_PUT = do_GET  # noqa: N815 - as http.server has them

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with serving(Handler) as port:
        # By this name Beam knows that it is to speak HTTP.
        service.address = f"http://localhost:{port}"
        yield service
