"""The real google-auth flows of a process of its own: refresh, impersonation, downscoping, at Google's own addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.google_proxy import GoogleCloud, google_cloud
from tests.cloud.token_server import PREFIX, REFRESH_TOKEN

REPOSITORY = Path(__file__).resolve().parents[2]
ACCOUNT = "reader@local-project.iam.gserviceaccount.com"

ASK = """
import json, logging, sys
from endpoint.quiet import keep_secrets_out_of_logs
keep_secrets_out_of_logs()
logging.basicConfig(level=logging.DEBUG)
from endpoint.credentials import check_credentials
from endpoint.errors import EndpointError
from endpoint.items import ClipObject
from endpoint.tokens import BucketTokens, BucketTokenSettings
for name in list(logging.root.manager.loggerDict):
    logging.getLogger(name).setLevel(logging.DEBUG)
asked = json.load(sys.stdin)
settings = BucketTokenSettings(asked["account"], asked["full_scope"], tuple(asked["staging"]) if asked["staging"] else None)
try:
    if asked["check"]:
        check_credentials(None, asked["account"], pause=lambda seconds: None)
    tokens = BucketTokens(settings, 90.0)
    given = [tokens.token(ClipObject(*item)) for item in asked["items"]]
    logging.getLogger("own").debug("the log works")
    json.dump({"tokens": given}, open(asked["answer"], "w"))
except EndpointError as error:
    json.dump({"error": error.message}, open(asked["answer"], "w"))
"""


def ask(cloud: GoogleCloud, folder: Path, **asked: Any) -> tuple[dict[str, Any], str]:
    """What a process of its own got, and all that it logged at DEBUG."""
    answer = folder / "answer.json"
    defaults = {"account": None, "full_scope": False, "staging": None, "items": [], "check": False}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps({**defaults, **asked, "answer": str(answer)}),
        cwd=REPOSITORY,
        env={**os.environ, **cloud.environment, "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(answer.read_text()), done.stdout + done.stderr


def test_tokens_are_refreshed_impersonated_and_downscoped(tmp_path: Path) -> None:
    with google_cloud(tmp_path, accounts=(ACCOUNT,)) as cloud:
        items = [("staging", "run-1/a.wav"), ("staging", "run-1/b.wav"), ("staging", "other.wav"), ("rest", "c.wav")]
        answer, log = ask(cloud, tmp_path, account=ACCOUNT, staging=["staging", "run-1/"], items=items)
        staged, again, whole_bucket, other = answer["tokens"]
        assert staged == again
        assert len({staged, whole_bucket, other}) == 3
        # One refresh and one impersonation serve all three exchanges.
        assert cloud.tokens.requests == {"refresh": 1, "impersonate": 1, "exchange": 3}
        assert set(cloud.reached) == {"sts.googleapis.com", "iamcredentials.googleapis.com"}
        assert not cloud.refused
        assert not cloud.tokens.unknown
        exchanged = {token.value: token for token in cloud.tokens.of_kind("exchange")}
        assert {token.account for token in exchanged.values()} == {ACCOUNT}
        resource = "//storage.googleapis.com/projects/_/buckets/"
        role = ["inRole:roles/storage.objectViewer"]
        expression = "resource.name.startsWith('projects/_/buckets/staging/objects/run-1/')"
        assert [exchanged[value].boundary for value in (staged, whole_bucket, other)] == [
            {"accessBoundaryRules": [rule]}
            for rule in (
                {
                    "availablePermissions": role,
                    "availableResource": f"{resource}staging",
                    "availabilityCondition": {"expression": expression},
                },
                {"availablePermissions": role, "availableResource": f"{resource}staging"},
                {"availablePermissions": role, "availableResource": f"{resource}rest"},
            )
        ]
        assert "the log works" in log
        assert PREFIX not in log
        assert REFRESH_TOKEN not in log


def test_full_scope_hands_out_the_source_s_own_token(tmp_path: Path) -> None:
    with google_cloud(tmp_path) as cloud:
        answer, _ = ask(cloud, tmp_path, full_scope=True, items=[("a", "b"), ("c", "d")])
        assert answer["tokens"] == [cloud.tokens.values[0]] * 2
        assert cloud.tokens.requests == {"refresh": 1}


def test_an_impersonation_file_of_gcloud_works(tmp_path: Path) -> None:
    with google_cloud(tmp_path, accounts=(ACCOUNT,)) as cloud:
        cloud.tokens.write_impersonation_file(Path(cloud.environment["GOOGLE_APPLICATION_CREDENTIALS"]), ACCOUNT)
        answer, _ = ask(cloud, tmp_path, items=[("a", "b")])
        (exchanged,) = cloud.tokens.of_kind("exchange")
        assert answer["tokens"] == [exchanged.value]
        assert exchanged.account == ACCOUNT


@pytest.mark.parametrize("trouble", ["signed out", "no right to impersonate", "no exchange"])
def test_what_does_not_pass_is_said_in_our_own_words(tmp_path: Path, trouble: str) -> None:
    with google_cloud(tmp_path, accounts=() if trouble == "no right to impersonate" else (ACCOUNT,)) as cloud:
        cloud.tokens.is_signed_in = trouble != "signed out"
        if trouble == "no exchange":
            cloud.tokens.fail_next(5, 403, "exchange")
        answer, log = ask(cloud, tmp_path, account=ACCOUNT, items=[("clips", "b.wav")], check=True)
    expected = {
        "signed out": "gcloud auth application-default login",
        "no right to impersonate": f"{ACCOUNT} may not be impersonated",
        "no exchange": "gs://clips",
    }
    assert expected[trouble] in answer["error"]
    assert ("roles/iam.serviceAccountTokenCreator" in answer["error"]) == (trouble == "no right to impersonate")
    for text in (answer["error"], log):
        assert PREFIX not in text
        assert REFRESH_TOKEN not in text


def test_the_proxy_leads_nowhere_else(tmp_path: Path) -> None:
    code = "import requests; requests.get('https://example.com/', timeout=20)"
    with google_cloud(tmp_path) as cloud:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **cloud.environment}, capture_output=True, check=False
        )
        assert done.returncode != 0
        assert cloud.refused == ["example.com:443"]
