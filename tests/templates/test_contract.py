"""A launch from beginning to end: the entry point as the launcher runs it, the job as the launcher creates it, its work, its rows."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.bigquery import DATASET, PROJECT, BigQueryServer, proxied_bigquery
from tests.cloud.secrets import find_secrets
from tests.cloud.token_server import CLIENT_SECRET, REFRESH_TOKEN
from tests.e2e.dataflow_world import BUCKET, IMAGE, ROUNDED, OnDataflow, but_for_endpoint, on_dataflow
from tests.e2e.running import assert_same_rows, embeddings, failures, recordings, succeed, summary_of
from tests.templates.launcher import LAUNCH, start_entry_point

GRAPH = "staging/template_launches/2026-01-01_00_00_00-1/job_object"
LAUNCHED = {
    **LAUNCH,
    "project": "study-1",
    "job_name": "hear-nightly",
    "service_account_email": "worker@study-1.iam.gserviceaccount.com",
    "staging_location": f"gs://{BUCKET}/staging",
    "temp_location": f"gs://{BUCKET}/temp",
    "template_location": f"gs://{BUCKET}/{GRAPH}",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnDataflow]:
    with on_dataflow(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def tables(world: OnDataflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    with proxied_bigquery(tmp_path_factory.mktemp("tables"), world.storage.address) as (server, _):
        yield server


@pytest.fixture(scope="module")
def here(world: OnDataflow) -> Path:
    """The output's prefix of a local run over the same recordings."""
    prefix = world.folder / "here" / "r"
    prefix.parent.mkdir()
    where = ("--endpoint", world.local.endpoint_name, "--endpoint_host", world.local.host)
    succeed(
        *(*where, "--input", "gs://clinic/study/**", "--output", prefix, "--output_format", "parquet"),
        **world.environment,
    )
    return prefix


def create(world: OnDataflow, graph: bytes) -> dict[str, Any]:
    """Creates the job of a graph, as the launcher does."""
    jobs = f"{world.dataflow.address}/v1b3/projects/study-1/locations/us-west1/jobs"
    request = urllib.request.Request(jobs, graph, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read())["name"] == json.loads(graph)["name"]
    *_, job = world.dataflow.jobs.values()
    return job


def test_a_launch(world: OnDataflow, tables: BigQueryServer, here: Path, tmp_path: Path) -> None:
    environment = {**world.environment, "BIGQUERY_EMULATOR_HOST": tables.environment["BIGQUERY_EMULATOR_HOST"]}
    parameters = {
        "endpoint": world.local.endpoint_name,
        "endpoint_host": world.local.host,
        "input": "gs://clinic/study/**",
        "output": f"gs://{BUCKET}/nightly/r",
        "output_format": "parquet",
        "output_table": f"{PROJECT}:{DATASET}.nightly",
        "overwrite": "false",
        "max_requests_per_minute": "12000",
        "sdk_container_image": IMAGE,
    }
    written = start_entry_point(tmp_path, parameters, environment, launch=LAUNCHED)
    assert written.returncode == 0, written.stderr
    assert "Traceback" not in written.stderr
    assert f"gs://{BUCKET}/nightly/r-summary.json" in written.stdout
    assert not world.dataflow.requests  # the launcher creates the job, not the entry point

    graph, _ = world.storage.content(BUCKET, GRAPH)
    tokens = [*world.cloud.tokens.values, REFRESH_TOKEN, CLIENT_SECRET]
    (tmp_path / "graph").write_bytes(graph)
    said = tmp_path / "said"
    said.write_text(written.stdout + written.stderr)
    assert find_secrets([tmp_path / "graph", said, world.folder / "storage" / BUCKET], tokens=tokens, samples=[]) == []

    job = create(world, graph)
    assert job["name"] == "hear-nightly"
    (pool,) = job["environment"]["workerPools"]
    assert (pool["workerHarnessContainerImage"], pool["numWorkers"]) == (IMAGE, 2)
    assert job["environment"]["serviceAccountEmail"] == LAUNCHED["service_account_email"]

    # Another launch on the checkpoint is refused while the job is at work, with where to look for it.
    again = {**LAUNCHED, "job_name": "hear-nightly-2", "dataflow_endpoint": world.dataflow.address}
    refused = start_entry_point(tmp_path, parameters, environment, launch=again)
    assert refused.returncode == 1
    assert "(job hear-nightly on Dataflow, project study-1, us-west1" in refused.stderr.splitlines()[-1]

    world.run_staged(job, **tables.environment)
    there = world.fetch("nightly")
    assert_same_rows(embeddings(there), embeddings(here))
    assert recordings(there) == recordings(here)
    assert failures(there) == failures(here)
    assert summary_of(there)["embedded"] == len(embeddings(here)) > 40
    by_clip = {row["clip_id"]: row["embedding"] for row in tables.rows("nightly")}
    assert by_clip == {clip_id: row["embedding"].tolist() for clip_id, row in embeddings(there).items()}
    assert tables.tables() == {"nightly", "nightly_recordings", "nightly_failures"}

    # Once it has ended, the next launch goes on from the checkpoint.
    job["currentState"] = "JOB_STATE_DONE"
    third = start_entry_point(tmp_path, parameters, environment, launch=again)
    assert third.returncode == 0, third.stderr


def test_a_batch_in_two_launches(world: OnDataflow, here: Path, tmp_path: Path) -> None:
    said = {}
    for step in ("write", "join"):
        parameters = {
            "send": "batch",
            "batch_step": step,
            "batch_model": world.local.model,
            "endpoint_host": world.local.host,
            "input": "gs://clinic/study/**",
            "output": f"gs://{BUCKET}/batch/r",
            "output_format": "parquet",
            "sdk_container_image": IMAGE,
        }
        graph = f"staging/template_launches/{step}/job_object"
        launch = {**LAUNCHED, "job_name": f"hear-{step}-1", "template_location": f"gs://{BUCKET}/{graph}"}
        # Only for the test is there another address for Dataflow: here the lease's last job is asked about.
        launch["dataflow_endpoint"] = world.dataflow.address
        written = start_entry_point(tmp_path, parameters, world.environment, launch=launch)
        assert written.returncode == 0, written.stderr
        said[step] = written.stdout
        job = create(world, world.storage.content(BUCKET, graph)[0])
        assert job["name"] == f"hear-{step}-1"
        world.run_staged(job)
        job["currentState"] = "JOB_STATE_DONE"
        (prediction,) = world.ended_predictions("batch")
        assert prediction["state"] == "JOB_STATE_SUCCEEDED"
    assert said == {
        "write": "the graph is written, for a job named hear-write-1\n"
        "it submits a batch prediction job if clips are missing: once that has ended, start the step join\n",
        "join": f"the graph is written, for a job named hear-join-1\nits summary will be gs://{BUCKET}/batch/r-summary.json\n",
    }
    there = world.fetch("batch")
    assert_same_rows(but_for_endpoint(there), but_for_endpoint(here), tolerance=ROUNDED)
    assert recordings(there) == recordings(here)
    assert failures(there) == failures(here)
    summary = summary_of(there)
    assert (summary["embedded"], summary["staged_clips"], summary["requests"]) == (50, 50, 0)
    assert [job["state"] for job in summary["batch_jobs"]] == ["succeeded"]
    assert not [name for name in world.storage.names(BUCKET) if "hear-staged" in name]
