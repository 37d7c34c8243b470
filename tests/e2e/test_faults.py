"""Runs through faults: every clip is embedded once, none fails, and few requests are sent for it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from tests.audio.gcs import storage_server
from tests.e2e.running import embeddings, failures, run_command, succeed, summary_of

RATE_HZ, CLIP, HOP = 16000, 32000, 1600
CLIPS_PER_REQUEST = 4
PROBE_REQUESTS, PROBE_CLIPS = 2, 5

Samples = npt.NDArray[np.float32]


class Case(NamedTuple):
    send: str
    instance_format: str
    transport: str
    clips: int
    seed: int
    """Of the first dozen, those with which the probe meets no fault."""

    def options(self, local: LocalEndpoint) -> list[str]:
        if self.instance_format == "model_garden":
            name = local.garden_endpoint
        else:
            name = local.uri_endpoint if self.send == "uris" else local.endpoint_name
        return [
            *("--endpoint", name, "--endpoint_host", local.rest_host if self.transport == "rest" else local.host),
            *("--instance_format", self.instance_format, "--transport", self.transport, "--send", self.send),
            *(("--staging_location", "gs://staging/clips") if self.send == "uris" else ()),
            *("--clips_per_request", str(CLIPS_PER_REQUEST), "--hop_s", str(HOP / RATE_HZ)),
        ]


CASES = [
    Case("audio", "research", "grpc", 8000, 1),
    Case("audio", "research", "rest", 1000, 3),
    Case("audio", "model_garden", "grpc", 1000, 4),
    Case("uris", "research", "grpc", 600, 11),
    Case("uris", "model_garden", "rest", 600, 12),
]
FAULTS = {"429": 0.10, "503": 0.05, "reset": 0.02, "short": 0.01, "nan": 0.01, "slow": 0.05}


@dataclass
class Run:
    """What a run sent and wrote."""

    folder: Path
    recording: Samples

    @property
    def summary(self) -> dict[str, Any]:
        return summary_of(self.folder / "rows")

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return embeddings(self.folder / "rows")

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        """In the order in which they came."""
        lines = (self.folder / "arrivals").read_text().splitlines()
        return sorted(map(json.loads, lines), key=lambda arrival: int(arrival["number"]))

    def clip(self, start_s: float) -> Samples:
        start = round(start_s * RATE_HZ)
        return self.recording[start : start + CLIP]


def write_recording(path: Path, clips: int, seed: int) -> Samples:
    """Noise that grows and fades, of so many overlapping clips.

    Its samples are steps of 1/128, which float32, 16 bits and seven decimals hold exactly: a clip arrives with the same
    digest whichever way it is sent.
    """
    length = CLIP + (clips - 1) * HOP
    swell = 0.2 + 0.15 * np.sin(np.arange(length) / 9000)
    noise = np.random.default_rng(seed).standard_normal(length)
    samples = np.float32(np.rint(128 * (swell * noise).clip(-0.9, 0.9)) / 128 + 0.0)  # no -0.0, which is other bytes
    path.mkdir(parents=True)
    soundfile.write(path / "noise.wav", samples, RATE_HZ)
    return samples


def run_case(case: Case, folder: Path) -> Run:
    recording = write_recording(folder / "in", case.clips, case.seed)
    (folder / "runtime").mkdir(mode=0o700)
    faults = ",".join(f"{name}={rate}" for name, rate in FAULTS.items())
    options = [f"--faults=seed={case.seed},{faults},retry_s=0.2,slow_s=0.5"]
    environment = {"XDG_RUNTIME_DIR": str(folder / "runtime")}
    with ExitStack() as stack:
        if case.send == "uris":
            storage = stack.enter_context(storage_server(folder / "storage"))
            storage.make_bucket("staging")
            options.append(f"--storage_host={storage.address}")
            environment["STORAGE_EMULATOR_HOST"] = storage.address
        arrivals = folder / "arrivals"
        local = stack.enter_context(start_local_endpoint(arrivals_log=arrivals, options=options))
        parquet = ("--output_format", "parquet")
        succeed(*case.options(local), "--input", folder / "in", "--output", folder / "rows", *parquet, **environment)
        if case.send == "uris":
            assert storage.names("staging") == []
    return Run(folder, recording)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Future[Run]]]:
    """All cases side by side: most of their time they wait, as the refusals' hints and the learnt rate demand."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {case: pool.submit(run_case, case, tmp_path_factory.mktemp("run")) for case in CASES}


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case[:3]))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run(case: Case, running: dict[Case, Future[Run]]) -> Run:
    return running[case].result()


def test_the_endpoint_had_the_faults_that_were_asked_for(case: Case, run: Run) -> None:
    arrivals = run.arrivals
    drawn = Counter(arrival["fault"] for arrival in arrivals)
    # Of the rare ones a short case may draw none.
    assert drawn.keys() >= {None, *(name for name, rate in FAULTS.items() if rate * len(arrivals) >= 5)}
    assert [arrival["fault"] for arrival in arrivals[:PROBE_REQUESTS]] == [None] * PROBE_REQUESTS
    if case.clips >= 8000:
        for name, rate in FAULTS.items():
            assert drawn[name] / len(arrivals) == pytest.approx(rate, rel=0.3), name


def test_every_clip_is_embedded_exactly_once(case: Case, run: Run) -> None:
    summary = run.summary
    assert (summary["clips"], summary["embedded"], summary["failed"]) == (case.clips, case.clips, 0)
    rows = run.rows.values()
    assert sorted(row["start_s"] for row in rows) == [index * HOP / RATE_HZ for index in range(case.clips)]
    # None was answered twice either: what had its answer was not sent again.
    expected = Counter(clip_digest(run.clip(row["start_s"])) for row in rows)
    assert set(expected.values()) == {1}
    answered: Counter[str] = Counter()
    for arrival in run.arrivals:
        if arrival["status"] == "OK" and arrival["fault"] in (None, "slow"):
            answered.update(arrival["clips"])
    of_probe = answered - expected
    assert answered - of_probe == expected
    assert sum(of_probe.values()) == PROBE_CLIPS


def test_each_row_holds_its_own_clip_s_embedding(case: Case, run: Run) -> None:
    rows = sorted(run.rows.values(), key=lambda row: row["start_s"])[:: case.clips // 50]
    expected = embed([run.clip(row["start_s"]) for row in rows])
    actual = np.stack([row["embedding"] for row in rows])
    assert np.abs(actual - expected).max() <= 1e-5
    neighbours = embed([run.clip(row["start_s"] + HOP / RATE_HZ) for row in rows[:-1]])
    assert np.abs(actual[:-1] - neighbours).max(axis=1).min() > 1e-3


def test_few_more_requests_are_sent_than_are_needed(case: Case, run: Run) -> None:
    sent = len(run.arrivals) - PROBE_REQUESTS
    needed = math.ceil(case.clips / CLIPS_PER_REQUEST)
    assert needed < sent < 1.35 * needed
    assert run.summary["requests"] == sent


def test_what_was_sent_again_is_accounted_for(case: Case, run: Run) -> None:
    drawn = Counter(arrival["fault"] for arrival in run.arrivals)
    retries = run.summary["retries_by_code"]
    assert retries["RESOURCE_EXHAUSTED"] == drawn["429"]
    assert retries["UNAVAILABLE"] == drawn["503"] + drawn["reset"]
    assert run.summary["throttled_s"] > 0


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_requests_that_are_never_answered_are_sent_again(transport: str, tmp_path: Path) -> None:
    clips = 240
    write_recording(tmp_path / "in", clips, 1)
    arrivals = tmp_path / "arrivals"
    with start_local_endpoint(arrivals_log=arrivals, options=["--faults=seed=2,timeout=0.1,timeout_s=600"]) as local:
        options = Case("audio", "research", transport, clips, 2).options(local)
        paths = ("--input", tmp_path / "in", "--output", tmp_path / "rows", "--output_format", "parquet")
        summary = succeed(*options, *paths, "--timeout_s", 2)
    assert (summary["embedded"], summary["failed"]) == (clips, 0)
    assert len(embeddings(tmp_path / "rows")) == clips
    unanswered = sum(json.loads(line)["fault"] == "timeout" for line in arrivals.read_text().splitlines())
    assert unanswered >= 3
    # On a busy machine others may miss their time as well.
    assert summary["retries_by_code"]["DEADLINE_EXCEEDED"] >= unanswered


def test_when_nothing_is_answered_in_time_the_run_ends_with_one_message(tmp_path: Path) -> None:
    write_recording(tmp_path / "in", 200, 1)
    arrivals = tmp_path / "arrivals"
    with start_local_endpoint(arrivals_log=arrivals, options=["--faults=timeout=1,timeout_s=600"]) as local:
        options = Case("audio", "research", "rest", 200, 1).options(local)
        paths = ("--input", tmp_path / "in", "--output", tmp_path / "rows")
        done = run_command(*options, *paths, "--timeout_s", 0.3, "--max_attempts", 3)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "did not answer the first request in 3 attempts (DEADLINE_EXCEEDED)" in line
    assert len(arrivals.read_text().splitlines()) == 3
    assert not list(tmp_path.glob("rows-*"))[1:]


def test_clips_without_an_answer_are_failures_of_their_own(tmp_path: Path) -> None:
    clips = 400
    write_recording(tmp_path / "in", clips, 1)
    with start_local_endpoint(options=["--faults=seed=5,500=0.2,503=0.1"]) as local:
        options = Case("audio", "research", "grpc", clips, 5).options(local)
        paths = ("--input", tmp_path / "in", "--output", tmp_path / "rows", "--output_format", "parquet")
        summary = succeed(*options, *paths, "--max_attempts", 2)
    lost = failures(tmp_path / "rows")
    assert 0 < summary["failed"] == len(lost) < clips / 4
    assert {row["code"] for row in lost} <= {"server_error", "unavailable"}
    assert all(row["retryable"] and row["attempts"] == 2 for row in lost)
    embedded = embeddings(tmp_path / "rows").keys()
    assert len(embedded) == summary["embedded"]
    assert not embedded & {row["clip_id"] for row in lost}
