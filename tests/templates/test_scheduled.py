"""The scheduled relaunch asks Dataflow for what its API knows, with parameters that the template has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.dataflow_v1beta3.types import FlexTemplateRuntimeEnvironment, JobState, LaunchFlexTemplateRequest

from pipeline.template import metadata

SCHEDULED = Path(__file__).resolve().parents[2] / "templates" / "scheduled"


@pytest.fixture(scope="module")
def steps() -> dict[str, Any]:
    (workflow,) = yaml.safe_load((SCHEDULED / "workflow.yaml").read_text(encoding="utf-8")).values()
    assert workflow["params"] == ["args"]
    steps = [item for step in workflow["steps"] for item in step.items()]
    assert len(dict(steps)) == len(steps)
    return dict(steps)


@pytest.fixture(scope="module")
def argument() -> dict[str, Any]:
    loaded = json.loads((SCHEDULED / "argument.example.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def filled(body: Any, values: dict[str, Any]) -> Any:
    """The body with each expression replaced by its value."""
    if isinstance(body, dict):
        return {key: filled(value, values) for key, value in body.items()}
    return values[body]


def test_the_launch_is_one_that_the_api_takes(steps: dict[str, Any], argument: dict[str, Any]) -> None:
    launch = steps["launch"]
    assert launch["call"] == "googleapis.dataflow.v1b3.projects.locations.flexTemplates.launch"
    assert launch["args"].keys() == {"projectId", "location", "body"}
    values = {f"${{args.{name}}}": value for name, value in argument.items()} | {
        '${"hear-" + string(int(sys.now()))}': "hear-1767225600",
        '${default(map.get(args, "subnetwork"), "")}': argument["subnetwork"],
        "${addresses}": "WORKER_IP_PRIVATE",
    }
    body = filled(launch["args"]["body"], values)
    request = LaunchFlexTemplateRequest.from_json(json.dumps(body), ignore_unknown_fields=False)
    launched = request.launch_parameter
    assert launched.container_spec_gcs_path == argument["template"]
    assert dict(launched.parameters) == argument["parameters"]
    assert launched.environment == FlexTemplateRuntimeEnvironment(
        service_account_email=argument["worker_account"],
        staging_location=argument["staging_location"],
        temp_location=argument["temp_location"],
        subnetwork=argument["subnetwork"],
        ip_configuration="WORKER_IP_PRIVATE",
    )


def test_the_example_is_a_launch_that_the_template_takes(argument: dict[str, Any]) -> None:
    parameters = {parameter["name"]: parameter for parameter in metadata()["parameters"]}
    for name, value in argument["parameters"].items():
        assert re.search(parameters[name]["regexes"][0], value), name
    assert "checkpoint" in argument["parameters"]
    assert {name for name, parameter in parameters.items() if not parameter["isOptional"]} <= argument[
        "parameters"
    ].keys()


def test_every_end_of_a_job_ends_the_waiting(steps: dict[str, Any]) -> None:
    assert steps["ask"]["call"] == "googleapis.dataflow.v1b3.projects.locations.jobs.get"
    conditions = " ".join(case["condition"] for case in steps["decide"]["switch"])
    named = set(re.findall(r'"(JOB_STATE_[A-Z]+)"', conditions))
    assert named == {f"JOB_STATE_{end}" for end in ("DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED")}
    assert all(hasattr(JobState, name) for name in named)
    assert steps["decide"]["next"] == "pause"


def test_expressions_are_closed(steps: dict[str, Any]) -> None:
    expressions = re.findall(r"\$\{.*", (SCHEDULED / "workflow.yaml").read_text(encoding="utf-8"))
    assert len(expressions) > 10
    for expression in expressions:
        assert expression.endswith("}")
        assert expression.count("(") == expression.count(")")
        assert len(expression) <= 400  # what Workflows allows
