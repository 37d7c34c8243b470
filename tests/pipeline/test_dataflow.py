"""What a run on Dataflow is given, and refused for."""

from __future__ import annotations

from importlib import metadata

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

from pipeline.command import WRONG_USAGE, main
from pipeline.dataflow import described, worker_cores
from pipeline.options import Arguments, parse
from pipeline.usage import UsageError
from pipeline.worker_pool import WorkerPool, clips_per_request, requests_of_a_worker
from tests.pipeline.test_structure import REPOSITORY

IMAGE = f"us-west1-docker.pkg.dev/p/hear/pipeline@sha256:{'0a' * 32}"
GIVEN = {
    "runner": "DataflowRunner",
    "input": "gs://clinic/coughs",
    "output": "gs://results/study/r",
    "endpoint": "research",
    "project": "study-1",
    "region": "us-west1",
    "temp_location": "gs://results/temp",
    "service_account_email": "worker@study-1.iam.gserviceaccount.com",
    "sdk_container_image": IMAGE,
}


def line(*more: str, **changes: str | None) -> list[str]:
    """A command line for Dataflow, with some options changed; None leaves one out."""
    return [f"--{name}={value}" for name, value in (GIVEN | changes).items() if value is not None] + list(more)


def parsed(*more: str, **changes: str | None) -> Arguments:
    return parse(line(*more, **changes))


def pool(*more: str, **changes: str | None) -> WorkerPool:
    found = parsed(*more, **changes).pool
    assert found is not None
    return found


def refused(*more: str, **changes: str | None) -> str:
    with pytest.raises(UsageError) as error:
        parsed(*more, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_left_open_is_filled_in() -> None:
    arguments = parsed()
    workers, cloud = arguments.beam.view_as(WorkerOptions), arguments.beam.view_as(GoogleCloudOptions)
    debug = arguments.beam.view_as(DebugOptions)
    # 30,000 a minute from 32 in flight of 0.2 s each: 9,600 a worker.
    assert (workers.num_workers, workers.max_num_workers, workers.autoscaling_algorithm) == (4, 4, "NONE")
    assert (workers.machine_type, workers.disk_size_gb, workers.use_public_ips) == ("e2-standard-2", 30, None)
    assert debug.number_of_worker_harness_threads == 2
    assert debug.experiments == ["no_use_multiple_sdk_containers", "disable_always_on_exception_sampling"]
    assert cloud.staging_location == cloud.temp_location == "gs://results/temp"
    assert cloud.job_name == f"hear-{arguments.run.run_id.lower()}"
    assert arguments.run.decoder_processes == 1
    assert arguments.waits
    assert arguments.pool is not None
    said = described(arguments.beam, arguments.pool)
    assert said == [
        f"job {cloud.job_name} on Dataflow, project study-1, us-west1, as worker@study-1.iam.gserviceaccount.com",
        "  4 workers (Vertex's usual quota of 30,000 requests a minute, at most 9,600 from each)",
        "  e2-standard-2, 30 GB, public IP addresses (--no_use_public_ips: private ones only)",
        f"  image {IMAGE}",
    ]


def test_what_the_user_has_chosen_stays() -> None:
    arguments = parsed(
        "--no_use_public_ips",
        "--no_wait",
        num_workers="2",
        machine_type="n2-standard-8",
        disk_size_gb="50",
        number_of_worker_harness_threads="1",
        experiments="mine",
        staging_location="gs://results/packages",
        job_name="hear-daily",
        worker_zone="us-west1-a",
    )
    workers, cloud = arguments.beam.view_as(WorkerOptions), arguments.beam.view_as(GoogleCloudOptions)
    assert (workers.num_workers, workers.max_num_workers, workers.machine_type) == (2, 2, "n2-standard-8")
    assert (workers.disk_size_gb, workers.use_public_ips, workers.worker_zone) == (50, False, "us-west1-a")
    assert arguments.beam.view_as(DebugOptions).number_of_worker_harness_threads == 1
    assert arguments.beam.view_as(DebugOptions).experiments[0] == "mine"
    assert (cloud.staging_location, cloud.job_name) == ("gs://results/packages", "hear-daily")
    assert arguments.run.staging_location is None, "nothing is staged but the job's own files"
    assert arguments.run.decoder_processes == 4
    assert not arguments.waits
    assert arguments.pool is not None
    said = described(arguments.beam, arguments.pool)
    assert "  2 workers (--num_workers)" in said
    assert "  n2-standard-8, 50 GB, private IP addresses" in said


def test_clips_and_packages_share_a_staging_location() -> None:
    arguments = parsed(send="uris", staging_location="gs://staging/clips")
    assert arguments.run.staging_location == "gs://staging/clips"
    assert arguments.beam.view_as(GoogleCloudOptions).staging_location == "gs://staging/clips"


@pytest.mark.parametrize(
    ("machine_type", "cores"),
    [
        (None, 2),
        ("e2-standard-2", 2),
        ("n1-highmem-16", 16),
        ("n2-custom-4-8192", 4),
        ("e2-medium", 2),
        ("zones/z/machineTypes/c3-standard-22", 22),
    ],
)
def test_a_machine_types_name_says_how_many_processors_it_has(machine_type: str | None, cores: int) -> None:
    options = PipelineOptions([])
    options.view_as(WorkerOptions).machine_type = machine_type
    assert worker_cores(options) == cores


GARDEN = {"endpoint": "projects/p/locations/us-central1/endpoints/7", "instance_format": "model_garden"}
URIS = {"send": "uris", "staging_location": "gs://staging/clips"}


@pytest.mark.parametrize(
    ("changes", "clips", "requests"),
    [
        ({}, 4, 9600),
        ({"clips_per_request": "1"}, 1, 9600),
        ({"requests_in_flight": "64"}, 4, 10_000),
        ({"requests_in_flight": "8"}, 4, 2400),
        ({"transport": "rest"}, 4, 9600),
        (GARDEN, 17, 40_000 / 17),
        (GARDEN | {"max_request_bytes": "10000000"}, 117, 40_000 / 117),
        (URIS, 640, 62.5),
    ],
)
def test_a_worker_sends_what_is_in_flight_or_what_its_processor_makes(
    changes: dict[str, str], clips: int, requests: float
) -> None:
    run = parsed(**changes).run
    assert clips_per_request(run) == clips
    assert requests_of_a_worker(run) == pytest.approx(requests)


@pytest.mark.parametrize(
    ("changes", "workers", "share"),
    [
        ({"max_requests_per_minute": "600"}, 1, 600),
        ({"max_requests_per_minute": "9600"}, 1, 9600),
        ({"max_requests_per_minute": "9601"}, 2, 4800),
        ({"max_requests_per_minute": "20000.9"}, 3, 6666),
        ({"max_requests_per_minute": "20000", "max_num_workers": "2"}, 2, 10_000),
        ({"max_requests_per_minute": "5", "num_workers": "5"}, 5, 1),
        ({"max_requests_per_minute": "600"} | URIS, 10, 60),
        ({"max_requests_per_minute": "1300"} | URIS, 21, 61),
        (URIS, 10, None),
        (GARDEN | {"max_request_bytes": "10000000"}, 10, None),
        ({"num_workers": "7"}, 7, None),
    ],
)
def test_the_quota_feeds_so_many_workers_and_the_limit_is_divided_among_them(
    changes: dict[str, str], workers: int, share: int | None
) -> None:
    found = pool(**changes)
    assert (found.workers, found.requests_per_minute, found.is_fixed) == (workers, share, True)
    limit = float(changes.get("max_requests_per_minute", "inf"))
    assert share is None or share * workers <= limit, "a worker keeps to a whole number"


def test_more_workers_than_the_quota_feeds_are_a_note() -> None:
    arguments = parsed(num_workers="6", max_requests_per_minute="9000")
    assert arguments.pool is not None
    assert arguments.pool.wasted == 5
    said = described(arguments.beam, arguments.pool)
    assert said[-2:] == [
        "  at most 1,500 requests a minute from each worker",
        "  note: the quota feeds 1 of them: the others will cost and wait",
    ]
    assert not pool(num_workers="20", **URIS).wasted, "nobody knows what the endpoint lets through"


def test_with_autoscaling_the_limit_is_divided_by_the_most_workers() -> None:
    arguments = parsed(
        autoscaling_algorithm="THROUGHPUT_BASED", max_num_workers="3", max_requests_per_minute="1000", num_workers="2"
    )
    assert arguments.pool is not None
    assert (arguments.pool.workers, arguments.pool.requests_per_minute, arguments.pool.is_fixed) == (3, 333, False)
    workers = arguments.beam.view_as(WorkerOptions)
    assert (workers.num_workers, workers.max_num_workers) == (2, 3)
    assert "  up to 3 workers (--max_num_workers)" in described(arguments.beam, arguments.pool)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"project": None}, ["--project is missing", "my-project"]),
        ({"project": "123456789"}, ["--project is '123456789'", "id"]),
        ({"region": None}, ["--region is missing", "us-west1"]),
        ({"region": "us-west1-a"}, ["--region is 'us-west1-a'"]),
        ({"temp_location": None}, ["--temp_location is missing", "gs://bucket/temp"]),
        ({"temp_location": "/tmp"}, ["--temp_location is '/tmp'", "gs://bucket/temp"]),
        ({"temp_location": "gs://results"}, ["--temp_location is 'gs://results'", "folder"]),
        ({"service_account_email": None}, ["--service_account_email is missing", "templates/README.md"]),
        ({"service_account_email": "worker"}, ["--service_account_email is 'worker'"]),
        ({"sdk_container_image": None}, ["--sdk_container_image is missing", "digest", "--setup_file"]),
        (
            {"sdk_container_image": "us-docker.pkg.dev/p/r/i:latest"},
            ["--sdk_container_image is 'us-docker.pkg.dev/p/r/i:latest'", "digest", "a tag can be moved"],
        ),
        ({"sdk_container_image": IMAGE[:-1]}, ["--sdk_container_image is", "digest"]),
        ({"worker_harness_container_image": IMAGE}, ["--worker_harness_container_image", "--sdk_container_image"]),
        (
            {"setup_file": "setup.py", "sdk_container_image": None, "resampler": "tensorflow_io"},
            ["--resampler is 'tensorflow_io'", "--sdk_container_image", "requirements-tfio.txt"],
        ),
        ({"setup_file": "setup.cfg", "sdk_container_image": None}, ["--setup_file is 'setup.cfg'", "setup.py"]),
        ({"setup_file": "no/setup.py"}, ["--setup_file is 'no/setup.py'"]),
        ({"job_name": "Daily"}, ["--job_name is 'Daily'", "lower-case"]),
        ({"dataflow_endpoint": "http://dataflow.example"}, ["--dataflow_endpoint", "https://HOST"]),
        ({"dataflow_endpoint": "http://localhost.example:80"}, ["--dataflow_endpoint", "https://HOST"]),
        ({"experiments": "enable_data_sampling"}, ["'enable_data_sampling'", "elements of the data"]),
        ({"experiments": "a,enable_always_on_exception_sampling"}, ["'enable_always_on_exception_sampling'"]),
        ({"experiments": "use_multiple_sdk_containers"}, ["'use_multiple_sdk_containers'", "share"]),
        ({"s3_secret_access_key": "hush"}, ["--s3_secret_access_key is given", "leave it out"]),
        ({"azure_connection_string": "hush"}, ["--azure_connection_string is given"]),
        ({"num_workers": "0"}, ["--num_workers is 0", "at least 1"]),
        ({"max_num_workers": "-1"}, ["--max_num_workers is -1", "at least 1"]),
        ({"num_workers": "3", "max_num_workers": "2"}, ["--num_workers is 3", "--max_num_workers 2"]),
        ({"autoscaling_algorithm": "THROUGHPUT_BASED"}, ["--max_num_workers is missing", "THROUGHPUT_BASED"]),
        (
            {"num_workers": "8", "max_requests_per_minute": "7"},
            ["--max_requests_per_minute is 7", "8 workers", "--num_workers 7 or fewer"],
        ),
        (
            {"autoscaling_algorithm": "THROUGHPUT_BASED", "max_num_workers": "9", "max_requests_per_minute": "8.5"},
            ["--max_requests_per_minute is 8.5", "--max_num_workers 8 or fewer"],
        ),
        ({"max_requests": "10"}, ["--max_requests is 10", "--limit"]),
        ({"endpoint": "local"}, ["--endpoint local", "DataflowRunner"]),
        ({"checkpoint": "here"}, ["--checkpoint is 'here'", "gs://"]),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, str | None], said: list[str]) -> None:
    message = refused(**changes)
    for part in said:
        assert part in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        (
            ["--no_wait", "--send=batch", "--staging_location=gs://bucket/staging"],
            {"endpoint": "research"},
            "--batch_step is missing: with --send batch something must wait for the job, but --no_wait is given: expected write, and",
        ),
        (["--no_wait", "--delete_checkpoint"], {}, "--delete_checkpoint is given together with --no_wait"),
        (["--delete_checkpoint"], {"template_location": "gs://b/t"}, "together with --template_location"),
        (["--update"], {}, "--update"),
        (
            ["--no_wait"],
            {"runner": "DirectRunner"},
            "--no_wait is given, but has a meaning only with --runner Dataflow",
        ),
        (["--no_wait"], {"runner": "FlinkRunner"}, "--no_wait is given"),
        ([], {"runner": "DirectRunner", "template_location": "gs://b/t"}, "--template_location is given"),
        ([], {"runner": "FlinkRunner", "staging_location": "gs://b/t"}, "--staging_location is given"),
        ([], {"runner": "FlinkRunner", "max_requests_per_minute": "5"}, "only on Dataflow is the limit divided"),
    ],
)
def test_what_contradicts_itself_is_refused(more: list[str], changes: dict[str, str], said: str) -> None:
    assert said in refused(*more, **changes)


def test_a_template_is_not_waited_for() -> None:
    assert not parsed(template_location="gs://results/templates/graph").waits


def test_a_setup_file_is_found_wherever_the_command_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    arguments = parsed(setup_file="setup.py", sdk_container_image=None)
    assert arguments.beam.view_as(SetupOptions).setup_file == str(REPOSITORY / "setup.py")
    assert arguments.pool is not None
    assert f"  installed from {REPOSITORY / 'setup.py'}" in described(arguments.beam, arguments.pool)


def test_a_setup_file_needs_a_setuptools_that_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "65.5.0")
    message = refused(setup_file=str(REPOSITORY / "setup.py"))
    assert "has 65.5.0" in message
    assert "setuptools>=77" in message


def test_beam_finds_nothing_to_add_or_to_refuse() -> None:
    options = parsed(dry_run="True").beam
    before = options.get_all_options()
    # As for the real service, which Beam treats in other ways than one on this machine.
    validator = PipelineOptionsValidator(options, DataflowRunner())
    assert validator.is_service_runner()
    assert validator.validate() == []
    after = options.get_all_options()
    assert after["save_main_session"] is False, "the command's main module is no worker's business"
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"worker_harness_container_image"}


def test_all_of_it_is_one_line_and_the_exit_status_of_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line(project=None)) == WRONG_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m pipeline: error: --project is missing")
    assert err.count("\n") == 1
