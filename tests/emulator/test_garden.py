"""The Model Garden endpoint over both transports: one object per instance, errors of an instance its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.audio.gcs import StorageServer, storage_server
from tests.emulator.calls import TRANSPORTS, arrivals, base64_text, call, in_16_bits, random_clips, wav

CLIPS = random_clips(3, seed=2)
TOKEN = "ya29.TEST-any"
ARRAY = {"input_array": CLIPS[0].tolist()}
BYTES = {"input_bytes": base64_text(wav(CLIPS[1]))}
OBJECT = {"gcs_uri": "gs://clips/in/a.wav", "bearer_token": TOKEN}
NOT_RETRIEVED = "Failed to retrieve data from request instance."


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("objects")) as server:
        server.make_bucket("clips")
        server.upload("clips", "in/a.wav", wav(CLIPS[2]))
        server.upload("clips", "short.wav", wav(CLIPS[2][:-1]))
        yield server


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrivals") / "arrivals.jsonl"


@pytest.fixture(scope="module")
def local(storage: StorageServer, log: Path) -> Iterator[LocalEndpoint]:
    with start_local_endpoint(arrivals_log=log, options=[f"--storage_host={storage.address}"]) as endpoint:
        yield endpoint


def send(local: LocalEndpoint, transport: str, instances: list[Any]) -> list[Any]:
    reply = call(local, transport, local.garden_endpoint, instances)
    assert reply.status == "OK", reply.message
    return reply.predictions


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_all_three_ways_in_one_request(local: LocalEndpoint, log: Path, transport: str) -> None:
    predictions = send(local, transport, [ARRAY, BYTES, OBJECT])
    heard = np.concatenate([CLIPS[:1], in_16_bits(CLIPS[1:])])
    assert [list(prediction) for prediction in predictions] == [["embedding"]] * 3
    np.testing.assert_allclose([p["embedding"] for p in predictions], embed(heard), atol=1e-5)
    line = arrivals(log)[-1]
    assert line["clips"] == [hashlib.sha256(clip.tobytes()).hexdigest()[:16] for clip in heard]
    assert (line["endpoint"], line["transport"], line["instances"]) == (local.garden_endpoint, transport, 3)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("instance", "description"),
    [
        ({}, "Exactly one of"),
        ({"input_array": [0.0], "input_bytes": "AAAA"}, "Exactly one of"),
        ({**OBJECT, "input_bytes": "AAAA"}, "Exactly one of"),
        ({**ARRAY, "sampling_rate": 16000}, "Exactly one of"),
        ({"bucket_name": "clips", "object_uri": "in/a.wav", "bearer_token": TOKEN}, "Exactly one of"),
        ({"gcs_uri": "gs://clips/in/a.wav"}, "Exactly one of"),
        ({"bearer_token": TOKEN}, "Exactly one of"),
        ({"input_array": [0.5] * 31999}, "input_array: expected exactly 32000 floats, got 31999"),
        ({"input_array": "SECRET"}, "input_array: JSON Value of type string is not of expected type: list of floats"),
        ({"input_array": [True] * 32000}, "JSON Value of type bool is not of expected type: float"),
        ({"input_array": [*[0.5] * 31999, None]}, "JSON Value of type null is not of expected type: float"),
        ({"input_array": [1e39] * 32000}, "not every value is a finite 32-bit float"),
        ({"input_bytes": "SECRET!"}, "expected an audio file in Base64"),
        ({"input_bytes": "ä"}, "expected an audio file in Base64"),
        ({"input_bytes": 5.0}, "input_bytes: JSON Value of type number"),
        ({"input_bytes": base64_text(b"SECRET")}, "an audio file that libsndfile reads"),
        ({"input_bytes": base64_text(wav(CLIPS[0][:-1]))}, "exactly 32000 samples at 16000 Hz, got 31999"),
        ({"input_bytes": base64_text(wav(CLIPS[0], 48000))}, "exactly 32000 samples at 16000 Hz, got 10667"),
        ({"input_bytes": base64_text(wav(np.tile(CLIPS[0], 3)))}, "exactly 32000 samples at 16000 Hz, got more"),
        ({"gcs_uri": "clips/in/a.wav", "bearer_token": TOKEN}, "gcs_uri: expected gs://BUCKET/OBJECT"),
        ({"gcs_uri": "http://127.0.0.1:1/a", "bearer_token": TOKEN}, "gcs_uri: expected gs://BUCKET/OBJECT"),
        ({"gcs_uri": "gs://clips", "bearer_token": TOKEN}, "gcs_uri: the object's name is none"),
        ({"gcs_uri": 1.0, "bearer_token": TOKEN}, "gcs_uri: JSON Value of type number"),
        ({"gcs_uri": "gs://clips/in/a.wav", "bearer_token": ""}, "gcs_uri: bearer_token is no token"),
        ({"gcs_uri": "gs://clips/none.wav", "bearer_token": TOKEN}, NOT_RETRIEVED),
        ({"gcs_uri": "gs://nowhere/a.wav", "bearer_token": TOKEN}, NOT_RETRIEVED),
        ({"gcs_uri": "gs://clips/short.wav", "bearer_token": TOKEN}, "got 31999"),
    ],
)
def test_what_is_wrong_with_an_instance_is_its_own_error(
    local: LocalEndpoint, log: Path, transport: str, instance: Any, description: str
) -> None:
    before, wrong, after = send(local, transport, [BYTES, instance, OBJECT])
    assert list(wrong) == ["error"]
    assert list(wrong["error"]) == ["description"]
    assert description in wrong["error"]["description"]
    assert "SECRET" not in wrong["error"]["description"]
    assert TOKEN not in wrong["error"]["description"]
    expected = embed(in_16_bits(CLIPS[1:]))
    np.testing.assert_allclose([before["embedding"], after["embedding"]], expected, atol=1e-5)
    line = arrivals(log)[-1]
    assert (line["status"], line["instances"], len(line["clips"])) == ("OK", 3, 2)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("instances", [[], [[0.0] * 32000], [ARRAY, "x"], [None]])
def test_instances_that_are_no_objects_refuse_the_request(
    local: LocalEndpoint, transport: str, instances: list[Any]
) -> None:
    assert call(local, transport, local.garden_endpoint, instances).status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(("rate_hz", "channels"), [(48000, 1), (44100, 2), (8000, 2), (16000, 3)])
def test_channels_are_averaged_and_rates_converted(local: LocalEndpoint, rate_hz: int, channels: int) -> None:
    sound = (0.1 * np.random.default_rng(rate_hz).standard_normal((2 * rate_hz, channels))).astype(np.float32)
    mono = sound.astype(np.float64).mean(axis=1).astype(np.float32)
    expected = mono if rate_hz == 16000 else soxr.resample(mono, rate_hz, 16000)
    (prediction,) = send(local, "grpc", [{"input_bytes": base64_text(wav(sound, rate_hz, "FLOAT"))}])
    np.testing.assert_allclose(prediction["embedding"], embed(expected[None])[0], atol=1e-4)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_17_clips_of_16_bits_fit_and_18_do_not(local: LocalEndpoint, transport: str) -> None:
    assert len(send(local, transport, [BYTES] * 17)) == 17
    reply = call(local, transport, local.garden_endpoint, [BYTES] * 18)
    assert reply.status == "INVALID_ARGUMENT"
    assert "exceeds 1.500MB limit" in reply.message


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_dedicated_endpoint_takes_more_and_the_others_do_not(transport: str, storage: StorageServer) -> None:
    options = ["--max_request_bytes=10000000", f"--storage_host={storage.address}"]
    with start_local_endpoint(options=options) as local:
        predictions = send(local, transport, [BYTES] * 116)
        np.testing.assert_allclose(
            [p["embedding"] for p in predictions], np.repeat(embed(in_16_bits(CLIPS[1:2])), 116, axis=0), atol=1e-5
        )
        reply = call(local, transport, local.garden_endpoint, [BYTES] * 118)
        assert "exceeds 10.000MB limit" in reply.message
        for endpoint in (local.endpoint_name, local.uri_endpoint):
            reply = call(local, transport, endpoint, [BYTES] * 18)
            assert (reply.status, "exceeds 1.500MB limit" in reply.message) == ("INVALID_ARGUMENT", True)
