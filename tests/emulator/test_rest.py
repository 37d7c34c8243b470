"""REST beside gRPC: the same answers and the same refusals, in Google's JSON."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.emulator.calls import arrivals, call, post, random_clips, rest_reply

CLIPS = random_clips(4, seed=3)
CLIP = [0.25] * 32000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrivals") / "arrivals.jsonl"


@pytest.fixture(scope="module")
def local(log: Path) -> Iterator[LocalEndpoint]:
    with start_local_endpoint(arrivals_log=log) as endpoint:
        yield endpoint


def test_the_same_predictions_as_over_grpc(local: LocalEndpoint, log: Path) -> None:
    over_grpc = call(local, "grpc", local.endpoint_name, list(CLIPS[:2]))
    over_rest = call(local, "rest", local.endpoint_name, list(CLIPS[:2]))
    assert over_rest == over_grpc
    np.testing.assert_allclose(over_rest.predictions, embed(CLIPS[:2]), atol=1e-5)
    one, other = arrivals(log)[-2:]
    assert (one["transport"], other["transport"]) == ("grpc", "rest")
    assert one["clips"] == other["clips"]
    assert other["number"] == one["number"] + 1


@pytest.mark.parametrize(
    "instances",
    [
        pytest.param([], id="nothing"),
        pytest.param([[0.5]] * 5, id="five instances"),
        pytest.param([CLIP[1:]], id="one short"),
        pytest.param([CLIP, []], id="empty list"),
        pytest.param([0.5], id="number"),
        pytest.param(["text"], id="string"),
        pytest.param([None], id="null"),
        pytest.param([{"input_array": [0.5]}], id="Model Garden's format"),
        pytest.param([[CLIP]], id="nested list"),
        pytest.param([[*CLIP[1:], "text"]], id="string within"),
        pytest.param([[*CLIP[1:], True]], id="bool within"),
        pytest.param([[*CLIP[1:], 1e39]], id="more than float32 holds"),
        pytest.param([[1] * 31999], id="whole numbers"),
    ],
)
def test_the_same_refusals_as_over_grpc(local: LocalEndpoint, instances: list[Any]) -> None:
    over_rest = call(local, "rest", local.endpoint_name, instances)
    assert over_rest == call(local, "grpc", local.endpoint_name, instances)
    assert over_rest.status == "INVALID_ARGUMENT"


def test_another_endpoint_is_not_found(local: LocalEndpoint) -> None:
    other = "projects/4016704501/locations/us-west1/endpoints/200"
    over_rest = call(local, "rest", other, [CLIP])
    assert over_rest == call(local, "grpc", other, [CLIP])
    assert over_rest.status == "NOT_FOUND"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/{name}",
        "/v1/{name}:explain",
        "/v1beta1/{name}:predict",
        "/v1/{name}:predict/",
        "/v1/200:predict",
    ],
)
def test_other_paths_are_not_found(local: LocalEndpoint, log: Path, path: str) -> None:
    before = len(arrivals(log))
    answer = post(local, path.format(name=local.endpoint_name), b'{"instances": []}')
    assert rest_reply(answer).status == "NOT_FOUND"
    assert len(arrivals(log)) == before


def test_other_methods_are_not_found(local: LocalEndpoint) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://{local.rest_host}/v1/{local.endpoint_name}:predict", timeout=30)
    assert rest_reply(answer).status == "NOT_FOUND"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SECRET",
        b"[]",
        b"null",
        b'{"instances": {}}',
        b'{"instances": null}',
        b'{"instances": [], "SECRET": 1}',
        b'{"instances": [[NaN]]}',
        b'{"instances": [[0.5]',
        b'{"instances": ["\xff"]}',
    ],
)
def test_bodies_that_are_no_requests(local: LocalEndpoint, log: Path, body: bytes) -> None:
    reply = rest_reply(post(local, f"/v1/{local.endpoint_name}:predict", body))
    assert reply.status == "INVALID_ARGUMENT"
    assert "SECRET" not in reply.message
    line = arrivals(log)[-1]
    assert (line["transport"], line["status"], line["instances"]) == ("rest", "INVALID_ARGUMENT", 0)


@pytest.mark.parametrize(("size_bytes", "status"), [(1_500_000, "OK"), (1_500_001, "INVALID_ARGUMENT")])
def test_the_limit_is_of_the_body(local: LocalEndpoint, size_bytes: int, status: str) -> None:
    body = json.dumps({"instances": [np.round(clip, 6).tolist() for clip in CLIPS.astype(float)]}).encode()
    assert len(body) < size_bytes
    reply = rest_reply(post(local, f"/v1/{local.endpoint_name}:predict", body.ljust(size_bytes)))
    assert reply.status == status
    assert status == "OK" or reply.message == f"The request size ({size_bytes} bytes) exceeds 1.500MB limit."


def test_the_service_time_and_stopping(tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    with start_local_endpoint(latency_ms=60_000, arrivals_log=log) as local:
        reply = call(local, "rest", local.endpoint_name, [CLIP], timeout_s=1)
        assert reply.status == "DEADLINE_EXCEEDED"
        assert call(local, "rest", local.endpoint_name, []).status == "INVALID_ARGUMENT"
    assert [(line["status"], line["in_flight"]) for line in arrivals(log)] == [("OK", 1), ("INVALID_ARGUMENT", 1)]


def test_it_listens_on_127_0_0_1_only(local: LocalEndpoint) -> None:
    port = int(local.rest_host.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)
