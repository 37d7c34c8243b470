"""What a job must say, and what lists of jobs can be asked for, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.endpoints import InstanceFormat
from emulator.job_filter import job_filter
from emulator.job_messages import BatchPredictionJob, JobState
from emulator.job_rules import DEFAULT_MODEL, DEFAULT_MODELS, check_job, check_job_name, location_of
from emulator.refusals import InvalidArgumentError, NotFoundError

LOCAL = "projects/p/locations/local"


def job(**changes: Any) -> Any:
    message = BatchPredictionJob(
        display_name="x",
        model=DEFAULT_MODEL,
        input_config={"instances_format": "jsonl", "gcs_source": {"uris": ["gs://bucket/a/*.jsonl"]}},
        output_config={"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://bucket/out/"}},
        dedicated_resources={"machine_spec": {"machine_type": "n1-standard-8"}},
        labels={"key_-1": "", "k": "v_-1"},
    )
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = message
        for parent in parents:
            part = getattr(part, parent)
        if isinstance(value, list):
            del getattr(part, last)[:]
            getattr(part, last).extend(value)
        else:
            setattr(part, last, value)
    return message


def with_label(key: str, value: str) -> Any:
    message = job()
    message.labels[key] = value
    return message


MACHINE = "dedicated_resources__machine_spec__"


def test_jobs_that_are_taken() -> None:
    check_job(job())
    check_job(job(input_config__gcs_source__uris=["gs://bucket/ü?.jsonl", "gs://b.c/**"]))
    check_job(job(output_config__gcs_destination__output_uri_prefix="gs://bucket"))
    check_job(job(**{f"{MACHINE}accelerator_type": 3, f"{MACHINE}accelerator_count": 1}))
    check_job(with_label("a" * 63, "1" * 63))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (job(display_name=""), "display_name must have 1 to 128"),
        (job(display_name="x" * 129), "display_name"),
        (job(input_config__instances_format="csv"), "instances_format must be jsonl"),
        (job(output_config__predictions_format=""), "predictions_format must be jsonl"),
        (job(input_config__gcs_source__uris=[]), "at least one file"),
        (job(input_config__gcs_source__uris=["gs://bucket/a", "s3://bucket/a"]), "must read gs://BUCKET/OBJECT"),
        (job(input_config__gcs_source__uris=["gs://bucket"]), "must read gs://BUCKET/OBJECT"),
        (job(output_config__gcs_destination__output_uri_prefix="/tmp"), "must read gs://BUCKET/PREFIX"),
        (job(output_config__gcs_destination__output_uri_prefix="gs://bucket/*"), "must read gs://BUCKET/PREFIX"),
        (job(**{f"{MACHINE}machine_type": ""}), "machine_type is required"),
        (job(**{f"{MACHINE}accelerator_type": 3}), "belong together"),
        (job(**{f"{MACHINE}accelerator_count": 1}), "belong together"),
        (job(dedicated_resources__starting_replica_count=3, dedicated_resources__max_replica_count=2), "at most max"),
        (with_label("Upper", "x"), "labels must consist of"),
        (with_label("a", "Upper"), "labels must consist of"),
        (with_label("1a", "x"), "a key begins with a letter"),
        (with_label("a" * 64, "x"), "63 at most"),
        (with_label("a", "x" * 64), "63 at most"),
    ],
)
def test_jobs_that_are_refused(message: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        check_job(message)


def test_models() -> None:
    for suffix in ("", "@1", "@default"):
        assert DEFAULT_MODELS.find(DEFAULT_MODEL + suffix, LOCAL).instance_format is InstanceFormat.RESEARCH_AUDIO
    garden = DEFAULT_MODELS.find("projects/local/locations/local/models/300", LOCAL)
    assert garden.instance_format is InstanceFormat.MODEL_GARDEN
    for unknown in (f"{DEFAULT_MODEL}@2", "projects/local/locations/local/models/221"):
        with pytest.raises(NotFoundError, match="does not exist"):
            DEFAULT_MODELS.find(unknown, LOCAL)
    for other in ("projects/p/locations/us-west1", "projects/p/locations/locals"):
        with pytest.raises(InvalidArgumentError, match="location must be the job's"):
            DEFAULT_MODELS.find(DEFAULT_MODEL, other)
    for bad in ("", "220", "publishers/google/models/hear", f"{DEFAULT_MODEL}@"):
        with pytest.raises(InvalidArgumentError, match="model must read"):
            DEFAULT_MODELS.find(bad, LOCAL)


@pytest.mark.parametrize("name", ["", "1", f"{LOCAL}/batchPredictionJobs/x", f"{LOCAL}/jobs/1", f"{LOCAL}/"])
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must read projects/P/locations/L"):
        check_job_name(name)
    with pytest.raises(InvalidArgumentError, match="must read projects/P/locations/L"):
        location_of(name)


def listed(**values: Any) -> Any:
    message = BatchPredictionJob(display_name='a "b" AND c', state=JobState.JOB_STATE_RUNNING, **values)
    message.labels.update({"run": "7", "empty": ""})
    message.create_time.FromJsonString("2026-01-02T03:04:05.5Z")
    return message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        (" ", True),
        ('labels.run="7"', True),
        ("labels.run=7", True),
        ("  labels.run  =  7  ", True),
        ("labels.run=8", False),
        ("labels.other=7", False),
        ('labels.empty=""', True),
        ('labels.other=""', False),
        ("labels.run:*", True),
        ("labels.other:*", False),
        ('labels.run=7 AND labels.empty=""', True),
        ("labels.run=7 AND labels.empty=x", False),
        ("labels.run=7 AND state=JOB_STATE_RUNNING", True),
        ('state="JOB_STATE_FAILED"', False),
        ('state!="JOB_STATE_FAILED"', True),
        (r'display_name="a \"b\" AND c"', True),
        ('display_name="a"', False),
        ("display_name!=a", True),
        ('create_time>="2026-01-02T03:04:05.5Z"', True),
        ('create_time>"2026-01-02T03:04:05.5Z"', False),
        ('create_time>"2026-01-02T03:04:05+01:00"', True),
        ('labels.run=7 AND create_time<"2026-01-02T03:04:05.5Z"', False),
        ("create_time<=2026-01-02T03:04:05.500Z", True),
        ('create_time="2026-01-02T03:04:05.500000Z"', True),
        ('create_time!="2026-01-02T03:04:05Z"', True),
    ],
)
def test_filters(text: str, found: bool) -> None:
    assert job_filter(text)(listed()) is found


@pytest.mark.parametrize(
    "text",
    [
        "run=7",
        "labels.run",
        "labels.run=",
        "labels.run!=7",
        "labels.run:7",
        "labels=7",
        "state:*",
        "state=RUNNING",
        "display_name:a",
        "labels.run=7 OR labels.run=8",
        "labels.run=7 AND",
        "labels.run=7 AND ",
        "AND",
        "labels.run=7 labels.run=7",
        'labels.run="7',
        "NOT labels.run=7",
        "create_time>1",
        "create_time:*",
        "state>JOB_STATE_RUNNING",
        "labels.run>=7",
    ],
)
def test_filters_that_are_not_taken(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid filter"):
        job_filter(text)
