"""The official client logs requests and answers at DEBUG; here they stay out of logs. In a process of its own, as loggers are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.endpoint.job_fakes import FakeJobs, serve_jobs

REPOSITORY = Path(__file__).resolve().parents[2]

CALLS = """
import logging, sys

class Everything(logging.Handler):
    def emit(self, record):
        print(record.name, record.levelname, record.getMessage(), record.__dict__, flush=True)

def shout():
    logging.root.setLevel(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).propagate = True

logging.root.addHandler(Everything())
if sys.argv[1] == "kept":
    from endpoint.quiet import keep_secrets_out_of_logs
    keep_secrets_out_of_logs()
from endpoint.job_service import JobService
from endpoint.job_settings import JobSettings
for transport, host in (("grpc", sys.argv[2]), ("rest", sys.argv[3])):
    settings = JobSettings("projects/p/locations/us-west1/models/1", host, "my-project", transport=transport)
    with JobService(settings) as service:
        shout()
        print("created", service.create("hear", {"planted": "a"}, ["gs://b/c/*.jsonl"], "gs://b/r/").name)
logging.getLogger("own").debug("own words")
"""


@pytest.mark.parametrize("is_kept", [True, False])
def test_requests_to_the_service_of_jobs_are_not_logged(is_kept: bool) -> None:
    fake = FakeJobs()
    with serve_jobs(fake, "grpc") as grpc_port, serve_jobs(fake, "rest") as rest_port:
        hosts = [f"127.0.0.1:{port}" for port in (grpc_port, rest_port)]
        done = subprocess.run(
            [sys.executable, "-c", CALLS, "kept" if is_kept else "told", *hosts],
            cwd=REPOSITORY,
            env={**os.environ, "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    log = done.stdout + done.stderr
    assert log.count("created projects/") == 2
    assert "own words" in log
    assert ("planted" in log) != is_kept
    assert ("x-goog-request-params" in log) != is_kept
