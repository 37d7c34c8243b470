"""Batch prediction jobs by the official client and over HTTP, from one storage server to the same."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1.types import (
    BatchPredictionJob,
    GetBatchPredictionJobRequest,
    JobState,
    ListBatchPredictionJobsResponse,
)
from google.protobuf.json_format import ParseDict

from emulator.arrivals import ArrivalsLog
from emulator.job_messages import MESSAGES
from emulator.job_rules import DEFAULT_MODEL
from emulator.job_run import Job
from emulator.jobs import JobService, JobSettings
from emulator.process import start_local_endpoint
from emulator.standin import embed
from tests.audio.gcs import StorageServer, storage_server
from tests.emulator.calls import arrivals, base64_text, in_16_bits, wait_until, wav
from tests.emulator.job_calls import (
    BUCKET,
    CLIPS,
    PARENT,
    Jobs,
    asking,
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


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("objects")) as server:
        server.make_bucket(BUCKET)
        lines = list(map(research_line, CLIPS))
        upload(server, "in/a.jsonl", lines[:5])
        upload(server, "in/b.jsonl", [*lines[5:11], b"\n", lines[11].rstrip()])
        upload(server, "in/deeper/c.jsonl", lines[:1])
        upload(server, "garden.jsonl", map(garden_line, CLIPS))
        yield server


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrivals") / "arrivals.jsonl"


@pytest.fixture(scope="module")
def jobs(storage: StorageServer, log: Path) -> Iterator[Jobs]:
    with job_service(storage, arrivals_log=log) as asked:
        yield asked


@pytest.fixture(scope="module")
def done(jobs: Jobs) -> BatchPredictionJob:
    """A job of all clips for raw audio."""
    return jobs.run([f"gs://{BUCKET}/in/*.jsonl"])


def test_a_job_from_beginning_to_end(jobs: Jobs, storage: StorageServer) -> None:
    asked = request_for(jobs.local.model, [f"gs://{BUCKET}/in/a.jsonl"], "gs://jobs/deep/er/", a="b")
    BatchPredictionJob.pb(asked).explanation_spec.parameters.top_k = 3
    made = jobs.create(asked)
    assert made.state is JobState.JOB_STATE_PENDING
    ended = jobs.ended(made.name)
    assert ended.state is JobState.JOB_STATE_SUCCEEDED
    assert ended.create_time == made.create_time
    assert ended.create_time <= ended.start_time <= ended.end_time == ended.update_time
    assert (ended.completion_stats.successful_count, ended.completion_stats.failed_count) == (5, 0)
    assert not ended.error.message
    assert ended.name.startswith(f"{PARENT}/batchPredictionJobs/")
    assert ended.model_version_id == "1"
    when = ended.create_time
    stamp = f"{when:%Y_%m_%dT%H_%M_%S}_{when.microsecond // 1000:03d}Z"
    assert ended.output_info.gcs_output_directory == f"gs://jobs/deep/er/prediction-hear-stand-in-v1-{stamp}"
    for name in ("model", "display_name", "labels", "input_config", "output_config", "dedicated_resources"):
        assert getattr(ended, name) == getattr(asked, name)
    assert ended.explanation_spec == asked.explanation_spec
    kinds = ("errors_stats", "results")
    assert names(storage, ended) == [f"prediction.{kind}-0000{k}-of-00003" for kind in kinds for k in range(3)]


def test_every_row_has_its_prediction(done: BatchPredictionJob, storage: StorageServer) -> None:
    found = flat(rows(storage, done))
    assert sorted(place(row["instance"]) for row in found) == list(range(12))
    assert all(row.keys() == {"instance", "prediction"} for row in found)
    order = [place(row["instance"]) for row in found]
    predictions = np.array([row["prediction"] for row in found], np.float32)
    np.testing.assert_array_equal(predictions, embed(CLIPS[order].astype(np.float32)))
    assert flat(rows(storage, done, "prediction.errors_stats")) == []


def test_rows_are_shuffled_within_and_across_shards(done: BatchPredictionJob, storage: StorageServer) -> None:
    shards = [[place(row["instance"]) for row in lines] for lines in rows(storage, done)]
    assert any(shard != sorted(shard) for shard in shards)
    assert flat(shards) != list(range(12))
    assert any(min(shard) < 5 <= max(shard) for shard in shards if shard), "from both files of the input"


def test_numbers_are_written_by_the_service_not_copied(done: BatchPredictionJob, storage: StorageServer) -> None:
    bucket, _, folder = done.output_info.gcs_output_directory.removeprefix("gs://").partition("/")
    written = b"".join(storage.content(bucket, f"{folder}/{name}")[0] for name in names(storage, done))
    ends_with_zero = re.compile(rb"\.[0-9]{5}0[,\]]")
    assert ends_with_zero.search(research_line(CLIPS[0]))
    assert not ends_with_zero.search(written)


def test_the_arrivals_log_has_a_line_for_each_jobs_creation_and_end(jobs: Jobs, log: Path) -> None:
    job = jobs.run([f"gs://{BUCKET}/in/b.jsonl"])
    created, ended = arrivals(log)[-2:]
    assert (created["job_event"], created["job"], created["model"]) == ("created", job.name, jobs.local.model)
    assert (created["transport"], created["status"], created["fault"]) == ("grpc", "OK", None)
    assert created["clips"] == []
    assert (ended["job_event"], ended["job"], ended["state"]) == ("ended", job.name, "JOB_STATE_SUCCEEDED")
    assert sorted(ended["clips"]) == digests(CLIPS[5:])
    assert created["t_s"] <= ended["t_s"]


def test_wildcards(jobs: Jobs) -> None:
    for uri, count in (("in/*.jsonl", 12), ("in/**.jsonl", 13), ("**/c.js*", 1), ("in/?.jsonl", 12)):
        assert jobs.run([f"gs://{BUCKET}/{uri}"]).completion_stats.successful_count == count
    twice = jobs.run([f"gs://{BUCKET}/in/a.jsonl", f"gs://{BUCKET}/in/a*"])
    assert twice.completion_stats.successful_count == 5


def test_bad_lines_are_lines_of_errors(jobs: Jobs, storage: StorageServer) -> None:
    clip = [0.25] * 32000
    bad: list[Any] = [
        clip[1:],
        [*clip[1:], None],
        [*clip[1:], "0"],
        [*clip[1:], 1e39],
        {"input_array": clip},
        "x",
        None,
    ]
    lines = [json.dumps(instance).encode() + b"\n" for instance in [*bad, clip]]
    upload(storage, "bad.jsonl", [*lines, b"[NaN]\n", b"[0.5,\n", b"\xff\n"])
    job = jobs.run([f"gs://{BUCKET}/bad.jsonl"])
    assert job.state is JobState.JOB_STATE_PARTIALLY_SUCCEEDED
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (1, 10)
    (row,) = flat(rows(storage, job))
    assert row["instance"] == clip
    errors = flat(rows(storage, job, "prediction.errors_stats"))
    assert {error["error"]["code"] for error in errors} == {3}
    assert all(error["error"]["message"] for error in errors)
    assert sorted(json.dumps(error["instance"]) for error in errors if "instance" in error) == sorted(
        map(json.dumps, bad)
    )


def test_the_model_garden_format(jobs: Jobs, storage: StorageServer, log: Path) -> None:
    job = jobs.run([f"gs://{BUCKET}/garden.jsonl"], jobs.local.garden_model)
    samples = in_16_bits(CLIPS)
    by_instance = {
        json.loads(garden_line(clip))["input_bytes"]: embed([s])[0] for clip, s in zip(CLIPS, samples, strict=True)
    }
    found = flat(rows(storage, job))
    assert len(found) == 12
    for row in found:
        assert row["prediction"].keys() == {"embedding"}
        embedding = by_instance.pop(row["instance"]["input_bytes"])
        np.testing.assert_array_equal(np.array(row["prediction"]["embedding"], np.float32), embedding)
    assert sorted(arrivals(log)[-1]["clips"]) == digests(samples)


def test_what_is_no_clip_in_the_model_garden_format(jobs: Jobs, storage: StorageServer) -> None:
    storage.upload(BUCKET, "clip.wav", wav(CLIPS[0]))
    by_uri = {"gcs_uri": f"gs://{BUCKET}/clip.wav", "bearer_token": "t"}
    instances: list[Any] = [
        {"input_bytes": base64_text(b"text")},
        {"input_array": [0.5]},
        {"gcs_uri": f"gs://{BUCKET}/none.wav", "bearer_token": "t"},
        by_uri,
        [0.5],
    ]
    upload(storage, "bad-garden.jsonl", [json.dumps(instance).encode() + b"\n" for instance in instances])
    job = jobs.run([f"gs://{BUCKET}/bad-garden.jsonl"], jobs.local.garden_model)
    (error,) = flat(rows(storage, job, "prediction.errors_stats"))
    assert error == {"instance": [0.5], "error": {"code": 3, "message": error["error"]["message"]}}
    found = {json.dumps(row["instance"]): row["prediction"] for row in flat(rows(storage, job))}
    embedding = found.pop(json.dumps(by_uri))["embedding"]
    np.testing.assert_array_equal(np.array(embedding, np.float32), embed(in_16_bits(CLIPS[:1]))[0])
    assert found.keys() == {json.dumps(instance) for instance in instances[:3]}
    assert all(prediction["error"]["description"] for prediction in found.values())


@pytest.mark.parametrize(
    ("uris", "prefix", "code", "said"),
    [
        (["gs://jobs/in/none*.jsonl"], "gs://jobs/out", 5, "No files were found for gs://jobs/in/none*.jsonl."),
        (["gs://jobs/in/a.jsonl", "gs://nowhere/a"], "gs://jobs/out", 5, "No files were found for gs://nowhere/a."),
        (["gs://jobs/in/a.jsonl"], "gs://nowhere/out", 5, "was not written: HTTP 404"),
    ],
)
def test_what_is_missing_makes_the_job_fail(jobs: Jobs, uris: list[str], prefix: str, code: int, said: str) -> None:
    job = jobs.ended(jobs.create(request_for(jobs.local.model, uris, prefix)).name)
    assert job.state is JobState.JOB_STATE_FAILED
    assert job.error.code == code
    assert said in job.error.message


def test_refusals(jobs: Jobs, log: Path) -> None:
    good = request_for(jobs.local.model, [f"gs://{BUCKET}/in/a.jsonl"])
    no_model = request_for("projects/local/locations/local/models/9", [f"gs://{BUCKET}/in/a.jsonl"])
    before = len(arrivals(log))
    with pytest.raises(exceptions.NotFound, match="models/9` does not exist"):
        jobs.create(no_model)
    with pytest.raises(exceptions.InvalidArgument, match="location must be the job's: us-west1"):
        jobs.create(good, "projects/mine/locations/us-west1")
    with pytest.raises(exceptions.InvalidArgument, match="display_name"):
        jobs.create(BatchPredictionJob())
    with pytest.raises(exceptions.InvalidArgument, match="parent must read"):
        jobs.create(good, "projects/mine")
    with pytest.raises(exceptions.NotFound, match="batchPredictionJobs/1` does not exist"):
        jobs.get(f"{PARENT}/batchPredictionJobs/1")
    with pytest.raises(exceptions.InvalidArgument, match="name must read"):
        jobs.get(f"{PARENT}/batchPredictionJobs/x")
    with pytest.raises(exceptions.InvalidArgument, match="Invalid filter"):
        jobs.client.list_batch_prediction_jobs(request={"parent": PARENT, "filter": "x=y"})
    with pytest.raises(exceptions.InvalidArgument, match="page_token"):
        jobs.client.list_batch_prediction_jobs(request={"parent": PARENT, "page_token": "x"})
    with pytest.raises(exceptions.MethodNotImplemented):
        jobs.client.delete_batch_prediction_job(name=f"{PARENT}/batchPredictionJobs/1")
    lines = arrivals(log)[before:]
    assert [line["status"] for line in lines] == ["NOT_FOUND", *["INVALID_ARGUMENT"] * 3]
    assert [(line["job_event"], line["job"]) for line in lines] == [("created", None)] * 4


def test_the_routing_header_is_checked(jobs: Jobs) -> None:
    call = jobs.client.transport.get_batch_prediction_job
    request = GetBatchPredictionJobRequest(name=f"{PARENT}/batchPredictionJobs/1")
    for metadata in ([], [("x-goog-request-params", "name=other")], [("x-goog-request-params", f"parent={PARENT}")]):
        with pytest.raises(grpc.RpcError, match="x-goog-request-params header") as error:
            call(request, metadata=metadata)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_lists(storage: StorageServer) -> None:
    with job_service(storage) as jobs:
        uris = [f"gs://{BUCKET}/none"]
        made = [jobs.create(request_for(jobs.local.model, uris, run=str(k % 2), all="x")).name for k in range(7)]
        other = jobs.create(request_for(jobs.local.model, uris, all="x"), "projects/other/locations/local").name
        for name in [*made, other]:
            jobs.ended(name)

        def listed(**request: Any) -> list[str]:
            pages = list(jobs.client.list_batch_prediction_jobs(request={"parent": PARENT, **request}).pages)
            size = request.get("page_size", 100)
            assert all(len(page.batch_prediction_jobs) == size for page in pages[:-1])
            return [job.name for page in pages for job in page.batch_prediction_jobs]

        assert listed() == listed(page_size=3) == listed(page_size=7) == listed(page_size=1000) == made[::-1]
        assert listed(filter='labels.run="1" AND labels.all=x', page_size=2) == made[1::2][::-1]
        assert listed(filter='state="JOB_STATE_FAILED"') == made[::-1]
        assert listed(filter='state="JOB_STATE_RUNNING"') == []
        assert listed(parent="projects/other/locations/local") == [other]
        status, content = rest(
            jobs.local, "GET", f"{PARENT}/batchPredictionJobs", filter="labels.run=1", pageSize="2", pageToken=""
        )
        page = ParseDict(content, ListBatchPredictionJobsResponse.pb()())
        assert (status, [job.name for job in page.batch_prediction_jobs]) == (200, [made[5], made[3]])
        following = rest(
            jobs.local,
            "GET",
            f"{PARENT}/batchPredictionJobs",
            filter="labels.run=1",
            pageToken=content["nextPageToken"],
        )[1]
        assert [job["name"] for job in following["batchPredictionJobs"]] == [made[1]]
        assert "nextPageToken" not in following


def test_over_http(jobs: Jobs, storage: StorageServer, log: Path) -> None:
    asked = request_for(f"{jobs.local.model}@1", [f"gs://{BUCKET}/in/a.jsonl"], a="b")
    path = f"{PARENT}/batchPredictionJobs"
    status, made = rest(jobs.local, "POST", path, json.loads(BatchPredictionJob.to_json(asked)))
    assert (status, made["state"], made["labels"]) == (200, "JOB_STATE_PENDING", {"a": "b"})
    assert jobs.ended(made["name"]).state is JobState.JOB_STATE_SUCCEEDED
    status, content = rest(jobs.local, "GET", made["name"])
    assert status == 200
    assert ParseDict(content, BatchPredictionJob.pb()()) == BatchPredictionJob.pb(jobs.get(made["name"]))
    assert content["completionStats"] == {"successfulCount": "5"}
    created = next(line for line in arrivals(log) if line["job"] == made["name"])
    assert (created["transport"], created["model"]) == ("rest", f"{jobs.local.model}@1")
    for method, where, body, expected in (
        ("GET", f"{path}/1", None, (404, "NOT_FOUND")),
        ("GET", f"{path}/x", None, (400, "INVALID_ARGUMENT")),
        ("POST", path, {"no": "field"}, (400, "INVALID_ARGUMENT")),
        ("POST", path, ["list"], (400, "INVALID_ARGUMENT")),
        ("POST", f"{made['name']}:cancel", {}, (400, "FAILED_PRECONDITION")),
        ("POST", f"{made['name']}:stop", {}, (404, "NOT_FOUND")),
        ("DELETE", made["name"], None, (404, "NOT_FOUND")),
        ("GET", f"{path}?order=x", None, (400, "INVALID_ARGUMENT")),
        ("GET", f"{path}?pageSize=x", None, (400, "INVALID_ARGUMENT")),
    ):
        status, content = rest(jobs.local, method, where, body)
        assert (status, content["error"]["status"]) == expected, where


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_job_is_cancelled(storage: StorageServer, tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with job_service(storage, "least_s=3600", arrivals_log=log) as jobs:
        name = jobs.create(request_for(jobs.local.model, [f"gs://{BUCKET}/in/*.jsonl"])).name
        wait_until(lambda: jobs.get(name).completion_stats.successful_count > 0)
        assert jobs.get(name).state is JobState.JOB_STATE_RUNNING
        if transport == "grpc":
            jobs.client.cancel_batch_prediction_job(name=name)
        else:
            assert rest(jobs.local, "POST", f"{name}:cancel", {}) == (200, {})
        job = jobs.ended(name)
        assert (job.state, job.error.code) == (JobState.JOB_STATE_CANCELLED, 1)
        assert job.completion_stats.incomplete_count == -1
        written = [place(row["instance"]) for row in flat(rows(storage, job))]
        assert 0 < len(written) < 12
        with pytest.raises(exceptions.FailedPrecondition, match="it is in JOB_STATE_CANCELLED"):
            jobs.client.cancel_batch_prediction_job(name=name)
        wait_until(lambda: len(arrivals(log)) == 2)
        assert arrivals(log)[-1]["state"] == "JOB_STATE_CANCELLED"
        assert sorted(arrivals(log)[-1]["clips"]) == digests(CLIPS[written])


class BrokenRunner:
    async def run(self, job: Job) -> None:
        raise KeyError


def test_a_mistake_of_this_program_leaves_nobody_waiting(tmp_path: Path) -> None:
    reported: list[BaseException] = []

    async def failed() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        message = MESSAGES["BatchPredictionJob"].FromString(
            BatchPredictionJob.serialize(request_for(DEFAULT_MODEL, [f"gs://{BUCKET}/in/a.jsonl"]))
        )
        with ArrivalsLog(tmp_path / "log") as log:
            service = JobService(JobSettings(), BrokenRunner(), log)  # type: ignore[arg-type]
            made = await service.create("grpc", PARENT, message)
            while not service.get(made.name).HasField("end_time"):
                await asyncio.sleep(0.01)
        return service.get(made.name)

    job = asyncio.run(failed())
    gc.collect()
    assert (job.state, job.error.code) == (JobState.JOB_STATE_FAILED, 13)
    assert [type(error) for error in reported] == [KeyError]
    assert [line["job_event"] for line in arrivals(tmp_path / "log")] == ["created", "ended"]


def test_without_a_storage_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    said = "start the local endpoint with --storage_host"
    with (
        start_local_endpoint() as local,
        asking(local) as jobs,
        pytest.raises(exceptions.FailedPrecondition, match=said),
    ):
        jobs.create(request_for(local.model, [f"gs://{BUCKET}/in/a.jsonl"]))


def test_models_have_the_names_that_are_asked_for(storage: StorageServer) -> None:
    model, garden_model = (f"projects/p/locations/us-west1/models/{name}" for name in ("raw", "garden"))
    with job_service(storage, model=model, garden_model=garden_model) as jobs:
        assert (jobs.local.model, jobs.local.garden_model) == (model, garden_model)
        parent = "projects/mine/locations/us-west1"
        for name, uri in ((model, "in/a.jsonl"), (garden_model, "garden.jsonl")):
            job = jobs.create(request_for(name, [f"gs://{BUCKET}/{uri}"]), parent)
            assert jobs.ended(job.name).completion_stats.failed_count == 0
