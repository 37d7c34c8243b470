"""Settings of batch prediction jobs: what cannot work is refused in one line that names the option."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint.job_settings import JobSettings

GIVEN = {
    "model": "projects/4016704501/locations/us-west1/models/220",
    "host": "us-west1-aiplatform.googleapis.com",
    "project": "my-project",
}


def settings(**changes: Any) -> JobSettings:
    return JobSettings(**{**GIVEN, **changes})


def test_the_job_runs_in_the_given_project_where_the_model_is() -> None:
    assert settings().location == "us-west1"
    assert settings().parent == "projects/my-project/locations/us-west1"
    assert settings(model=f"{GIVEN['model']}@2").location == "us-west1"
    assert settings(project="123456789012").parent == "projects/123456789012/locations/us-west1"
    assert settings(project="example.com:my-project").parent == "projects/example.com:my-project/locations/us-west1"


def test_machines_are_those_of_the_documentation_s_example() -> None:
    given = settings()
    assert (given.machine_type, given.accelerator_type, given.accelerator_count) == (
        "n1-standard-8",
        "NVIDIA_TESLA_V100",
        1,
    )
    assert (given.starting_replicas, given.max_replicas) == (None, None)


@pytest.mark.parametrize(
    ("changes", "has_one"), [({}, True), ({"accelerator_count": 0}, False), ({"accelerator_type": None}, False)]
)
def test_machines_can_do_without_an_accelerator(changes: dict[str, Any], has_one: bool) -> None:
    assert settings(**changes).has_accelerator is has_one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "220"}, "batch_model is '220': expected projects/P/locations/L/models/M"),
        (
            {"model": "projects/p/locations/l/endpoints/2"},
            "batch_model is 'projects/p/locations/l/endpoints/2': expected",
        ),
        ({"model": "projects/p/locations/l/models/2@"}, "batch_model is"),
        ({"model": "projects/p/locations/l/models/2\n"}, "batch_model is"),
        ({"project": ""}, "batch_project is ''"),
        ({"project": "projects/p"}, "batch_project is 'projects/p'"),
        ({"machine_type": "big"}, "batch_machine_type is 'big': expected a machine type of Compute Engine"),
        ({"accelerator_type": "nvidia v100"}, "batch_accelerator_type is 'nvidia v100'"),
        ({"accelerator_count": -1}, "batch_accelerator_count is -1"),
        ({"starting_replicas": 0}, "batch_starting_replicas is 0"),
        ({"max_replicas": 0}, "batch_max_replicas is 0"),
        ({"starting_replicas": 3, "max_replicas": 2}, "batch_max_replicas is 2: expected no less than .*, 3"),
        ({"instance_format": "csv"}, "instance_format is 'csv'"),
        ({"transport": "soap"}, "transport is 'soap'"),
        ({"host": "https://us-west1-aiplatform.googleapis.com"}, "endpoint host"),
    ],
)
def test_what_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        settings(**changes)
