"""What a run on Dataflow is given that the user did not choose, and what it is refused for before anything is asked of anyone."""

from __future__ import annotations

import contextlib
import re
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)

from pipeline.settings import RunSettings
from pipeline.usage import UsageError
from pipeline.values import IMAGE
from pipeline.worker_pool import WorkerPool, make_pool

RUNNER: Final = "DataflowRunner"
MACHINE_TYPE: Final = "e2-standard-2"
"""The work waits for the endpoint: of a worker's two processors one sends and one decodes, and more would idle. The memory
is for what is in flight and for a decoder at its limit."""
DISK_GB: Final = 30
"""The image; nothing of a recording is put on disk."""
THREADS: Final = 2
"""Bundles at a time: one begins to send while the last answers of the other are waited for. They share one client."""
EXPERIMENTS: Final = ("no_use_multiple_sdk_containers", "disable_always_on_exception_sampling")
"""One process a worker, so that one client has the worker's share of the limit; and no elements in the console."""
_REFUSED_EXPERIMENTS: Final = {
    "use_multiple_sdk_containers": "each of a worker's processes would take the worker's whole share of the requests",
    "enable_data_sampling": "it would show elements of the data to all who may look at the job",
    "enable_always_on_exception_sampling": "it would show elements of the data to all who may look at the job",
}
_SECRETS: Final = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string")
_SETUPTOOLS: Final = 77
"""pyproject.toml is read by this version and later ones."""

_PROJECT: Final = re.compile(r"[a-z][-a-z0-9:.]{3,}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_JOB_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_FOLDER: Final = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\r\n]*")
_ACCOUNT: Final = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+")
_CORES: Final = re.compile(r"-([0-9]+)(?:-[0-9]+)?$")


def worker_cores(options: PipelineOptions) -> int:
    """Processors of a worker, by the name of its machine type; of one whose name does not say, 2."""
    named = _CORES.search(options.view_as(WorkerOptions).machine_type or MACHINE_TYPE)
    return int(named[1]) if named else 2


def complete(options: PipelineOptions, run: RunSettings, staging_location: str | None) -> WorkerPool:
    """Fills in what the user has left open, and returns the pool of workers.

    Args:
      options: changed in place.
      run: what is run.
      staging_location: `--staging_location`, which names the place of the job's files, and of staged clips.

    Raises UsageError for what is missing or cannot work.
    """
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    _check_cloud(cloud)
    if not workers.sdk_container_image and not options.view_as(SetupOptions).setup_file:
        _refuse_image("missing")
    if workers.worker_harness_container_image:
        raise UsageError("--worker_harness_container_image is outdated: expected --sdk_container_image")
    if workers.sdk_container_image and not re.fullmatch(IMAGE, workers.sdk_container_image):
        _refuse_image(repr(workers.sdk_container_image))
    if run.clips.resampler == "tensorflow_io" and not workers.sdk_container_image:
        raise UsageError(
            "--resampler is 'tensorflow_io', for which workers need TensorFlow, but pip cannot install it beside Beam: expected "
            "--sdk_container_image with an image that holds requirements-tfio.txt, or --resampler soxr"
        )
    _check_setup_file(options.view_as(SetupOptions))
    _check_secrets(options)
    debug = options.view_as(DebugOptions)
    for experiment in debug.experiments or ():
        if why := _REFUSED_EXPERIMENTS.get(experiment):
            raise UsageError(f"--experiments holds {experiment!r}, which is refused: {why}")
    pool = make_pool(
        run,
        num_workers=workers.num_workers,
        max_num_workers=workers.max_num_workers,
        autoscaling=workers.autoscaling_algorithm == "THROUGHPUT_BASED",
    )
    if pool.is_fixed:
        workers.autoscaling_algorithm = "NONE"
        workers.num_workers = workers.max_num_workers = pool.workers
    workers.machine_type = workers.machine_type or MACHINE_TYPE
    workers.disk_size_gb = workers.disk_size_gb or DISK_GB
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or THREADS
    for experiment in EXPERIMENTS:
        debug.add_experiment(experiment)
    setup = options.view_as(SetupOptions)
    # Else Beam would pickle what the command's main module holds, which no worker needs.
    setup.save_main_session = bool(setup.save_main_session)
    cloud.staging_location = staging_location or cloud.temp_location
    cloud.job_name = cloud.job_name or f"hear-{run.run_id.lower()}"
    return pool


def described(options: PipelineOptions, pool: WorkerPool) -> list[str]:
    """What the job will have, in a few lines for people."""
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    setup = options.view_as(SetupOptions)
    count = "1 worker" if pool.workers == 1 else f"{pool.workers} workers"
    lines = [
        f"job {cloud.job_name} on Dataflow, project {cloud.project}, {cloud.region}, as {cloud.service_account_email}",
        f"  {count if pool.is_fixed else f'up to {count}'} ({pool.because})",
        f"  {workers.machine_type}, {workers.disk_size_gb} GB, {_addresses(workers)}",
        f"  image {workers.sdk_container_image}"
        if workers.sdk_container_image
        else f"  installed from {setup.setup_file}",
    ]
    if pool.requests_per_minute is not None:
        lines.append(f"  at most {pool.requests_per_minute:,} requests a minute from each worker")
    if pool.wasted:
        fed = pool.workers - pool.wasted
        lines.append(f"  note: the quota feeds {fed} of them: the others will cost and wait")
    return lines


def _addresses(workers: WorkerOptions) -> str:
    if workers.use_public_ips is None:
        return "public IP addresses (--no_use_public_ips: private ones only)"
    return "public IP addresses" if workers.use_public_ips else "private IP addresses"


def _check_cloud(cloud: GoogleCloudOptions) -> None:
    for option, pattern, expected in (
        ("project", _PROJECT, "a project's id, such as --project my-project"),
        ("region", _REGION, "for example --region us-west1"),
        ("temp_location", _FOLDER, "a folder for the job's own files, such as --temp_location gs://bucket/temp"),
        (
            "service_account_email",
            _ACCOUNT,
            "an account of this job's own, as Compute Engine's default one may do too much for health data "
            "(templates/README.md says which rights it needs)",
        ),
    ):
        value = getattr(cloud, option)
        if not value:
            raise UsageError(f"--{option} is missing: expected with --runner {RUNNER} {expected}")
        if not pattern.fullmatch(value):
            raise UsageError(f"--{option} is {value!r}: expected {expected}")
    if cloud.job_name and not _JOB_NAME.fullmatch(cloud.job_name):
        raise UsageError(
            f"--job_name is {cloud.job_name!r}: expected lower-case letters, digits and -, 63 at most, a letter first"
        )
    if cloud.update:
        raise UsageError(
            "--update is given, which is for streaming jobs: start the command again, it goes on from the checkpoint"
        )
    url = urlsplit(cloud.dataflow_endpoint)
    if url.scheme != "https" and url.hostname != "localhost":
        raise UsageError(
            f"--dataflow_endpoint is {cloud.dataflow_endpoint!r}: expected https://HOST, or http://localhost:PORT"
        )


def _refuse_image(found: str) -> None:
    raise UsageError(
        f"--sdk_container_image is {found}: expected an image by its digest, such as "
        "us-west1-docker.pkg.dev/PROJECT/hear/pipeline@sha256:..., as a tag can be moved while workers start (templates/ builds one); "
        "or instead --setup_file ./setup.py, to have each worker install all packages when it starts"
    )


def _check_setup_file(setup: SetupOptions) -> None:
    if not setup.setup_file:
        return
    path = Path(setup.setup_file).absolute()  # Beam changes into its folder
    if path.name not in ("setup.py", "pyproject.toml") or not path.is_file():
        raise UsageError(f"--setup_file is {setup.setup_file!r}: expected the path of this project's setup.py")
    setup.setup_file = str(path)
    version = "none"
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("setuptools")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < _SETUPTOOLS:
        raise UsageError(
            f"--setup_file is {setup.setup_file!r}, from which a package is built with setuptools {_SETUPTOOLS} or later, but this "
            f"environment has {version}: run pip install 'setuptools>={_SETUPTOOLS}'"
        )


def _check_secrets(options: PipelineOptions) -> None:
    given = options.get_all_options(drop_default=True)
    for option in _SECRETS:
        if given.get(option):
            raise UsageError(
                f"--{option} is given, which all who may look at the job would see, and which nothing here uses: leave it out"
            )
