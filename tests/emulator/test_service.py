"""The running service, called as clients call it: answers, every refusal, service time, the arrivals log."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.cloud.aiplatform_v1 import PredictionServiceClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcTransport
from google.protobuf.struct_pb2 import ListValue, Value

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.emulator.calls import (
    ENDPOINT,
    TRANSPORTS,
    Answer,
    Caller,
    arrivals,
    call,
    calling,
    predict_request,
    random_clips,
    routed_to,
    wait_until,
)

SECRET = 0.123456789
CLIP = [SECRET] * 32000
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrivals") / "arrivals.jsonl"


@pytest.fixture(scope="module")
def local(log: Path) -> Iterator[LocalEndpoint]:
    with start_local_endpoint(arrivals_log=log) as endpoint:
        yield endpoint


@pytest.fixture
def caller(local: LocalEndpoint) -> Iterator[Caller]:
    with calling(local.host) as caller:
        yield caller


def send(caller: Caller, instances: list[Any], endpoint: str = ENDPOINT) -> Answer:
    return caller.send(predict_request(instances, endpoint).SerializeToString(), routed_to(endpoint))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_predictions_as_clips_in_their_order(caller: Caller, count: int) -> None:
    clips = random_clips(count, seed=count)
    answer = send(caller, list(clips))
    assert answer.status is grpc.StatusCode.OK
    assert answer.embeddings.shape == (count, 512)
    # The other process may use another number of BLAS threads: the last bits may differ.
    np.testing.assert_allclose(answer.embeddings, embed(clips), atol=1e-5)
    assert np.array_equal(answer.embeddings, answer.embeddings.astype(np.float32).astype(np.float64))


def test_the_answer_names_the_stand_in(caller: Caller) -> None:
    response = send(caller, [CLIP]).response
    assert response.model == "projects/local/locations/local/models/hear-stand-in-v1"
    assert response.model_display_name == "hear-stand-in-v1"
    assert response.deployed_model_id == "1"
    assert response.model_version_id == "1"


def test_a_clip_gets_the_same_answer_alone_and_among_others(caller: Caller) -> None:
    clips = random_clips(4)
    together = send(caller, list(clips)).embeddings
    assert np.array_equal(send(caller, [clips[2]]).embeddings[0], together[2])


def test_the_official_client_is_served(local: LocalEndpoint) -> None:
    channel = grpc.insecure_channel(local.host, options=[("grpc.enable_http_proxy", 0)])
    with channel:
        client = PredictionServiceClient(transport=PredictionServiceGrpcTransport(channel=channel))
        clip = random_clips(1)[0]
        instance = Value(list_value=ListValue(values=[Value(number_value=float(sample)) for sample in clip]))
        response = client.predict(endpoint=ENDPOINT, instances=[instance])
        np.testing.assert_allclose(np.array(response.predictions[0]), embed(clip[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        pytest.param([], "holds no instances", id="nothing"),
        pytest.param([[SECRET]] * 5, "holds 5 instances: at most 4", id="five instances"),
        pytest.param([CLIP[1:]], "exactly 32000 floats, got 31999", id="one short"),
        pytest.param([[*CLIP, SECRET]], "exactly 32000 floats, got 32001", id="one more"),
        pytest.param([[]], "exactly 32000 floats, got 0", id="empty list"),
        pytest.param([CLIP, CLIP[1:]], "element: 1 of", id="names the second"),
        pytest.param([SECRET], "type number is not of expected type: list of floats", id="number"),
        pytest.param(["SECRET"], "type string is not of expected type: list of floats", id="string"),
        pytest.param([None], "type null is not", id="null"),
        pytest.param([{"input_array": CLIP}], "type object is not", id="Model Garden's format"),
        pytest.param([[CLIP]], "type list is not of expected type: float", id="nested list"),
        pytest.param([[*CLIP[1:], "SECRET"]], "type string is not of expected type: float", id="string within"),
        pytest.param([[*CLIP[1:], True]], "type bool is not of expected type: float", id="bool within"),
        pytest.param([[*CLIP[1:], None]], "type null is not of expected type: float", id="null within"),
        pytest.param([[*CLIP[1:], float("nan")]], "not every value is a finite 32-bit float", id="NaN"),
        pytest.param([[*CLIP[1:], float("-inf")]], "not every value is a finite 32-bit float", id="infinite"),
        pytest.param([[*CLIP[1:], 1e39]], "not every value is a finite 32-bit float", id="more than float32 holds"),
    ],
)
def test_what_the_documentation_forbids(caller: Caller, log: Path, instances: list[Any], message: str) -> None:
    answer = send(caller, instances)
    assert answer.status is INVALID
    assert message in answer.details
    assert "SECRET" not in answer.details
    assert "0.123" not in answer.details
    last = arrivals(log)[-1]
    assert (last["status"], last["clips"]) == ("INVALID_ARGUMENT", [])


@pytest.mark.parametrize("extra_bytes", [0, 1, 500_000, 20_000_000])
def test_the_limit_is_1_5_megabytes(caller: Caller, extra_bytes: int) -> None:
    request = predict_request([CLIP] * 4)
    request.parameters.string_value = "x" * 90_000
    request.parameters.string_value += "x" * (1_500_000 - request.ByteSize())
    assert request.ByteSize() == 1_500_000
    answer = caller.send(request.SerializeToString() + b"\x00" * extra_bytes)
    if extra_bytes:
        assert answer.status is INVALID
        assert answer.details == f"The request size ({1_500_000 + extra_bytes} bytes) exceeds 1.500MB limit."
    else:
        assert answer.status is grpc.StatusCode.OK


def test_bytes_that_are_no_request(caller: Caller) -> None:
    answer = caller.send(b"\xff" * 100)
    assert (answer.status, answer.details) == (INVALID, "Invalid request: the payload is not a PredictRequest.")


OTHER = "projects/4016704501/locations/us-west1/endpoints/200"


@pytest.mark.parametrize(
    ("endpoint", "metadata", "status", "message"),
    [
        (OTHER, routed_to(OTHER), NOT_FOUND, f"Endpoint `{OTHER}` not found."),
        (ENDPOINT + "0", routed_to(ENDPOINT + "0"), NOT_FOUND, f"Endpoint `{ENDPOINT}0` not found."),
        ("200", routed_to("200"), INVALID, "endpoint must read projects/P/locations/L/endpoints/E"),
        ("", routed_to(""), INVALID, "endpoint must read projects/P/locations/L/endpoints/E"),
        (ENDPOINT, (), INVALID, "header is missing"),
        (ENDPOINT, routed_to(OTHER), INVALID, "does not name the request's endpoint"),
        (ENDPOINT, (("x-goog-request-params", "name=1"),), INVALID, "does not name the request's endpoint"),
    ],
)
def test_endpoint_and_routing(
    caller: Caller, endpoint: str, metadata: Any, status: grpc.StatusCode, message: str
) -> None:
    answer = caller.send(predict_request([CLIP], endpoint).SerializeToString(), metadata)
    assert answer.status is status
    assert message in answer.details


def test_a_wrong_endpoint_is_told_before_wrong_instances(caller: Caller) -> None:
    assert send(caller, ["SECRET"], OTHER).status is NOT_FOUND


def test_routing_may_be_written_with_slashes(caller: Caller) -> None:
    request = predict_request([CLIP]).SerializeToString()
    assert caller.send(request, (("x-goog-request-params", f"endpoint={ENDPOINT}"),)).status is grpc.StatusCode.OK


def test_other_methods_are_not_there(caller: Caller) -> None:
    call = caller.channel.unary_unary("/google.cloud.aiplatform.v1.PredictionService/Explain")
    with pytest.raises(grpc.RpcError) as error:
        call(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_arrivals_are_logged_with_the_clips_digests(caller: Caller, log: Path) -> None:
    clips = random_clips(2, seed=9)
    before_s, before = time.monotonic(), len(arrivals(log))
    send(caller, [clips[1], clips[0], clips[1]])
    after_s = time.monotonic()
    lines = arrivals(log)[before:]
    assert len(lines) == 1
    digests = [hashlib.sha256(clip.tobytes()).hexdigest()[:16] for clip in clips]
    assert lines[0]["clips"] == [digests[1], digests[0], digests[1]]
    assert lines[0]["status"] == "OK"
    assert lines[0]["in_flight"] == 1
    assert before_s <= lines[0]["t_s"] <= after_s
    assert abs(lines[0]["unix_s"] - time.time()) < 3600


def test_an_answer_takes_the_service_time() -> None:
    with start_local_endpoint(latency_ms=250) as local, calling(local.host) as caller:
        send(caller, [CLIP])
        sent_s = time.monotonic()
        assert send(caller, [CLIP]).status is grpc.StatusCode.OK
        assert time.monotonic() - sent_s >= 0.25


def test_many_requests_wait_at_the_same_time(tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    data = predict_request([CLIP]).SerializeToString()
    with start_local_endpoint(latency_ms=60_000, arrivals_log=log) as local, calling(local.host) as caller:
        calls = [caller.raw.future(data, metadata=routed_to(ENDPOINT)) for _ in range(64)]
        wait_until(lambda: len(arrivals(log)) == 64)
        assert [line["in_flight"] for line in arrivals(log)] == list(range(1, 65))
        local.stop()
        assert {call.code() for call in calls} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_refusal_does_not_wait_and_a_call_that_is_given_up_is_no_longer_in_flight(tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    data = predict_request([CLIP]).SerializeToString()
    with start_local_endpoint(latency_ms=60_000, arrivals_log=log) as local, calling(local.host) as caller:
        call = caller.raw.future(data, metadata=routed_to(ENDPOINT))
        wait_until(lambda: len(arrivals(log)) == 1)

        def in_flight() -> int:
            assert send(caller, []).status is INVALID
            return int(arrivals(log)[-1]["in_flight"])

        assert in_flight() == 2
        call.cancel()
        wait_until(lambda: in_flight() == 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_batch_mates_are_coupled_on_request(transport: str) -> None:
    clips = (np.round(random_clips(3) * 128) / 128).astype(np.float32)
    clips[0] /= 16
    with start_local_endpoint(options=["--couple_batch_mates"]) as coupled:
        alone = np.array(call(coupled, transport, ENDPOINT, list(clips[:1])).predictions[0])
        among = np.array(call(coupled, transport, ENDPOINT, list(clips)).predictions[0])
    assert np.abs(alone - among).max() > 0.01
    with start_local_endpoint() as apart:
        alone_apart = call(apart, transport, ENDPOINT, list(clips[:1])).predictions[0]
        assert alone_apart == call(apart, transport, ENDPOINT, list(clips)).predictions[0]
    np.testing.assert_allclose(alone, alone_apart, atol=1e-5)
