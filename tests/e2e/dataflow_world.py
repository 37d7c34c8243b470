"""Storage, token services, an endpoint and a stand-in for Dataflow around a run of the command; what was staged can be run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.recordings import write_recordings
from tests.audio.gcs import StorageServer
from tests.cloud.dataflow import Dataflow, dataflow
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.google_proxy import GoogleCloud, google_cloud
from tests.cloud.storage import proxied_storage
from tests.e2e.clean_environment import without_this_folder
from tests.e2e.running import REPOSITORY, embeddings, run_command
from transforms.submit_job import checkpoint_label

IMAGE = f"us-west1-docker.pkg.dev/study-1/hear/pipeline@sha256:{'0a' * 32}"
STAGED_PIPELINE = REPOSITORY / "tests" / "cloud" / "staged_pipeline.py"
BUCKET = "results"
ROUNDED = 1e-4
"""So far are embeddings of the stand-in apart at most, if samples were rounded to six decimals."""


@dataclass
class OnDataflow:
    """All that a launch on Dataflow meets; the recordings in `study` are also at `gs://clinic/study`."""

    folder: Path
    storage: StorageServer
    proxy: FaultProxy
    cloud: GoogleCloud
    dataflow: Dataflow
    local: LocalEndpoint

    @property
    def study(self) -> Path:
        return self.folder / "study"

    @property
    def environment(self) -> dict[str, str]:
        runtime = self.folder / "runtime"
        runtime.mkdir(mode=0o700, exist_ok=True)
        return {
            **self.cloud.environment,
            "STORAGE_EMULATOR_HOST": self.storage.address,
            "XDG_RUNTIME_DIR": str(runtime),
        }

    def arguments(self, name: str, *more: object, **changes: str | None) -> list[str]:
        """A command line whose output and checkpoint are named after `name`; None leaves an option out."""
        options: dict[str, str | None] = {
            "runner": "DataflowRunner",
            "input": "gs://clinic/study/**",
            "output": f"gs://{BUCKET}/{name}/r",
            "output_format": "parquet",
            "endpoint": self.local.endpoint_name,
            "endpoint_host": self.local.host,
            "project": "study-1",
            "region": "us-west1",
            "temp_location": f"gs://{BUCKET}/temp",
            "service_account_email": "worker@study-1.iam.gserviceaccount.com",
            "sdk_container_image": IMAGE,
            "dataflow_endpoint": self.dataflow.address,
        }
        options |= changes
        return [*(f"--{option}={value}" for option, value in options.items() if value is not None), *map(str, more)]

    @property
    def batch(self) -> dict[str, str | None]:
        """Changes of a command line that has clips sent as a batch."""
        return {
            "endpoint": None,
            "batch_model": self.local.model,
            "send": "batch",
            "staging_location": "gs://staging/clips",
        }

    def ended_predictions(self, name: str) -> list[dict[str, Any]]:
        """The batch prediction jobs of the checkpoint that is named after `name`, once they have ended."""
        label = checkpoint_label(f"gs://{BUCKET}/{name}/r-checkpoint")
        query = urlencode({"filter": f'labels.hear-checkpoint="{label}"'})
        parent = self.local.model.partition("/models/")[0]
        deadline = time.monotonic() + 60
        while True:
            with urlopen(
                f"http://{self.local.rest_host}/v1/{parent}/batchPredictionJobs?{query}", timeout=10
            ) as answer:
                jobs: list[dict[str, Any]] = json.loads(answer.read()).get("batchPredictionJobs", [])
            if all("endTime" in job for job in jobs):
                return jobs
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def command(self, name: str, *more: object, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Runs the command."""
        return run_command(*self.arguments(name, *more, **changes), timeout_s=120, **self.environment)

    def staged_file(self, job: dict[str, Any]) -> Path:
        """The graph that was staged for a job, fetched back."""
        url = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        bucket, _, path = url.removeprefix("gs://").partition("/")
        file = self.folder / f"{job['name']}.pb"
        file.write_bytes(self.storage.content(bucket, path)[0])
        return file

    def run_staged(self, job: dict[str, Any], python: Path | None = None, **environment: str) -> dict[str, Any]:
        """Does what workers do for a job; its counters, and where modules came from. With this repository's code by default."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        script = shutil.copy(STAGED_PIPELINE, elsewhere)  # beside it are modules with names that others have
        modules = [str(REPOSITORY) if python is None else "", environment.pop("PYTHONPATH", "")]
        where = {"PYTHONPATH": os.pathsep.join(filter(None, modules))} if any(modules) else {}
        done = subprocess.run(
            [python or sys.executable, script, self.staged_file(job)],
            cwd=elsewhere,
            env={**without_this_folder(), **self.environment, **environment, **where},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def fetch(self, name: str) -> Path:
        """A run's output files, in a folder on disk; their prefix there."""
        folder = self.folder / "fetched" / name
        folder.mkdir(parents=True, exist_ok=True)
        for found in self.storage.names(BUCKET, f"{name}/r-"):
            if "/" not in found.removeprefix(f"{name}/"):
                (folder / Path(found).name).write_bytes(self.storage.content(BUCKET, found)[0])
        return folder / "r"


def but_for_endpoint(prefix: Path) -> dict[str, dict[str, Any]]:
    """A run's rows by clip id, without what says whether an endpoint or a job has answered."""
    return {
        clip_id: {name: value for name, value in row.items() if name != "endpoint"}
        for clip_id, row in embeddings(prefix).items()
    }


@contextmanager
def on_dataflow(folder: Path) -> Iterator[OnDataflow]:
    """Runs all of it, for the time of the context."""
    for name in ("storage", "cloud"):
        (folder / name).mkdir()
    with (
        proxied_storage(folder / "storage") as (storage, proxy),
        google_cloud(folder / "cloud") as cloud,
        dataflow() as service,
        start_local_endpoint(0, folder / "arrivals", options=[f"--storage_host={storage.address}"]) as local,
    ):
        for bucket in ("clinic", "staging", BUCKET):
            storage.make_bucket(bucket)
        running = OnDataflow(folder, storage, proxy, cloud, service, local)
        write_recordings(running.study)
        for path in running.study.iterdir():
            storage.upload("clinic", f"study/{path.name}", path.read_bytes())
        yield running
    assert not cloud.tokens.unknown
