"""The real command submits to a stand-in for Dataflow; what it has staged there is run as workers would."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import soundfile
from apache_beam.portability.api import beam_runner_api_pb2

from rows.generations import MERGED_AT_ONCE
from tests.cloud.bigquery import DATASET, PROJECT, BigQueryServer, proxied_bigquery
from tests.cloud.secrets import find_secrets
from tests.cloud.token_server import CLIENT_SECRET, REFRESH_TOKEN
from tests.e2e.clean_environment import build_distribution, copy_project, make_environment
from tests.e2e.dataflow_dofns import OF_BATCHES, our_dofns
from tests.e2e.dataflow_world import BUCKET, ROUNDED, OnDataflow, but_for_endpoint, on_dataflow
from tests.e2e.running import (
    REPOSITORY,
    assert_same_rows,
    embeddings,
    failures,
    recordings,
    run_command,
    start_command,
    summary_of,
)

GOLDEN = Path(__file__).with_name("dataflow_request.json")
OURS = re.compile(r"transforms\.")
ROOTS = {"", "ref_AppliedPTransform_AppliedPTransform_1"}
LINK = "https://console.cloud.google.com/dataflow/jobs/us-west1"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnDataflow]:
    with on_dataflow(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def tables(world: OnDataflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    with proxied_bigquery(tmp_path_factory.mktemp("tables"), world.storage.address) as (server, _):
        yield server


class Clean(NamedTuple):
    """An environment in which nothing of this project is but what its source distribution holds."""

    folder: Path
    python: Path


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    folder = tmp_path_factory.mktemp("clean")
    distribution = build_distribution(folder / "built")
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    with tarfile.open(distribution) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    ours = ("audio", "emulator", "endpoint", "pipeline", "rows", "transforms")
    assert {name for name in tracked.stdout.splitlines() if name.startswith(tuple(f"{p}/" for p in ours))} <= names
    return Clean(folder / "environment", make_environment(folder / "environment", distribution))


@pytest.fixture(scope="module")
def here(world: OnDataflow) -> Path:
    """The output's prefix of a local run over the same recordings."""
    prefix = world.folder / "here" / "r"
    local = run_command(*world.arguments("here", output=str(prefix), **LOCAL), **world.environment)
    assert local.returncode == 0, local.stderr
    return prefix


@pytest.fixture(autouse=True)
def _no_jobs_yet(world: OnDataflow) -> None:
    service = world.dataflow
    service.jobs.clear()
    service.requests.clear()
    service.errors.clear()
    service.refuse_with = None
    service.course = ["JOB_STATE_RUNNING"]
    service.on_created = lambda _: None


def normal(text: str) -> str:
    """Without what changes from run to run."""
    text = re.sub(r"hear-[0-9]{8}t[0-9]{6}z-[0-9a-f]{6}", "JOB", text)
    text = re.sub(r"JOB\.[0-9.]+", "JOB.TIME", text)
    text = re.sub(r"localhost:[0-9]+", "localhost:PORT", text)
    return re.sub(r"3\.[0-9]+( SDK|_sdk)", r"3.X\1", text)


def request_summary(job: dict[str, Any], staged: Path) -> dict[str, Any]:
    """What a job was created with: that which is of interest to whoever runs it."""
    environment = dict(job["environment"])
    options = {item["key"]: item["value"] for item in environment.pop("sdkPipelineOptions")["display_data"]}
    (pool,) = environment.pop("workerPools")
    (image,) = pool.pop("sdkHarnessContainerImages")
    components = beam_runner_api_pb2.Pipeline.FromString(staged.read_bytes()).components
    docker = {
        beam_runner_api_pb2.DockerPayload.FromString(value.payload).container_image
        for value in components.environments.values()
    }
    return {
        "name": job["name"],
        "type": job["type"],
        "environment": environment,
        "options": options,
        "workers": pool,
        "image": image["containerImage"],
        "images in the graph": sorted(docker),
        "steps": sorted({step.unique_name.partition("/")[0] for step in components.transforms.values()} - ROOTS),
    }


def test_a_job_is_created_as_written_down_and_gives_the_rows_of_a_local_run_in_a_clean_environment(
    world: OnDataflow, clean: Clean, here: Path, tmp_path: Path
) -> None:
    done = world.command("clean", "--no_wait", max_requests_per_minute="12000")
    assert done.returncode == 0, done.stderr
    job = world.dataflow.job
    assert (
        done.stdout == f"{LINK}/{job['id']}?project=study-1\nits summary will be gs://{BUCKET}/clean/r-summary.json\n"
    )
    assert done.stderr.splitlines()[0].startswith(
        f"job {job['name']} on Dataflow, project study-1, us-west1, as worker@"
    )
    assert done.stderr.splitlines()[1:] == [
        "  2 workers (--max_requests_per_minute 12,000, at most 9,600 from each)",
        "  e2-standard-2, 30 GB, public IP addresses (--no_use_public_ips: private ones only)",
        f"  image {job['environment']['workerPools'][0]['workerHarnessContainerImage']}",
        "  at most 6,000 requests a minute from each worker",
    ]
    assert world.dataflow.requests == ["POST /v1b3/projects/study-1/locations/us-west1/jobs"]

    staged = world.staged_file(job)
    summary = normal(json.dumps(request_summary(job, staged), indent=2, sort_keys=True)) + "\n"
    assert summary == GOLDEN.read_text()
    (tmp_path / "job.json").write_text(json.dumps(job))
    samples, _ = soundfile.read(world.study / "synthetic-cough-01.wav", dtype="float32")
    tokens = [*world.cloud.tokens.values, REFRESH_TOKEN, CLIENT_SECRET]
    assert tokens
    left = [tmp_path / "job.json", staged, world.folder / "storage" / BUCKET]
    assert find_secrets(left, tokens=tokens, samples=[samples]) == []

    ran = world.run_staged(job, clean.python)
    assert all(Path(path).is_relative_to(clean.folder) for path in ran["modules"].values())
    assert {"transforms", "audio", "endpoint", "rows"} <= ran["modules"].keys()

    there = world.fetch("clean")
    assert_same_rows(embeddings(there), embeddings(here))
    assert recordings(there) == recordings(here)
    assert failures(there) == failures(here)
    mine, its = summary_of(here), summary_of(there)
    same = ("recordings", "clips", "embedded", "failed", "skipped_by_reason", "failures_by_stage", "requests", "rows")
    assert {name: mine[name] for name in same} == {name: its[name] for name in same}
    assert "transforms.list_recordings._ListInputs" in ran["dofns"]
    assert ran["counters"]["embed/embedded"] == mine["embedded"] == len(embeddings(here)) > 40


def test_every_dofn_runs_in_a_clean_environment(world: OnDataflow, clean: Clean, tables: BigQueryServer) -> None:
    """Those that a manifest needs, and tables, and a checkpoint with so many generations that they are merged."""
    first = world.command("all", **LOCAL)
    assert first.returncode == 0, first.stderr
    (run,) = {name.split("/")[2] for name in world.storage.names(BUCKET, "all/r-checkpoint/2")}
    for name in world.storage.names(BUCKET, f"all/r-checkpoint/{run}/"):
        data, _ = world.storage.content(BUCKET, name)
        for copy in range(1, MERGED_AT_ONCE):
            world.storage.upload(BUCKET, name.replace(run, f"2025010{copy}T000000Z-000000"), data)
    rows = [f"gs://clinic/study/{path.name},{path.suffix}" for path in world.study.iterdir()]
    world.storage.upload("clinic", "labels.csv", "\n".join(["uri,label", *rows]).encode())
    table = f"{PROJECT}:{DATASET}.all"
    arguments = world.arguments("all", "--no_wait", input=None, manifest="gs://clinic/labels.csv", output_table=table)
    launcher = {**world.environment, "BIGQUERY_EMULATOR_HOST": tables.environment["BIGQUERY_EMULATOR_HOST"]}
    launched = run_command(*arguments, **launcher)
    assert launched.returncode == 0, launched.stderr
    ran = world.run_staged(world.dataflow.job, clean.python, **tables.environment)
    assert all(Path(path).is_relative_to(clean.folder) for path in ran["modules"].values())
    elsewhere = {"transforms.list_recordings._ListInputs", *OF_BATCHES}
    assert our_dofns() - elsewhere == set(filter(OURS.match, ran["dofns"]))
    assert not ran["counters"].get("embed/requests"), "all is reused"
    labels = {row["clip_id"]: row["metadata"]["label"] for row in tables.rows("all")}
    assert labels == {clip: Path(row["recording_uri"]).suffix for clip, row in embeddings(world.fetch("all")).items()}
    assert len(labels) == 50
    stored = [name for name in world.storage.names(BUCKET, "all/r-checkpoint/") if name.endswith(".rows")]
    assert all("-merged1/" in name for name in stored)


def test_a_batch_that_nobody_waits_for_is_submitted_and_closed_by_its_graphs_in_a_clean_environment(
    world: OnDataflow, clean: Clean, tmp_path: Path
) -> None:
    dofns: set[str] = set()

    def write_step() -> dict[str, Any]:
        launched = world.command("alone", "--no_wait", batch_step="write", job_name="hear-alone", **world.batch)
        assert launched.returncode == 0, launched.stderr
        assert launched.stdout.splitlines()[1:] == [
            "it submits a batch prediction job if clips are missing: once that has ended, start the step join"
        ]
        *_, job = world.dataflow.jobs.values()
        assert job["name"] == "hear-alone"
        ran = world.run_staged(job, clean.python)
        assert all(Path(path).is_relative_to(clean.folder) for path in ran["modules"].values())
        dofns.update(ran["dofns"])
        job["states"] = ["JOB_STATE_DONE"]
        return job

    job = write_step()
    (prediction,) = world.ended_predictions("alone")
    assert prediction["state"] == "JOB_STATE_SUCCEEDED"
    (tmp_path / "job.json").write_text(json.dumps([job, prediction]))
    samples, _ = soundfile.read(world.study / "synthetic-cough-01.wav", dtype="float32")
    tokens = [*world.cloud.tokens.values, REFRESH_TOKEN, CLIENT_SECRET]
    staged = [tmp_path / "job.json", world.staged_file(job), world.folder / "storage" / BUCKET]
    assert find_secrets(staged, tokens=tokens, samples=[samples]) == []
    assert len(names := [name for name in world.storage.names("staging") if "hear-staged" in name]) > 2
    assert (
        find_secrets([world.folder / "storage" / "staging" / name for name in names], tokens=tokens, samples=[]) == []
    )

    # The step join has not been started: another step write stores the results, and finds that nothing is missing.
    write_step()
    assert len(world.ended_predictions("alone")) == 1
    assert not [name for name in world.storage.names("staging") if "hear-staged" in name]
    assert dofns >= OF_BATCHES
    # A run that sends clips in requests finds all of them there, and no job in its way.
    here = {**LOCAL, "output": str(tmp_path / "rest"), "dataflow_endpoint": world.dataflow.address}
    rest = world.command("alone", checkpoint=f"gs://{BUCKET}/alone/r-checkpoint", **here)
    assert rest.returncode == 0, rest.stderr
    assert summary_of(tmp_path / "rest")["reused"] == len(embeddings(tmp_path / "rest")) == 50


def test_a_batch_is_two_jobs_that_are_followed_one_after_the_other(world: OnDataflow, here: Path) -> None:
    service = world.dataflow
    service.course = ["JOB_STATE_DONE"]
    leases = []

    def work(job: dict[str, Any]) -> None:
        leases.append(json.loads(world.storage.content(BUCKET, "two/r-checkpoint/lease.json")[0])["job"])
        world.run_staged(job)

    service.on_created = work
    done = world.command("two", **world.batch)
    assert done.returncode == 0, done.stderr
    first, second = service.jobs.values()
    run = first["name"].removesuffix("-write")
    assert second["name"] == f"{run}-join"
    assert leases == [["study-1", "us-west1", job["name"], ""] for job in (first, second)]
    graphs = [world.staged_file(job) for job in (first, second)]
    tokens = [*world.cloud.tokens.values, REFRESH_TOKEN, CLIENT_SECRET]
    assert find_secrets(graphs, tokens=tokens, samples=[]) == []
    said = done.stderr.splitlines()
    written = said.index("50 clips are written for a batch prediction job (14 MB)")
    assert said.index(f"job {first['id']} is done") < written < said.index(f"job {second['id']} is done")
    assert len(world.ended_predictions("two")) == 1
    assert "50" in done.stdout
    assert "two/r-checkpoint/lease.json" not in world.storage.names(BUCKET)
    assert not [name for name in world.storage.names("staging") if "hear-staged" in name]
    there = world.fetch("two")
    assert_same_rows(but_for_endpoint(there), but_for_endpoint(here), tolerance=ROUNDED)
    assert recordings(there) == recordings(here)
    assert failures(there) == failures(here)


LOCAL = {
    "runner": None,
    "project": None,
    "region": None,
    "temp_location": None,
    "service_account_email": None,
    "sdk_container_image": None,
    "dataflow_endpoint": None,
}


def test_a_job_is_followed_to_its_end_and_its_summary_printed(world: OnDataflow) -> None:
    service = world.dataflow
    service.course = ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    service.on_created = world.run_staged
    first = world.command("followed")
    assert first.returncode == 0, first.stderr
    identity = service.job["id"]
    assert f"{LINK}/{identity}?project=study-1" in first.stderr
    assert [line for line in first.stderr.splitlines() if line.startswith(f"job {identity}")] == [
        f"job {identity} is {state}" for state in ("pending", "running", "done")
    ]
    assert "50" in first.stdout
    assert f"gs://{BUCKET}/followed/r-00000-of-00001.parquet" in first.stdout
    names = world.storage.names(BUCKET, "followed/")
    assert "followed/r-checkpoint/lease.json" not in names
    # Another run goes on from the checkpoint, and what it does not write again is gone afterwards, whoever removes it.
    stale = "followed/r-00000-of-00009.parquet"
    world.storage.upload(BUCKET, stale, b"of an earlier run")
    service.jobs.clear()
    again = world.command("followed", "--delete_checkpoint")
    assert again.returncode == 0, again.stderr
    assert "50 reused from the checkpoint" in again.stdout
    names = world.storage.names(BUCKET, "followed/")
    assert stale not in names
    assert not [name for name in names if "checkpoint" in name]
    assert len(embeddings(world.fetch("followed"))) == 50


def test_a_job_that_fails_is_one_line_and_leaves_the_checkpoint_to_the_next_run(
    world: OnDataflow, tmp_path: Path
) -> None:
    service = world.dataflow
    service.course = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.errors = ["endpoint.errors.RunEnded: The endpoint is not there. [while running 'Embed']\nya29.TEST-secret"]
    setup_file = str(copy_project(tmp_path / "copy") / "setup.py")
    failed = world.command("failing", setup_file=setup_file, sdk_container_image=None)
    assert failed.returncode == 1
    assert f"  installed from {setup_file}" in failed.stderr
    (pool,) = service.job["environment"]["workerPools"]
    assert "workflow.tar.gz" in {package["name"] for package in pool["packages"]}
    identity = service.job["id"]
    assert failed.stderr.splitlines()[-1] == (
        f"python -m pipeline: error: the job {service.job['name']} ({identity}) on Dataflow ended as failed: The endpoint is not "
        f"there (more at {LINK}/{identity}?project=study-1)"
    )
    assert "ya29" not in failed.stderr
    assert "failing/r-checkpoint/lease.json" not in world.storage.names(BUCKET)


def test_while_a_job_is_at_work_its_checkpoint_is_refused_to_others(world: OnDataflow) -> None:
    service = world.dataflow
    assert world.command("busy", "--no_wait", job_name="hear-daily").returncode == 0
    identity = service.job["id"]
    refused = world.command("busy", runner="DirectRunner")
    assert refused.returncode == 1
    assert f"(job hear-daily ({identity}) on Dataflow, project study-1, us-west1" in refused.stderr.splitlines()[-1]
    assert f"{LINK}/{identity}?project=study-1" in refused.stderr.splitlines()[-1]
    service.job["states"] = ["JOB_STATE_CANCELLED"]
    assert world.command("busy", "--no_wait", job_name="hear-daily").returncode == 0
    assert len(service.jobs) == 2


def test_staged_clips_of_a_job_that_nobody_waits_for_are_its_own_to_remove(world: OnDataflow) -> None:
    uris = {"endpoint": world.local.uri_endpoint, "send": "uris", "staging_location": "gs://staging/clips"}
    launched = world.command("uris", "--full_scope_tokens", "--no_wait", **uris)
    assert launched.returncode == 0, launched.stderr
    job = world.dataflow.job
    assert job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].startswith("gs://staging/clips/hear-")
    # As if a worker had been lost in the middle of its work.
    run = job["name"].removeprefix("hear-").replace("t", "T").replace("z", "Z")
    world.storage.upload("staging", f"clips/hear-staged-{run}/left.wav", b"a clip")
    world.run_staged(job)
    assert summary_of(world.fetch("uris"))["staged_clips"] > 40
    assert not [name for name in world.storage.names("staging") if "hear-staged" in name]


def test_ctrl_c_leaves_the_job_at_work(world: OnDataflow) -> None:
    process = start_command(*world.arguments("interrupted"), **world.environment)
    deadline = time.monotonic() + 60
    while not any(request.startswith("GET") for request in world.dataflow.requests):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    identity = world.dataflow.job["id"]
    assert f"interrupted: the job goes on, see {LINK}/{identity}?project=study-1" in said.splitlines()[-1]
    assert f"gcloud dataflow jobs cancel {identity} --region=us-west1 --project=study-1" in said.splitlines()[-1]
    assert not [request for request in world.dataflow.requests if request.startswith("PUT")]
    lease = json.loads(world.storage.content(BUCKET, "interrupted/r-checkpoint/lease.json")[0])
    assert lease["job"] == ["study-1", "us-west1", world.dataflow.job["name"], identity]


def test_a_template_is_written_and_its_job_has_the_lease(world: OnDataflow) -> None:
    location = f"gs://{BUCKET}/templates/graph.json"
    written = world.command("template", job_name="hear-from-template", template_location=location)
    assert written.returncode == 0, written.stderr
    assert written.stdout == (
        "the graph is written, for a job named hear-from-template\n"
        f"its summary will be gs://{BUCKET}/template/r-summary.json\n"
    )
    assert not world.dataflow.requests
    job = json.loads(world.storage.content(BUCKET, "templates/graph.json")[0])
    lease = json.loads(world.storage.content(BUCKET, "template/r-checkpoint/lease.json")[0])
    assert lease["job"] == ["study-1", "us-west1", "hear-from-template", ""]
    # The launcher creates the job.
    world.dataflow.add_job("hear-from-template", "JOB_STATE_RUNNING")
    refused = world.command("template", "--no_wait")
    assert refused.returncode == 1
    assert "(job hear-from-template on Dataflow" in refused.stderr.splitlines()[-1]
    assert job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].startswith(f"gs://{BUCKET}/temp/")


def test_a_refused_job_is_one_line_and_leaves_nothing_in_the_way(world: OnDataflow) -> None:
    world.dataflow.refuse_with = 403
    refused = world.command("refused")
    assert refused.returncode == 1
    assert "could not be submitted to Dataflow (HTTP 403)" in refused.stderr.splitlines()[-1]
    assert "worker@study-1.iam.gserviceaccount.com" in refused.stderr.splitlines()[-1]
    assert "refused Bearer" not in refused.stderr
    assert not [token for token in world.cloud.tokens.values if token in refused.stderr]
    assert "refused/r-checkpoint/lease.json" not in world.storage.names(BUCKET)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            {"temp_location": "gs://no-such-bucket/temp"},
            "--temp_location is 'gs://no-such-bucket/temp': there is no bucket 'no-such-bucket': make it, or name another",
        ),
        (
            {"staging_location": "gs://staging/packages"},
            "--staging_location is 'gs://staging/packages': writing was refused (HTTP 403): grant storage.objects.create on the bucket "
            "'staging'",
        ),
    ],
    ids=["missing", "forbidden"],
)
def test_a_place_that_cannot_take_the_jobs_files_is_one_line(
    world: OnDataflow, location: dict[str, str], said: str
) -> None:
    world.proxy.inject(r"^POST /upload/storage/v1/b/staging/", status=403, times=-1)
    refused = world.command("nowhere", **location)
    world.proxy.clear()
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (2, f"python -m pipeline: error: {said}")
    assert not world.dataflow.requests
    assert "nowhere/r-checkpoint/lease.json" not in world.storage.names(BUCKET)
