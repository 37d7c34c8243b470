"""The research URI endpoint over both transports, its objects in a real storage server."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.audio.gcs import StorageServer, storage_server
from tests.emulator.calls import TRANSPORTS, arrivals, call, http_server, in_16_bits, random_clips, wav

CLIPS = random_clips(5, seed=1)
TOKEN = "ya29.TEST-any"
NAMES = ["plain.wav", "folder/with blank, ü & #?%2F.wav", "..wav", "flac.flac", "float.wav"]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("objects")) as server:
        server.make_bucket("clips")
        for name, clip in zip(NAMES[:3], CLIPS, strict=False):
            server.upload("clips", name, wav(clip))
        server.upload("clips", "flac.flac", wav(CLIPS[3], container="FLAC"))
        server.upload("clips", "float.wav", wav(CLIPS[4], subtype="FLOAT"))
        server.upload("clips", "stereo.wav", wav(np.stack([CLIPS[0], CLIPS[1]], axis=1)))
        server.upload("clips", "8k.wav", wav(CLIPS[0], rate_hz=8000))
        server.upload("clips", "short.wav", wav(CLIPS[0][:-1]))
        server.upload("clips", "nan.wav", wav(np.full(32000, np.nan, np.float32), subtype="FLOAT"))
        server.upload("clips", "text.wav", b"no audio at all")
        server.upload("clips", "cut.wav", wav(CLIPS[0])[:20])
        server.upload("clips", "empty.wav", b"")
        server.upload("clips", "long.wav", wav(CLIPS[0]) + b"\0" * (4 * 2**20))
        yield server


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrivals") / "arrivals.jsonl"


@pytest.fixture(scope="module")
def local(storage: StorageServer, log: Path) -> Iterator[LocalEndpoint]:
    with start_local_endpoint(arrivals_log=log, options=[f"--storage_host={storage.address}"]) as endpoint:
        yield endpoint


def instance(name: Any, bucket: Any = "clips", token: Any = TOKEN) -> dict[str, Any]:
    return {"bucket_name": bucket, "object_uri": name, "bearer_token": token}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_prediction_per_uri_in_order(local: LocalEndpoint, log: Path, transport: str) -> None:
    expected_clips = np.concatenate([in_16_bits(CLIPS[:4]), CLIPS[4:]])
    order = [3, 0, 4, 2, 1, 0]
    reply = call(local, transport, local.uri_endpoint, [instance(NAMES[k]) for k in order])
    assert reply.status == "OK", reply.message
    np.testing.assert_allclose(reply.predictions, embed(expected_clips[order]), atol=1e-5)
    line = arrivals(log)[-1]
    assert line["clips"] == [hashlib.sha256(expected_clips[k].tobytes()).hexdigest()[:16] for k in order]
    assert (line["endpoint"], line["transport"]) == (local.uri_endpoint, transport)
    assert (line["status"], line["instances"], line["fault"]) == ("OK", 6, None)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_list_of_uris_stands_for_as_many_predictions(local: LocalEndpoint, transport: str) -> None:
    instances = [instance([NAMES[0], NAMES[1]]), instance(NAMES[2])]
    reply = call(local, transport, local.uri_endpoint, instances)
    np.testing.assert_allclose(reply.predictions, embed(in_16_bits(CLIPS[:3])), atol=1e-5)


def test_640_uris_and_not_one_more(local: LocalEndpoint) -> None:
    reply = call(local, "grpc", local.uri_endpoint, [instance(NAMES[k % 3]) for k in range(640)])
    assert reply.status == "OK", reply.message
    expected = embed(in_16_bits(CLIPS[:3]))
    np.testing.assert_allclose(reply.predictions, expected[np.arange(640) % 3], atol=1e-5)
    instances = [instance([NAMES[0]] * 320), instance([NAMES[0]] * 321)]
    reply = call(local, "rest", local.uri_endpoint, instances)
    assert (reply.status, reply.message) == (
        "INVALID_ARGUMENT",
        "The request holds 641 object URIs: at most 640 are allowed.",
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("instances", "message"),
    [
        pytest.param([], "holds no instances", id="nothing"),
        pytest.param([[0.0] * 3], "element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value", id="audio"),
        pytest.param([{"input_array": [0.0]}], "exactly the keys", id="Model Garden's"),
        pytest.param([{"gcs_uri": "gs://clips/plain.wav", "bearer_token": TOKEN}], "exactly the keys", id="gcs_uri"),
        pytest.param([{**instance("plain.wav"), "more": "x"}], "exactly the keys", id="a key too many"),
        pytest.param([{"bucket_name": "clips", "object_uri": "plain.wav"}], "exactly the keys", id="no token"),
        pytest.param([instance("plain.wav", bucket="gs://clips")], "without gs:// and slashes", id="gs://"),
        pytest.param([instance("plain.wav", bucket="clips/")], "without gs:// and slashes", id="slash"),
        pytest.param([instance("plain.wav", bucket="..")], "the bucket's name is none", id="dots"),
        pytest.param([instance("plain.wav", bucket=7)], "bucket_name: JSON Value of type number", id="bucket: number"),
        pytest.param([instance("/plain.wav")], "without a leading slash", id="leading slash"),
        pytest.param([instance("..")], "object's name is none", id="object: dots"),
        pytest.param([instance("")], "object's name is none", id="no name"),
        pytest.param([instance("x" * 1025)], "at most 1024 bytes", id="long name"),
        pytest.param([instance([])], "at least one string", id="no URIs"),
        pytest.param([instance(["plain.wav", 1])], "object_uri: JSON Value of type list", id="a number among URIs"),
        pytest.param([instance([1, 2])], "object_uri: JSON Value of type list", id="numbers as URIs"),
        pytest.param([instance(None)], "object_uri: JSON Value of type null", id="null as URI"),
        pytest.param([instance("plain.wav", token="")], "bearer_token is no token", id="empty token"),
        pytest.param([instance("plain.wav", token="a b")], "bearer_token is no token", id="token with a blank"),
        pytest.param([instance("plain.wav", token="a\r\nX: b")], "bearer_token is no token", id="token with a line"),
        pytest.param([instance("plain.wav"), instance("none.wav")], "element: 1 of", id="missing, second"),
        pytest.param([instance("none.wav")], "not read: the storage server answered 404", id="missing"),
        pytest.param([instance("plain.wav", bucket="nowhere")], "the storage server answered 404", id="no bucket"),
        pytest.param([instance("stereo.wav")], "got 32000 at 16000 Hz in 2 channel(s)", id="stereo"),
        pytest.param([instance("8k.wav")], "got 32000 at 8000 Hz", id="8 kHz"),
        pytest.param([instance("short.wav")], "got 31999 at 16000 Hz", id="short"),
        pytest.param([instance("nan.wav")], "not every sample is finite", id="NaN"),
        pytest.param([instance("text.wav")], "an audio file that libsndfile reads", id="text"),
        pytest.param([instance("empty.wav")], "an audio file that libsndfile reads", id="empty"),
        pytest.param([instance("cut.wav")], "object_uri: ", id="cut off"),
        pytest.param([instance("long.wav")], "longer than 4194304 bytes", id="long"),
    ],
)
def test_what_is_refused_is_refused_as_a_whole(
    local: LocalEndpoint, log: Path, transport: str, instances: list[Any], message: str
) -> None:
    reply = call(local, transport, local.uri_endpoint, instances)
    assert reply.status == "INVALID_ARGUMENT"
    assert message in reply.message
    assert TOKEN not in reply.message
    line = arrivals(log)[-1]
    assert (line["status"], line["clips"], line["instances"]) == ("INVALID_ARGUMENT", [], len(instances))


def test_the_token_goes_to_the_storage_server_and_the_name_is_quoted_in_full() -> None:
    seen: list[tuple[str, str]] = []

    def answer(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        seen.append((path, headers["authorization"]))
        return 200, wav(CLIPS[0])

    with http_server(answer) as address, start_local_endpoint(options=[f"--storage_host={address}"]) as local:
        name = "a/b ü%2F?#&+.wav"
        assert call(local, "grpc", local.uri_endpoint, [instance(name, "my-bucket")]).status == "OK"
    path = "/storage/v1/b/my-bucket/o/a%2Fb%20%C3%BC%252F%3F%23%26%2B.wav?alt=media"
    assert seen == [(path, f"Bearer {TOKEN}")]


def test_objects_are_fetched_side_by_side() -> None:
    together = threading.Barrier(8)

    def answer(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        together.wait(timeout=30)
        return 200, wav(CLIPS[0])

    with http_server(answer) as address, start_local_endpoint(options=[f"--storage_host={address}"]) as local:
        reply = call(local, "rest", local.uri_endpoint, [instance(f"{k}.wav") for k in range(8)])
        assert reply.status == "OK", reply.message


@pytest.mark.parametrize("status", [302, 401, 403, 500])
def test_what_else_a_storage_server_answers(status: int) -> None:
    with (
        http_server(lambda *_: (status, wav(CLIPS[0]))) as address,
        start_local_endpoint(options=[f"--storage_host={address}"]) as local,
    ):
        reply = call(local, "grpc", local.uri_endpoint, [instance("a.wav")])
        assert reply.status == "INVALID_ARGUMENT"
        assert f"the storage server answered {status}" in reply.message


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_without_a_storage_server_it_says_so(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with start_local_endpoint() as local:
        reply = call(local, transport, local.uri_endpoint, [instance("plain.wav")])
        assert reply.status == "INVALID_ARGUMENT"
        assert "no storage server is configured here: start the local endpoint with --storage_host" in reply.message
        garden = [{"gcs_uri": "gs://clips/plain.wav", "bearer_token": TOKEN}]
        (prediction,) = call(local, transport, local.garden_endpoint, garden).predictions
        assert "--storage_host" in prediction["error"]["description"]


def test_the_environment_names_the_storage_server(storage: StorageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (storage.address, storage.address.removeprefix("http://")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
        with start_local_endpoint() as local:
            assert call(local, "grpc", local.uri_endpoint, [instance(NAMES[0])]).status == "OK"


def test_a_storage_server_that_is_gone(capfd: pytest.CaptureFixture[str]) -> None:
    with start_local_endpoint(options=["--storage_host=http://127.0.0.1:9"]) as local:
        reply = call(local, "grpc", local.uri_endpoint, [instance(NAMES[0])])
        assert (reply.status, "did not answer" in reply.message) == ("INVALID_ARGUMENT", True)
    log = capfd.readouterr().err
    assert "an object was not read: ClientConnectorError" in log
    assert TOKEN not in log


def test_a_caller_that_gives_up_while_objects_are_fetched_is_logged(tmp_path: Path) -> None:
    asked = threading.Event()
    release = threading.Event()

    def answer(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        asked.set()
        release.wait(timeout=30)
        return 404, b""

    log = tmp_path / "arrivals.jsonl"
    with (
        http_server(answer) as address,
        start_local_endpoint(arrivals_log=log, options=[f"--storage_host={address}"]) as local,
    ):
        sent_s = time.monotonic()
        for transport in TRANSPORTS:
            asked.clear()
            reply = call(local, transport, local.uri_endpoint, [instance("a.wav")], timeout_s=0.5)
            assert reply.status == "DEADLINE_EXCEEDED"
            assert asked.is_set()
        while len(arrivals(log)) < 2:
            assert time.monotonic() < sent_s + 30
            time.sleep(0.02)
        release.set()
    assert [line["status"] for line in arrivals(log)] == ["CANCELLED"] * 2
