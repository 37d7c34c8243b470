"""Faults on purpose: how they are asked for and drawn, and what callers see of each over both transports."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.digests import clip_digest, clip_digest_16_bit
from emulator.faults import RATES, Faults, parse_faults
from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.audio.gcs import storage_server
from tests.emulator.calls import (
    TRANSPORTS,
    Reply,
    arrivals,
    base64_text,
    call,
    in_16_bits,
    random_clips,
    wav,
)

CLIPS = np.round(random_clips(4, seed=4) * 128) / 128
"""Of few digits, so that four of them fit into a request as JSON."""
MIXED = "seed=7,429=0.10,503=0.05,500=0.01,reset=0.02,timeout=0.01,echo=0.01,short=0.01,nan=0.01,slow=0.05"


def with_faults(spec: str, log: Path | None = None) -> LocalEndpoint:
    return start_local_endpoint(arrivals_log=log, options=[f"--faults={spec}"])


def predict(local: LocalEndpoint, transport: str, clips: np.ndarray = CLIPS, timeout_s: float = 30) -> Reply:
    return call(local, transport, local.endpoint_name, list(clips), timeout_s)


def test_a_specification() -> None:
    assert parse_faults(
        "seed=7,429=0.1,slow=1e-2,retry_s=0.2,slow_s=0,timeout_s=5,deny_after=0,unauthenticated_after=1,"
        "missing_after=2,reject_clips=ab;0123456789abcdef,reject_every=9,too_large_above=8"
    ) == Faults(7, {"429": 0.1, "slow": 0.01}, 0.2, 0.0, 5.0, 0, 1, 2, ("ab", "0123456789abcdef"), 9, 8)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "'' is no fault: expected KEY=VALUE with a KEY of 429, 503, 500, reset"),
        ("429", "'429' is no fault"),
        ("429=0.1,", "'' is no fault"),
        ("429 =0.1", "'429 =0.1' is no fault"),
        ("404=0.1", "'404=0.1' is no fault"),
        ("429=1.1", "429=1.1 is no rate: expected 0 to 1"),
        ("429=-0.1", "429=-0.1 is no rate"),
        ("429=nan", "429=nan is no rate"),
        ("429=", "429= is no rate"),
        ("429=0.1,429=0.1", "'429' is there twice"),
        ("seed=1,seed=1", "'seed' is there twice"),
        ("429=0.6,503=0.6", "the rates add up to 1.2: expected at most 1"),
        ("seed=1.5", "seed=1.5 is no count: expected a whole number, 0 or more"),
        ("seed=-1", "seed=-1 is no count"),
        ("deny_after=x", "deny_after=x is no count"),
        ("reject_every=0", "reject_every=0 is no count: expected 1 or more"),
        ("retry_s=inf", "retry_s=inf is no time: expected 0 to 3600 seconds"),
        ("slow_s=-1", "slow_s=-1 is no time"),
        ("reject_clips=", "reject_clips= names no digests"),
        ("reject_clips=AB", "reject_clips=AB names no digests: expected 1 to 16 lower-case hex digits"),
        ("reject_clips=ab;", "reject_clips=ab; names no digests"),
        ("reject_clips=" + "a" * 17, "names no digests"),
    ],
)
def test_what_is_no_specification(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_faults(spec)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_rates_are_shares_of_the_requests() -> None:
    faults = parse_faults(MIXED)
    requests = 20_000
    drawn = Counter(faults.drawn(number) for number in range(1, requests + 1))
    for name in RATES:
        expected = faults.rates[name] * requests
        assert abs(drawn[name] - expected) < 5 * expected**0.5, name
    assert sum(drawn.values()) - drawn[None] < 5600


def test_a_seed_decides_and_nothing_else() -> None:
    def drawn(spec: str) -> list[str | None]:
        return [parse_faults(spec).drawn(number) for number in range(1, 2000)]

    assert drawn(MIXED) == drawn(MIXED)
    assert drawn(MIXED) != drawn(MIXED.replace("seed=7", "seed=8"))
    assert set(drawn("seed=3")) == {None}
    assert set(drawn("503=1")) == {"503"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("fault", "status", "retry_s"),
    [("429", "RESOURCE_EXHAUSTED", 0.2), ("503", "UNAVAILABLE", None), ("500", "INTERNAL", None)],
)
def test_refusals(tmp_path: Path, transport: str, fault: str, status: str, retry_s: float | None) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults(f"{fault}=1,retry_s=0.2", log) as local:
        reply = predict(local, transport)
    assert (reply.status, reply.retry_s) == (status, retry_s)
    assert "reset" not in reply.message
    (line,) = arrivals(log)
    assert (line["status"], line["fault"], line["instances"], line["clips"]) == (status, fault, 4, [])
    assert line["endpoint"] == local.endpoint_name


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_resets(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("reset=1", log) as local:
        reply = predict(local, transport)
    message = "connection lost" if transport == "rest" else "recvmsg:Connection reset by peer"
    assert (reply.status, reply.message) == ("UNAVAILABLE", message)
    assert [(line["status"], line["fault"]) for line in arrivals(log)] == [("UNAVAILABLE", "reset")]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_time_outs(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("timeout=1", log) as local:
        assert predict(local, transport, timeout_s=0.5).status == "DEADLINE_EXCEEDED"
    with with_faults("timeout=1,timeout_s=0.1", log) as local:
        assert predict(local, transport).message == "Deadline Exceeded"
    assert [(line["status"], line["fault"]) for line in arrivals(log)] == [("DEADLINE_EXCEEDED", "timeout")] * 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_slow_answers(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("slow=1,slow_s=3600", log) as local:
        assert predict(local, transport, timeout_s=1).status == "DEADLINE_EXCEEDED"
    with with_faults("slow=1,slow_s=0.01", log) as local:
        np.testing.assert_allclose(predict(local, transport).predictions, embed(CLIPS), atol=1e-5)
    assert [(line["status"], line["fault"], len(line["clips"])) for line in arrivals(log)] == [("OK", "slow", 4)] * 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_short_answers(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("short=1", log) as local:
        np.testing.assert_allclose(predict(local, transport).predictions, embed(CLIPS[:3]), atol=1e-5)
        instances = [{"input_bytes": base64_text(wav(CLIPS[0]))}, {}]
        (prediction,) = call(local, transport, local.garden_endpoint, instances).predictions
        assert list(prediction) == ["embedding"]
    assert [(line["status"], line["fault"], line["instances"]) for line in arrivals(log)] == [
        ("OK", "short", 4),
        ("OK", "short", 2),
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_answers_with_nan(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("nan=1", log) as local:
        places = set()
        for _ in range(12):
            predictions = np.array(predict(local, transport).predictions)
            (place,) = set(np.flatnonzero(np.isnan(predictions).any(axis=1)))
            others = np.arange(4) != place
            np.testing.assert_allclose(predictions[others], embed(CLIPS)[others], atol=1e-5)
            assert np.isnan(predictions[place]).sum() == 1
            places.add(int(place))
        assert len(places) > 1
        instances = [{}, {"input_bytes": base64_text(wav(CLIPS[0]))}, {}]
        predictions = call(local, transport, local.garden_endpoint, instances).predictions
        assert [list(prediction) for prediction in predictions] == [["error"], ["embedding"], ["error"]]
        assert np.isnan(predictions[1]["embedding"]).sum() == 1
    assert {(line["status"], line["fault"]) for line in arrivals(log)} == {("OK", "nan")}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_errors_that_echo_the_request(tmp_path: Path, transport: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("echo=1", log) as local:
        samples = predict(local, transport)
        token = "ya29.TEST-echoed"
        instances = [{"bucket_name": "clips", "object_uri": "a.wav", "bearer_token": token}]
        tokens = call(local, transport, local.uri_endpoint, instances)
    assert (samples.status, tokens.status) == ("INTERNAL", "INTERNAL")
    assert repr(float(CLIPS[0][0])) in samples.message
    assert token in tokens.message
    assert token not in log.read_text() + capfd.readouterr().err
    assert repr(float(CLIPS[0][0])) not in log.read_text()
    assert [(line["status"], line["fault"]) for line in arrivals(log)] == [("INTERNAL", "echo")] * 2


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("key", "status"),
    [("deny", "PERMISSION_DENIED"), ("unauthenticated", "UNAUTHENTICATED"), ("missing", "NOT_FOUND")],
)
def test_what_is_lost_in_the_middle_of_a_run(tmp_path: Path, transport: str, key: str, status: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults(f"{key}_after=2", log) as local:
        statuses = [predict(local, transport, CLIPS[:1]).status for _ in range(4)]
    assert statuses == ["OK", "OK", status, status]
    assert [line["fault"] for line in arrivals(log)] == [None, None, key, key]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_responses_that_would_be_too_large(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with with_faults("too_large_above=2", log) as local:
        assert predict(local, transport, CLIPS[:2]).status == "OK"
        reply = predict(local, transport, CLIPS[:3])
        uris = [{"bucket_name": "clips", "object_uri": ["a", "b", "c"], "bearer_token": "t"}]
        by_uri = call(local, transport, local.uri_endpoint, uris)
        in_garden = call(local, transport, local.garden_endpoint, [{}] * 3)
    assert {(r.status, r.message[:23]) for r in (reply, by_uri, in_garden)} == {
        ("INVALID_ARGUMENT", "Response size too large")
    }
    assert [line["fault"] for line in arrivals(log)] == [None, *["too_large"] * 3]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_clip_that_is_always_rejected(tmp_path: Path, transport: str) -> None:
    """One digest, of the 16-bit samples, names the clip in every way of sending it."""
    steps = in_16_bits(random_clips(3, seed=6))
    digest = hashlib.sha256(steps[1].tobytes()).hexdigest()[:8]
    log = tmp_path / "arrivals.jsonl"
    with storage_server(tmp_path / "objects") as storage:
        storage.make_bucket("clips")
        for position, clip in enumerate(steps):
            storage.upload("clips", f"{position}.wav", wav(clip))
        options = [f"--storage_host={storage.address}", f"--faults=reject_clips=ffffffffffffffff;{digest}"]
        with start_local_endpoint(arrivals_log=log, options=options) as local:
            decimals = np.round(steps.astype(np.float64), 7)
            whole = [
                predict(local, transport, steps[:2]),
                predict(local, transport, decimals[:2]),
                call(local, transport, local.uri_endpoint, uris("0.wav", "1.wav")),
            ]
            assert {reply.status for reply in whole} == {"INVALID_ARGUMENT"}
            assert {reply.message.split(" of ")[0] for reply in whole} == {"Failed to process element: 1"}
            assert predict(local, transport, steps[[0, 2]]).status == "OK"
            assert call(local, transport, local.uri_endpoint, uris("0.wav", "2.wav")).status == "OK"
            predictions = call(
                local, transport, local.garden_endpoint, [{"input_bytes": base64_text(wav(clip))} for clip in steps[:3]]
            ).predictions
    assert [list(prediction) for prediction in predictions] == [["embedding"], ["error"], ["embedding"]]
    assert predictions[1]["error"]["description"] != "Failed to retrieve data from request instance."
    lines = arrivals(log)
    assert [line["fault"] for line in lines] == ["reject"] * 3 + [None] * 2 + ["reject"]
    assert [line["status"] for line in lines] == ["INVALID_ARGUMENT"] * 3 + ["OK"] * 3
    assert [len(line["clips"]) for line in lines] == [0, 0, 0, 2, 2, 2]


def uris(*names: str) -> list[Any]:
    return [{"bucket_name": "clips", "object_uri": name, "bearer_token": "t"} for name in names]


def test_rejection_by_the_digest_of_the_log_and_by_every_nth(tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    with start_local_endpoint(arrivals_log=log) as local:
        predict(local, "grpc", CLIPS[2:3])
    (logged,) = arrivals(log)[0]["clips"]
    with with_faults(f"reject_clips={logged}") as local:
        assert predict(local, "grpc", CLIPS[2:3]).status == "INVALID_ARGUMENT"
        assert predict(local, "grpc", CLIPS[:2]).status == "OK"
    with with_faults("reject_every=2") as local:
        for clip in random_clips(12, seed=5):
            digest = hashlib.sha256(in_16_bits(clip).tobytes()).hexdigest()[:16]
            expected = "INVALID_ARGUMENT" if digest[-1] in "02468ace" else "OK"
            assert predict(local, "grpc", clip[None]).status == expected


def test_digests_are_those_of_the_samples() -> None:
    clip = np.linspace(-1.1, 1.1, 32000, dtype=np.float32)
    assert clip_digest(clip) == hashlib.sha256(clip.tobytes()).hexdigest()[:16]
    steps = in_16_bits(clip)
    assert clip_digest_16_bit(clip) == clip_digest_16_bit(steps) == clip_digest(steps)
    assert clip_digest_16_bit(np.full(32000, -1e-9, np.float32)) == clip_digest(np.zeros(32000, np.float32))


def test_requests_get_the_faults_of_their_numbers_however_they_interleave(tmp_path: Path) -> None:
    """Both transports at once, 300 requests: the log and what callers saw agree with what the seed says."""
    log = tmp_path / "arrivals.jsonl"
    spec = MIXED + ",slow_s=0.01,timeout_s=0.05,retry_s=0.5"
    with with_faults(spec, log) as local, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda k: predict(local, TRANSPORTS[k % 2], CLIPS[:2]), range(300)))
    lines = arrivals(log)
    assert sorted(line["number"] for line in lines) == list(range(1, 301))
    faults = parse_faults(spec)
    assert all(line["fault"] == faults.drawn(line["number"]) for line in lines)
    assert Counter(line["status"] for line in lines) == Counter(reply.status for reply in replies)
    seen = Counter(line["fault"] for line in lines)
    assert sum(reply.retry_s == 0.5 for reply in replies) == seen["429"]
    assert sum(len(reply.predictions) == 1 for reply in replies) == seen["short"]
    assert sum(bool(np.isnan(reply.predictions).any()) for reply in replies if reply.predictions) == seen["nan"]
    assert seen.keys() >= {"429", "503", "slow", None}
