"""Bearer tokens: what an access boundary covers, and what becomes of requests with tokens that are not good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.tokens import Grant, grant_from
from tests.audio.gcs import storage_server
from tests.emulator.calls import TRANSPORTS, call, http_server, random_clips, wav

BUCKET = "//storage.googleapis.com/projects/_/buckets/clips"
VIEWER = ["inRole:roles/storage.objectViewer"]


def boundary(expression: str | None = None, resource: str = BUCKET, permissions: Any = VIEWER) -> dict[str, Any]:
    rule: dict[str, Any] = {"availableResource": resource, "availablePermissions": permissions}
    if expression is not None:
        rule["availabilityCondition"] = {"expression": expression}
    return {"accessBoundaryRules": [rule]}


IN_FOLDER = "resource.name.startsWith('projects/_/buckets/clips/objects/run/')"
LISTING = "api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('run/')"


@pytest.mark.parametrize(
    ("rules", "covered"),
    [
        (None, True),
        (boundary(), True),
        (boundary(IN_FOLDER), True),
        (boundary(IN_FOLDER.replace("'", '"')), True),
        (boundary(f"{LISTING} || {IN_FOLDER}"), True),
        (boundary(LISTING), False),
        (boundary(f"{IN_FOLDER} && false"), False),
        (boundary(IN_FOLDER.replace("run/", "other/")), False),
        (boundary(IN_FOLDER.replace("clips", "others")), False),
        (boundary(""), False),
        (boundary("true"), False),
        (boundary(resource=BUCKET + "2"), False),
        (boundary(permissions=["inRole:roles/storage.objectCreator"]), False),
        (boundary(permissions=["inRole:roles/storage.objectCreator", *VIEWER]), True),
        (boundary(permissions=VIEWER[0]), False),
        (boundary(permissions=[{}]), False),
        ({"accessBoundaryRules": []}, False),
        ({"accessBoundaryRules": ["x", *boundary()["accessBoundaryRules"]]}, True),
    ],
)
def test_what_an_access_boundary_covers(rules: Any, covered: bool) -> None:
    grant = grant_from(json.dumps({"expires_in": 1.5, "access_boundary": rules}).encode())
    assert isinstance(grant, Grant)
    assert grant.covers("clips", "run/a.wav") is covered


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"expires_in": 10}',
        b'{"expires_in": 0, "access_boundary": null}',
        b'{"expires_in": -1, "access_boundary": null}',
        b'{"expires_in": NaN, "access_boundary": null}',
        b'{"expires_in": null, "access_boundary": null}',
        b'{"expires_in": 10, "access_boundary": []}',
        b'{"expires_in": 10, "access_boundary": {"accessBoundaryRules": null}}',
    ],
)
def test_answers_that_say_of_no_valid_token(body: bytes) -> None:
    assert grant_from(body) is None


class TokenServer:
    """What is known of which token, and how often each was asked about."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.asked: list[str] = []

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        parts = urlsplit(path)
        assert parts.path == "/info"
        (token,) = parse_qs(parts.query)["access_token"]
        self.asked.append(token)
        if token not in self.known:
            return 400, b'{"error": "invalid_token"}'
        return 200, json.dumps(self.known[token]).encode()


@pytest.fixture
def tokens() -> TokenServer:
    return TokenServer()


@pytest.fixture
def local(tokens: TokenServer, tmp_path: Path) -> Iterator[LocalEndpoint]:
    with storage_server(tmp_path / "objects") as storage, http_server(tokens.answer) as token_server:
        storage.make_bucket("clips")
        for name in ("run/a.wav", "b.wav"):
            storage.upload("clips", name, wav(random_clips(1)[0]))
        options = [f"--storage_host={storage.address}", f"--token_info_url={token_server}/info"]
        with start_local_endpoint(options=options) as endpoint:
            yield endpoint


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_token_is_asked_about_and_bad_ones_are_refused(
    local: LocalEndpoint, tokens: TokenServer, transport: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens.known["ya29.TEST-good+/="] = {"expires_in": 100, "access_boundary": None}
    tokens.known["ya29.TEST-narrow"] = {"expires_in": 100, "access_boundary": boundary(IN_FOLDER)}
    tokens.known["ya29.TEST-expired"] = {"expires_in": 0, "access_boundary": None}

    def research(token: str, *names: str) -> Any:
        instances = [{"bucket_name": "clips", "object_uri": name, "bearer_token": token} for name in names]
        return call(local, transport, local.uri_endpoint, instances)

    assert research("ya29.TEST-good+/=", "run/a.wav", "b.wav").status == "OK"
    assert tokens.asked == ["ya29.TEST-good+/="]
    assert research("ya29.TEST-narrow", "run/a.wav").status == "OK"
    for token, name, reason in [
        ("ya29.TEST-narrow", "b.wav", "the token's access boundary leaves the object out"),
        ("ya29.TEST-expired", "b.wav", "the token is unknown, revoked or expired"),
        ("ya29.TEST-unknown", "b.wav", "the token is unknown, revoked or expired"),
    ]:
        reply = research(token, name)
        assert (reply.status, reason in reply.message, token in reply.message) == ("INVALID_ARGUMENT", True, False)

    instances = [
        {"gcs_uri": f"gs://clips/{name}", "bearer_token": f"ya29.TEST-{token}"}
        for token, name in [("good+/=", "b.wav"), ("narrow", "b.wav"), ("expired", "b.wav"), ("narrow", "run/a.wav")]
    ]
    predictions = call(local, transport, local.garden_endpoint, instances).predictions
    assert [list(prediction) for prediction in predictions] == [["embedding"], ["error"], ["error"], ["embedding"]]
    assert predictions[1] == {"error": {"description": "Failed to retrieve data from request instance."}}
    assert predictions[2] == predictions[1]

    del tokens.known["ya29.TEST-good+/="]
    assert research("ya29.TEST-good+/=", "b.wav").status == "INVALID_ARGUMENT"
    assert "ya29.TEST" not in capfd.readouterr().err


def test_a_token_server_that_is_gone_lets_nothing_through(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--storage_host=http://127.0.0.1:9", "--token_info_url=http://127.0.0.1:9/info"]
    with start_local_endpoint(options=options) as local:
        instances = [{"bucket_name": "clips", "object_uri": "b.wav", "bearer_token": "ya29.TEST-any"}]
        reply = call(local, "grpc", local.uri_endpoint, instances)
    assert (reply.status, "revoked" in reply.message) == ("INVALID_ARGUMENT", True)
    log = capfd.readouterr().err
    assert "the token server did not answer: ClientConnectorError" in log
    assert "ya29.TEST" not in log
