"""The scheduled relaunches ask Dataflow and Vertex AI for what their APIs know, with parameters that the template has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.aiplatform_v1 import types as aiplatform
from google.cloud.dataflow_v1beta3.types import FlexTemplateRuntimeEnvironment, JobState, LaunchFlexTemplateRequest
from google.protobuf import json_format

from emulator.job_filter import job_filter
from emulator.job_messages import BatchPredictionJob
from pipeline.template import metadata
from tests.templates.workflows import Raised, Workflow
from transforms.submit_job import checkpoint_label

SCHEDULED = Path(__file__).resolve().parents[2] / "templates" / "scheduled"
PROJECT = "my-project"
BEGAN_S = 1767225600.0
LAUNCH = "googleapis.dataflow.v1b3.projects.locations.flexTemplates.launch"
GET_JOB = "googleapis.dataflow.v1b3.projects.locations.jobs.get"


@pytest.fixture(scope="module")
def argument() -> dict[str, Any]:
    return read_argument("argument.example.json")


@pytest.fixture(scope="module")
def batch_argument() -> dict[str, Any]:
    return read_argument("argument.batch.example.json")


def read_argument(name: str) -> dict[str, Any]:
    loaded = json.loads((SCHEDULED / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def nothing(_: object) -> None:
    """Changes nothing."""


@dataclass
class Cloud:
    """Dataflow and Vertex AI as a workflow sees them; time passes while it sleeps."""

    ends: dict[str, str] = field(default_factory=dict)
    """The states in which jobs on Dataflow end, by the step that they do; all others are done."""
    on_launched: Callable[[LaunchFlexTemplateRequest], None] = nothing
    now_s: float = BEGAN_S
    launches: list[LaunchFlexTemplateRequest] = field(default_factory=list)
    predictions: list[Any] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What happened, in its order."""
    _looks: int = 0

    def execute(self, name: str, argument: dict[str, Any]) -> Any:
        """What an execution of the workflow returns."""
        source = yaml.safe_load((SCHEDULED / name).read_text(encoding="utf-8"))
        calls = {LAUNCH: self._launch, GET_JOB: self._get, "http.get": self._list, "sys.sleep": self._sleep}
        return Workflow(source, calls, lambda: self.now_s, PROJECT).run(argument)

    def add_prediction(self, state: str, checkpoint: str, created_s: float) -> None:
        """A batch prediction job of a checkpoint."""
        job = BatchPredictionJob(labels={"hear-checkpoint": checkpoint_label(checkpoint)})
        job.name = f"projects/1/locations/us-west1/batchPredictionJobs/{len(self.predictions) + 1}"
        job.state = aiplatform.JobState[f"JOB_STATE_{state}"].value
        job.create_time.FromNanoseconds(int(created_s * 1e9))
        self.predictions.append(job)

    def _launch(self, args: dict[str, Any]) -> dict[str, Any]:
        assert args.keys() == {"projectId", "location", "body"}
        assert (args["projectId"], args["location"]) == (PROJECT, "us-west1")
        request = LaunchFlexTemplateRequest.from_json(json.dumps(args["body"]), ignore_unknown_fields=False)
        parameters = {parameter["name"]: parameter for parameter in metadata()["parameters"]}
        for name, value in request.launch_parameter.parameters.items():
            assert re.search(parameters[name]["regexes"][0], value), name
        self.launches.append(request)
        self._looks = 0
        self.said.append(f"launched {request.launch_parameter.parameters.get('batch_step', 'a job')}")
        self.on_launched(request)
        return {"job": {"id": f"job-{len(self.launches)}"}}

    def _get(self, args: dict[str, Any]) -> dict[str, Any]:
        """The last job is at work when it is looked at first, and has ended the second time."""
        assert args == {"projectId": PROJECT, "location": "us-west1", "jobId": f"job-{len(self.launches)}"}
        self._looks += 1
        step = self.launches[-1].launch_parameter.parameters.get("batch_step", "")
        state = "RUNNING" if self._looks == 1 else self.ends.get(step, "DONE")
        assert hasattr(JobState, f"JOB_STATE_{state}")
        return {"id": args["jobId"], "currentState": f"JOB_STATE_{state}"}

    def _list(self, args: dict[str, Any]) -> dict[str, Any]:
        assert args["auth"] == {"type": "OAuth2"}
        assert args["url"] == (
            "https://us-west1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-west1/batchPredictionJobs"
        )
        assert args["query"].keys() == {"filter"}
        is_asked_for = job_filter(args["query"]["filter"])
        found = [json_format.MessageToDict(job) for job in self.predictions if is_asked_for(job)]
        self.said.append(f"found {len(found)}")
        return {"body": {"batchPredictionJobs": found} if found else {}}

    def _sleep(self, args: dict[str, Any]) -> None:
        assert args.keys() == {"seconds"}
        self.now_s += args["seconds"]
        assert self.now_s < BEGAN_S + 86400, "it waits for nothing"


def environment_of(argument: dict[str, Any]) -> FlexTemplateRuntimeEnvironment:
    return FlexTemplateRuntimeEnvironment(
        service_account_email=argument["worker_account"],
        staging_location=argument["staging_location"],
        temp_location=argument["temp_location"],
        subnetwork=argument["subnetwork"],
        ip_configuration="WORKER_IP_PRIVATE",
    )


def test_the_launch_is_one_that_the_api_takes(argument: dict[str, Any]) -> None:
    cloud = Cloud()
    assert cloud.execute("workflow.yaml", argument) == "job-1"
    (request,) = cloud.launches
    launched = request.launch_parameter
    assert launched.job_name == "hear-1767225600"
    assert launched.container_spec_gcs_path == argument["template"]
    assert dict(launched.parameters) == argument["parameters"]
    assert launched.environment == environment_of(argument)


def test_nobody_waits_unless_asked_to(argument: dict[str, Any]) -> None:
    cloud = Cloud()
    short = {name: value for name, value in argument.items() if name not in ("wait", "private_ips", "subnetwork")}
    assert cloud.execute("workflow.yaml", short) == "job-1"
    assert cloud.now_s == BEGAN_S
    assert cloud.launches[0].launch_parameter.environment.ip_configuration.name == "WORKER_IP_UNSPECIFIED"


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "DRAINED", "UPDATED"])
@pytest.mark.parametrize(("name", "step"), [("workflow.yaml", ""), ("batch.yaml", "write"), ("batch.yaml", "join")])
def test_every_other_end_of_a_job_fails_the_execution(
    name: str, step: str, end: str, argument: dict[str, Any], batch_argument: dict[str, Any]
) -> None:
    cloud = Cloud({step: end})
    with pytest.raises(Raised, match=rf"job job-\d .*ended as JOB_STATE_{end}$"):
        cloud.execute(name, batch_argument if step else argument)
    assert cloud.launches[-1].launch_parameter.parameters.get("batch_step", "") == step


@pytest.mark.parametrize("name", ["argument.example.json", "argument.batch.example.json"])
def test_the_example_is_a_launch_that_the_template_takes(name: str) -> None:
    given = read_argument(name)["parameters"]
    parameters = {parameter["name"]: parameter for parameter in metadata()["parameters"]}
    for option, value in given.items():
        assert re.search(parameters[option]["regexes"][0], value), option
    assert "checkpoint" in given
    assert {option for option, parameter in parameters.items() if not parameter["isOptional"]} <= given.keys()


@pytest.mark.parametrize("name", ["workflow.yaml", "batch.yaml"])
def test_expressions_are_closed(name: str) -> None:
    expressions = re.findall(r"\$\{.*", (SCHEDULED / name).read_text(encoding="utf-8"))
    assert len(expressions) > 10
    for expression in expressions:
        assert expression.endswith("}")
        assert expression.count("(") == expression.count(")")
        assert len(expression) <= 400  # what Workflows allows


def test_a_batch_is_two_launches_with_a_wait_between_them(batch_argument: dict[str, Any]) -> None:
    """Whose jobs are waited for: those of the checkpoint, not others."""
    checkpoint = batch_argument["parameters"]["checkpoint"]
    cloud = Cloud()
    cloud.add_prediction("FAILED", checkpoint, BEGAN_S - 86400)
    cloud.add_prediction("RUNNING", f"{checkpoint}-of-others", BEGAN_S - 60)

    def submit(request: LaunchFlexTemplateRequest) -> None:
        if request.launch_parameter.parameters["batch_step"] == "write":
            cloud.add_prediction("SUCCEEDED", checkpoint, cloud.now_s + 30)

    cloud.on_launched = submit
    assert cloud.execute("batch.yaml", batch_argument) == "job-2"
    assert cloud.said == ["found 0", "launched write", "found 0", "launched join", "found 0"]
    for request, step in zip(cloud.launches, ("write", "join"), strict=True):
        launched = request.launch_parameter
        assert launched.job_name.startswith(f"hear-{step}-17672")
        assert dict(launched.parameters) == {**batch_argument["parameters"], "send": "batch", "batch_step": step}
        assert launched.environment == environment_of(batch_argument)


@pytest.mark.parametrize("state", [state.name for state in aiplatform.JobState if state])
def test_jobs_are_waited_for_until_they_have_ended(state: str, batch_argument: dict[str, Any]) -> None:
    """One that an earlier execution has left, before anything is launched."""
    has_ended = state.removeprefix("JOB_STATE_") in (
        *("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"),
    )
    cloud = Cloud()
    cloud.add_prediction(state.removeprefix("JOB_STATE_"), batch_argument["parameters"]["checkpoint"], BEGAN_S - 86400)
    sleep = cloud._sleep

    def end_after_an_hour(args: dict[str, Any]) -> None:
        sleep(args)
        if cloud.now_s >= BEGAN_S + 3600:
            cloud.predictions[0].state = aiplatform.JobState.JOB_STATE_SUCCEEDED.value

    cloud._sleep = end_after_an_hour  # type: ignore[method-assign]
    # With a slash at its end, which the command leaves out.
    slashed = {**batch_argument["parameters"], "checkpoint": batch_argument["parameters"]["checkpoint"] + "/"}
    assert cloud.execute("batch.yaml", {**batch_argument, "parameters": slashed}) == "job-2"
    assert cloud.said.index("launched write") == (1 if has_ended else 60)


def test_clips_that_the_model_refused_are_told_by_the_tables(batch_argument: dict[str, Any]) -> None:
    cloud = Cloud()
    cloud.on_launched = lambda _: cloud.add_prediction(
        "PARTIALLY_SUCCEEDED", batch_argument["parameters"]["checkpoint"], cloud.now_s + 1
    )
    assert cloud.execute("batch.yaml", batch_argument) == "job-2"


def test_a_job_that_falls_short_has_its_results_stored_and_fails_the_execution(batch_argument: dict[str, Any]) -> None:
    cloud = Cloud()
    cloud.on_launched = lambda _: cloud.add_prediction(
        "FAILED", batch_argument["parameters"]["checkpoint"], cloud.now_s + 1
    )
    with pytest.raises(Raised, match="batchPredictionJobs/1 ended as JOB_STATE_FAILED; what it has answered is stored"):
        cloud.execute("batch.yaml", batch_argument)
    assert [line for line in cloud.said if "launched" in line] == ["launched write", "launched join"]
