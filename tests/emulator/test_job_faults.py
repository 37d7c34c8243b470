"""What goes wrong with jobs on purpose: how it is asked for, and what callers find."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1.types import BatchPredictionJob

from emulator.digests import clip_digest_16_bit
from emulator.job_faults import JobFaults, parse_job_faults
from emulator.job_messages import JobState
from tests.audio.gcs import StorageServer, storage_server
from tests.emulator.calls import arrivals, in_16_bits, wait_until
from tests.emulator.job_calls import (
    BUCKET,
    CLIPS,
    PARENT,
    digests,
    flat,
    garden_line,
    job_service,
    names,
    place,
    request_for,
    research_line,
    rest,
    rows,
    upload,
)

URI = f"gs://{BUCKET}/in/*.jsonl"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("objects")) as server:
        server.make_bucket(BUCKET)
        lines = list(map(research_line, CLIPS))
        upload(server, "in/a.jsonl", lines[:5])
        upload(server, "in/b.jsonl", lines[5:])
        upload(server, "garden.jsonl", map(garden_line, CLIPS))
        yield server


def places(storage: StorageServer, job: BatchPredictionJob, kind: str = "prediction.results") -> list[int]:
    return sorted(place(row["instance"]) for row in flat(rows(storage, job, kind)))


def test_a_specification() -> None:
    assert parse_job_faults(
        "seed=7,invalid=0.1,unavailable=0.2,lost=1e-2,die_after=0.5,die_code=UNAVAILABLE,end=expired,shards=5,old_names=1,"
        "bare_errors=1,least_s=2,refuse=RESOURCE_EXHAUSTED,refuse_first=2,lose_answers=1,get_503=0.3"
    ) == JobFaults(
        7,
        {"invalid": 0.1, "unavailable": 0.2, "lost": 0.01},
        0.5,
        grpc.StatusCode.UNAVAILABLE,
        JobState.JOB_STATE_EXPIRED,
        5,
        True,
        True,
        2.0,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        2,
        1,
        0.3,
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "'' is no fault: expected KEY=VALUE with a KEY of invalid, unavailable, lost, seed"),
        ("429=0.1", "'429=0.1' is no fault"),
        ("invalid=0.6,lost=0.6", "the rates add up to 1.2"),
        ("die_after=2", "die_after=2 is no rate"),
        ("die_code=OK", "die_code=OK is no status: expected gRPC's name of an error"),
        ("refuse=503", "refuse=503 is no status"),
        ("end=running", "end=running is no state: expected one of succeeded, partially_succeeded, failed"),
        ("shards=0", "shards=0 is no count"),
        ("old_names=yes", "old_names=yes is neither 0 nor 1"),
        ("least_s=-1", "least_s=-1 is no time"),
    ],
)
def test_what_is_no_specification(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_job_faults(spec)
    assert message in str(error.value)


def test_rates_are_shares_of_the_rows_and_others_for_another_job() -> None:
    faults = parse_job_faults("invalid=0.1,unavailable=0.2,lost=0.05,get_503=0.25")
    drawn = Counter(faults.of_row(1, row) for row in range(10_000))
    for name, rate in faults.rates.items():
        assert abs(drawn[name] - rate * 10_000) < 5 * (rate * 10_000) ** 0.5
    assert [faults.of_row(1, row) for row in range(99)] != [faults.of_row(2, row) for row in range(99)]
    assert abs(sum(faults.loses_get(number) for number in range(4000)) - 1000) < 150


def test_rows_fail_for_good_or_for_now_or_get_lost(storage: StorageServer, tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    with job_service(storage, "seed=1,invalid=0.3,unavailable=0.3,lost=0.2", arrivals_log=log) as jobs:
        job = jobs.run([URI])
        wait_until(lambda: len(arrivals(log)) == 2)
    errors = flat(rows(storage, job, "prediction.errors_stats"))
    codes = Counter(row["error"]["code"] for row in errors)
    assert set(codes) == {3, 14}
    found, failed = places(storage, job), places(storage, job, "prediction.errors_stats")
    assert not set(found) & set(failed)
    lost = 12 - len(found) - len(failed)
    stats = job.completion_stats
    assert min(len(found), lost) > 0
    assert (stats.successful_count, stats.failed_count, stats.incomplete_count) == (len(found), len(failed), lost)
    assert job.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert sorted(arrivals(log)[-1]["clips"]) == digests(CLIPS[found])
    for row in errors:
        assert f"{row['instance'][0]:.6f}" in row["error"]["message"], "what it says repeats the audio, on purpose"


def test_errors_without_their_instances(storage: StorageServer) -> None:
    with job_service(storage, "invalid=1,bare_errors=1") as jobs:
        job = jobs.run([URI])
    assert [list(row) for row in flat(rows(storage, job, "prediction.errors_stats"))] == [["error"]] * 12
    assert places(storage, job) == []


@pytest.mark.parametrize(("share", "written"), [("0.5", 6), ("0", 0), ("1", 12)])
def test_a_job_dies(storage: StorageServer, tmp_path: Path, share: str, written: int) -> None:
    log = tmp_path / "arrivals.jsonl"
    with job_service(storage, f"die_after={share},die_code=RESOURCE_EXHAUSTED", arrivals_log=log) as jobs:
        job = jobs.run([URI])
        wait_until(lambda: len(arrivals(log)) == 2)
    assert (job.state.name, job.error.code) == ("JOB_STATE_FAILED", 8)
    assert job.error.message == f"The job has died after {len(places(storage, job))} rows, on purpose."
    found = places(storage, job)
    assert abs(len(found) - written) <= 1
    assert sorted(arrivals(log)[-1]["clips"]) == digests(CLIPS[found])
    assert bool(names(storage, job)) == bool(written), "files without a line are not there"


@pytest.mark.parametrize(
    ("spec", "state", "code", "written"),
    [
        ("end=expired,die_after=0.5", "JOB_STATE_EXPIRED", 4, 6),
        ("end=partially_succeeded", "JOB_STATE_PARTIALLY_SUCCEEDED", 0, 12),
        ("end=succeeded,invalid=1", "JOB_STATE_SUCCEEDED", 0, 0),
        ("end=failed", "JOB_STATE_FAILED", 13, 12),
        ("end=cancelled", "JOB_STATE_CANCELLED", 1, 12),
    ],
)
def test_ends(storage: StorageServer, spec: str, state: str, code: int, written: int) -> None:
    with job_service(storage, spec) as jobs:
        job = jobs.run([URI])
    assert (job.state.name, job.error.code, bool(job.error.message)) == (state, code, code != 0)
    assert abs(len(places(storage, job)) - written) <= 1


def test_old_names_and_a_number_of_shards(storage: StorageServer) -> None:
    with job_service(storage, "old_names=1,shards=5,invalid=0.3") as jobs:
        job = jobs.run([URI])
    expected = [f"{kind}_000{k}.jsonl" for kind in ("errors", "predictions") for k in range(1, 6)]
    assert names(storage, job) == expected
    assert sorted(places(storage, job, "predictions_") + places(storage, job, "errors_")) == list(range(12))


def test_a_job_takes_its_time(storage: StorageServer) -> None:
    with job_service(storage, "least_s=1.5") as jobs:
        job = jobs.run([URI])
    assert (job.end_time - job.start_time).total_seconds() >= 1.5
    assert places(storage, job) == list(range(12))


def test_creating_is_refused(storage: StorageServer, tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    with job_service(storage, "refuse=PERMISSION_DENIED,refuse_first=2", arrivals_log=log) as jobs:
        asked = request_for(jobs.local.model, [URI])
        with pytest.raises(exceptions.PermissionDenied):
            jobs.create(asked)
        content = json.loads(BatchPredictionJob.to_json(asked))
        assert rest(jobs.local, "POST", f"{PARENT}/batchPredictionJobs", content)[0] == 403
        assert list(jobs.client.list_batch_prediction_jobs(parent=PARENT)) == []
        made = jobs.create(asked)
    created = [(line["status"], line["fault"], line["job"]) for line in arrivals(log) if line["job_event"] == "created"]
    assert created == [("PERMISSION_DENIED", "refuse", None)] * 2 + [("OK", None, made.name)]


def test_an_answer_is_lost_though_the_job_is_made(storage: StorageServer, tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    with job_service(storage, "lose_answers=1", arrivals_log=log) as jobs:
        with pytest.raises(exceptions.ServiceUnavailable):
            jobs.create(request_for(jobs.local.model, [URI], run="a"))
        (job,) = jobs.client.list_batch_prediction_jobs(request={"parent": PARENT, "filter": 'labels.run="a"'})
        assert jobs.ended(job.name).completion_stats.successful_count == 12
        jobs.create(request_for(jobs.local.model, [URI], run="b"))
    first = arrivals(log)[0]
    assert (first["status"], first["fault"], first["job"]) == ("UNAVAILABLE", "lose_answer", job.name)


def test_asking_fails_now_and_then(storage: StorageServer) -> None:
    with job_service(storage, "get_503=0.5") as jobs:
        name = jobs.create(request_for(jobs.local.model, [URI])).name
        outcomes = Counter[bool]()
        for _ in range(40):
            status, _content = rest(jobs.local, "GET", name)
            assert status in {200, 503}
            outcomes[status == 200] += 1
    assert min(outcomes[True], outcomes[False]) > 5


def test_clips_that_are_always_rejected(storage: StorageServer, tmp_path: Path) -> None:
    log = tmp_path / "arrivals.jsonl"
    kinds = CLIPS.astype(np.float32), in_16_bits(CLIPS)
    bad = [clip_digest_16_bit(clips[k]) for clips in kinds for k in (2, 7)]
    with job_service(storage, "", f"--faults=reject_clips={';'.join(bad)}", arrivals_log=log) as jobs:
        job = jobs.run([URI])
        assert places(storage, job, "prediction.errors_stats") == [2, 7]
        assert sorted(arrivals(log)[-1]["clips"]) == digests(np.delete(CLIPS, (2, 7), axis=0))
        garden = jobs.run([f"gs://{BUCKET}/garden.jsonl"], jobs.local.garden_model)
        described = [row["prediction"]["error"] for row in flat(rows(storage, garden)) if "error" in row["prediction"]]
        assert described == [{"description": "The model cannot process this clip."}] * 2
        assert sorted(arrivals(log)[-1]["clips"]) == digests(np.delete(in_16_bits(CLIPS), (2, 7), axis=0))
