"""Batch prediction jobs as the official client's messages: what is asked for, and what is read from the answers."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import grpc

from endpoint.job_error import readable
from endpoint.job_settings import JobSettings
from endpoint.job_state import JobState, PredictionJob

_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MOST_LABELS = 64
_LONGEST_NAME = 128
_STATES = frozenset(get_args(JobState))
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def check_accelerator(settings: JobSettings) -> None:
    """Looks the accelerator up among those that the official client knows.

    Raises:
        ValueError: if it is none of them; names them all.
    """
    from google.cloud.aiplatform_v1.types import AcceleratorType

    known = [accelerator.name for accelerator in AcceleratorType if accelerator]
    if settings.accelerator_type is not None and settings.accelerator_type not in known:
        raise ValueError(
            f"batch_accelerator_type is {settings.accelerator_type!r}: expected one of {', '.join(sorted(known))}"
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Checks a job's labels by the rules of Google Cloud, but for international letters.

    https://cloud.google.com/resource-manager/docs/labels-overview#requirements

    Raises:
        ValueError: if the service would refuse them, or if there is none.
    """
    if not 0 < len(labels) <= _MOST_LABELS:
        raise ValueError(f"labels are {len(labels)}: expected 1 to {_MOST_LABELS}")
    for key, value in labels.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(
                f"label {key!r} is {value!r}: expected up to 63 lower-case letters, digits, _ and -, and a key that "
                "begins with a letter"
            )


def label_filter(labels: Mapping[str, str]) -> str:
    """What lists jobs with all of these labels, as the `filter` of `ListBatchPredictionJobsRequest` is documented."""
    return " AND ".join(f'labels.{key}="{value}"' for key, value in labels.items())


def job_message(
    settings: JobSettings,
    display_name: str,
    labels: Mapping[str, str],
    source_uris: Sequence[str],
    destination_prefix: str,
) -> Any:
    """The `BatchPredictionJob` to create: what `aiplatform.BatchPredictionJob.submit` makes of the API documentation's call.

    Formats are `jsonl` both ways; machine and accelerator are dedicated resources; what is not given is the service's to
    choose: replicas (1 and 10), and how many instances a machine gets at a time (64).

    Args:
        settings: model and machines.
        display_name: up to 128 characters.
        labels: see `check_labels`.
        source_uris: JSONL files, `gs://BUCKET/...`; wildcards as Cloud Storage's tools have them.
        destination_prefix: `gs://BUCKET/...`; the service makes a folder of its own in it.

    Raises:
        ValueError: if a value is not as described.
    """
    from google.cloud.aiplatform_v1 import types

    check_labels(labels)
    if not 0 < len(display_name) <= _LONGEST_NAME:
        raise ValueError(f"display name {display_name!r}: expected 1 to {_LONGEST_NAME} characters")
    for uri in (*source_uris, destination_prefix):
        if not uri.startswith("gs://"):
            raise ValueError(f"{uri!r}: expected gs://BUCKET/... for a job's files")
    machine = types.MachineSpec(machine_type=settings.machine_type)
    if settings.has_accelerator:
        machine.accelerator_type = types.AcceleratorType[settings.accelerator_type]
        machine.accelerator_count = settings.accelerator_count
    resources = types.BatchDedicatedResources(machine_spec=machine)
    if settings.starting_replicas is not None:
        resources.starting_replica_count = settings.starting_replicas
    if settings.max_replicas is not None:
        resources.max_replica_count = settings.max_replicas
    return types.BatchPredictionJob(
        display_name=display_name,
        model=settings.model,
        labels=dict(labels),
        input_config=types.BatchPredictionJob.InputConfig(
            instances_format="jsonl", gcs_source=types.GcsSource(uris=list(source_uris))
        ),
        output_config=types.BatchPredictionJob.OutputConfig(
            predictions_format="jsonl", gcs_destination=types.GcsDestination(output_uri_prefix=destination_prefix)
        ),
        dedicated_resources=resources,
        manual_batch_tuning_parameters=types.ManualBatchTuningParameters(),
    )


def read_job(message: Any) -> PredictionJob:
    """What a `BatchPredictionJob` says; nothing of it but its error's text is taken for granted to be there."""
    job = type(message).pb(message)
    done, failed, total = _counts(job)
    return PredictionJob(
        name=job.name,
        display_name=job.display_name,
        labels=dict(job.labels),
        state=_state(job.state),
        output_folder=job.output_info.gcs_output_directory,
        model=_model(job.model, job.model_version_id),
        created=job.create_time.ToDatetime(datetime.timezone.utc).isoformat() if job.HasField("create_time") else "",
        done=done,
        failed=failed,
        total=total,
        error=_error(job),
    )


def _state(number: int) -> JobState:
    from google.cloud.aiplatform_v1 import types

    # The service may be newer than the client.
    known = {state.value: state.name for state in types.JobState}
    name: Any = known.get(number, "").removeprefix("JOB_STATE_").lower()
    return name if name in _STATES else "unknown"


def _model(model: str, version: str) -> str:
    if not version:
        return model
    return f"{model.partition('@')[0]}@{version}"


def _counts(job: Any) -> tuple[int | None, int | None, int | None]:
    if not job.HasField("completion_stats"):
        return None, None, None
    stats = job.completion_stats
    done, failed = stats.successful_count, stats.failed_count
    # -1 stands for an unknown number.
    return done, failed, done + failed + stats.incomplete_count if stats.incomplete_count >= 0 else None


def _error(job: Any) -> str | None:
    for status in (job.error, *job.partial_failures):
        if status.code or status.message:
            text = readable(status.message)
            return f"{_CODES.get(status.code, f'code {status.code}')}{': ' if text else ''}{text}"
    return None
