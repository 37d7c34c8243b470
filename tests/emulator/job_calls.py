"""How the tests ask for batch prediction jobs: the official client, and what a job has left in the storage server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import requests
from google.cloud.aiplatform_v1 import JobServiceClient
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport
from google.cloud.aiplatform_v1.types import BatchPredictionJob

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from tests.audio.gcs import StorageServer
from tests.emulator.calls import base64_text, random_clips, wait_until, wav

PARENT = "projects/mine/locations/local"
BUCKET = "jobs"
CLIPS = np.round(random_clips(12, seed=6).astype(np.float64), 6)
"""Such that six decimals lose nothing."""


def research_line(clip: np.ndarray) -> bytes:
    return ("[" + ",".join(f"{sample:.6f}" for sample in clip) + "]\n").encode()


def garden_line(clip: np.ndarray) -> bytes:
    return json.dumps({"input_bytes": base64_text(wav(clip))}).encode() + b"\n"


def upload(storage: StorageServer, name: str, lines: Iterable[bytes]) -> str:
    """Stores lines as an object; its URI."""
    storage.upload(BUCKET, name, b"".join(lines))
    return f"gs://{BUCKET}/{name}"


def request_for(model: str, uris: Iterable[str], prefix: str = "", **labels: str) -> BatchPredictionJob:
    """What a caller says of a job."""
    uris = list(uris)
    return BatchPredictionJob(
        display_name="clips",
        model=model,
        input_config={"instances_format": "jsonl", "gcs_source": {"uris": uris}},
        output_config={
            "predictions_format": "jsonl",
            "gcs_destination": {"output_uri_prefix": prefix or f"gs://{BUCKET}/results"},
        },
        dedicated_resources={
            "machine_spec": {
                "machine_type": "n1-standard-8",
                "accelerator_type": "NVIDIA_TESLA_V100",
                "accelerator_count": 1,
            },
            "starting_replica_count": 1,
            "max_replica_count": 2,
        },
        labels=labels,
    )


class Jobs:
    """The job service of a local endpoint, asked by the official client."""

    def __init__(self, local: LocalEndpoint, client: JobServiceClient) -> None:
        self.local = local
        self.client = client

    def create(self, job: BatchPredictionJob, parent: str = PARENT) -> BatchPredictionJob:
        return self.client.create_batch_prediction_job(parent=parent, batch_prediction_job=job)

    def get(self, name: str) -> BatchPredictionJob:
        return self.client.get_batch_prediction_job(name=name)

    def ended(self, name: str) -> BatchPredictionJob:
        """The job, once it has ended."""
        wait_until(lambda: bool(self.get(name).end_time))
        return self.get(name)

    def run(self, uris: Iterable[str], model: str = "") -> BatchPredictionJob:
        """A job for raw audio, or this model, from its creation to its end."""
        return self.ended(self.create(request_for(model or self.local.model, uris)).name)


@contextmanager
def asking(local: LocalEndpoint) -> Iterator[Jobs]:
    """The official client, on a channel that is closed at the end."""
    with grpc.insecure_channel(local.host, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield Jobs(local, JobServiceClient(transport=JobServiceGrpcTransport(channel=channel)))


@contextmanager
def job_service(storage: StorageServer, spec: str = "", *options: str, **given: Any) -> Iterator[Jobs]:
    """A local endpoint of its own with these faults."""
    faults = [f"--job_faults={spec}"] if spec else []
    options = (f"--storage_host={storage.address}", *faults, *options)
    with start_local_endpoint(options=options, **given) as local, asking(local) as jobs:
        yield jobs


def rest(local: LocalEndpoint, method: str, path: str, content: Any = None, **query: str) -> tuple[int, Any]:
    """One HTTP request to the job service, never through a proxy: the status and the JSON."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, f"http://{local.rest_host}/v1/{path}", json=content, params=query, timeout=30)
        return answer.status_code, answer.json()


def names(storage: StorageServer, job: BatchPredictionJob) -> list[str]:
    """Of the files that a job has left, without their folder."""
    bucket, _, folder = job.output_info.gcs_output_directory.removeprefix("gs://").partition("/")
    return [name.removeprefix(f"{folder}/") for name in storage.names(bucket, f"{folder}/")]


def rows(storage: StorageServer, job: BatchPredictionJob, kind: str = "prediction.results") -> list[list[Any]]:
    """The lines of each file of a kind, in order."""
    bucket, _, folder = job.output_info.gcs_output_directory.removeprefix("gs://").partition("/")
    found = [name for name in names(storage, job) if name.startswith(kind)]
    contents = [storage.content(bucket, f"{folder}/{name}")[0] for name in found]
    assert all(content.endswith(b"\n") for content in contents if content)
    return [[json.loads(line) for line in content.splitlines()] for content in contents]


def flat(files: list[list[Any]]) -> list[Any]:
    return [row for lines in files for row in lines]


def place(clip: Any, clips: np.ndarray = CLIPS) -> int:
    """Which of the clips these numbers are."""
    (found,) = np.flatnonzero((clips == np.array(clip)).all(axis=1))
    return int(found)


def digests(clips: np.ndarray) -> list[str]:
    return sorted(clip_digest(clip.astype(np.float32)) for clip in clips)
