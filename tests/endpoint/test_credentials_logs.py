"""No token, body or header in logs, with every logger at DEBUG; in processes of their own, as loggers are a process's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud.google_proxy import google_cloud
from tests.cloud.token_server import CLIENT_SECRET, PREFIX, REFRESH_TOKEN

REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNT = "reader@local-project.iam.gserviceaccount.com"

CALLS = """
import logging, sys

class Everything(logging.Handler):
    def emit(self, record):
        print(record.name, record.levelname, record.getMessage(), record.__dict__, flush=True)

def shout():
    logging.root.setLevel(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = True

logging.root.addHandler(Everything())
order = sys.argv[1]
if order == "keep first":
    from endpoint.quiet import keep_secrets_out_of_logs
    keep_secrets_out_of_logs()
    keep_secrets_out_of_logs()
import grpc
import google.auth.transport.requests
from google.api_core import client_logging
client_logging.initialize_logging()
shout()
if order == "keep last":
    from endpoint.quiet import keep_secrets_out_of_logs
    keep_secrets_out_of_logs()
    shout()
from endpoint.credentials import CallCredentials, check_credentials, default_credentials
from endpoint.items import ClipObject
from endpoint.tokens import BucketTokens, BucketTokenSettings
shout()
account = "reader@local-project.iam.gserviceaccount.com"
check_credentials(None, account, pause=lambda seconds: None)
tokens = BucketTokens(BucketTokenSettings(account, staging=("clips", "run/")), 90.0)
print(len(tokens.token(ClipObject("clips", "run/a.wav"))))
plugin = grpc.metadata_call_credentials(CallCredentials(default_credentials(account)))
channel = grpc.secure_channel("127.0.0.1:9", grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), plugin))
try:
    channel.unary_unary("/a/b")(b"", timeout=5)
except grpc.RpcError as error:
    print(error.code())
logging.getLogger("own").debug("own words")
"""


def log_of(folder: Path, order: str, **environment: str) -> str:
    with google_cloud(folder, accounts=(ACCOUNT,)) as cloud:
        done = subprocess.run(
            [sys.executable, "-c", CALLS, order],
            cwd=REPOSITORY,
            env={**os.environ, **cloud.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # Google's services were asked, and so there was something to be silent about.
        assert cloud.tokens.requests["exchange"] == 1
        assert cloud.tokens.requests["impersonate"] >= 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("scope", ["", "google", "google.auth", "google.auth.transport.requests"])
@pytest.mark.parametrize("order", ["keep first", "keep last"])
def test_nothing_secret_is_logged_at_debug(tmp_path: Path, order: str, scope: str) -> None:
    log = log_of(tmp_path, order, GOOGLE_SDK_PYTHON_LOGGING_SCOPE=scope, GRPC_VERBOSITY="DEBUG")
    assert "own words" in log
    for secret in (PREFIX, REFRESH_TOKEN, CLIENT_SECRET, "httpRequest", "httpResponse", "Making request"):
        assert secret not in log


def test_without_that_it_would_be(tmp_path: Path) -> None:
    log = log_of(tmp_path, "never", GOOGLE_SDK_PYTHON_LOGGING_SCOPE="google")
    assert PREFIX in log


@pytest.mark.parametrize("is_kept", [True, False])
def test_grpc_s_own_trace_is_switched_off_before_grpc_is_there(is_kept: bool) -> None:
    code = f"""
if {is_kept}:
    from endpoint.quiet import keep_secrets_out_of_logs
    keep_secrets_out_of_logs()
import grpc
with grpc.insecure_channel("127.0.0.1:9") as channel:
    try:
        channel.unary_unary("/a/b")(b"", metadata=(("authorization", "Bearer {PREFIX}x"),), timeout=5)
    except grpc.RpcError as error:
        print(error.code())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "GRPC_TRACE": "api"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "StatusCode.UNAVAILABLE" in done.stdout
    assert (PREFIX in done.stderr) != is_kept


def test_grpc_s_own_trace_ends_the_run_where_it_is_too_late() -> None:
    code = "import grpc; from endpoint.quiet import keep_secrets_out_of_logs; keep_secrets_out_of_logs()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "GRPC_TRACE": "api"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "RunEnded: GRPC_TRACE is set" in done.stderr
