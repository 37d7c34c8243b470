"""The client of batch prediction jobs against a service of its own, over gRPC and over REST."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from endpoint.errors import JobMissing, JobRefused, JobUnreachable
from endpoint.job_service import ATTEMPTS, JobService
from endpoint.job_state import FINAL, PredictionJob
from endpoint.retry import Backoff
from tests.endpoint.job_fakes import MODEL, PARENT, FakeJobs, Fault, Moments, serve_grpc, serve_jobs, settings_for
from tests.endpoint.servers import serve_rest

LABELS = {"hear-clips": "0123abcd", "hear-run": "7"}
SOURCES = ["gs://bucket/run/clips/*.jsonl"]
RESULTS = "gs://bucket/run/results/"
LEFT_OPEN = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"]


@pytest.fixture
def fake() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def moments() -> Moments:
    return Moments()


@contextmanager
def service_at(port: int, moments: Moments, **changes: Any) -> Iterator[JobService]:
    with JobService(settings_for(port, **changes), pause=moments.pause, rng=random.Random(1)) as service:
        yield service


@pytest.fixture(params=["grpc", "rest"])
def service(request: pytest.FixtureRequest, fake: FakeJobs, moments: Moments) -> Iterator[JobService]:
    with serve_jobs(fake, request.param) as port, service_at(port, moments, transport=request.param) as made:
        yield made


@pytest.fixture
def grpc_service(fake: FakeJobs, moments: Moments) -> Iterator[JobService]:
    with serve_jobs(fake, "grpc") as port, service_at(port, moments) as made:
        yield made


@pytest.fixture
def rest_service(fake: FakeJobs, moments: Moments) -> Iterator[JobService]:
    with serve_jobs(fake, "rest") as port, service_at(port, moments, transport="rest") as made:
        yield made


def create(service: JobService, *, known: bool = False) -> PredictionJob:
    return service.create("hear 7", LABELS, SOURCES, RESULTS, known=known)


def test_a_job_is_asked_for_as_the_documentation_has_it(service: JobService, fake: FakeJobs) -> None:
    job = create(service)
    (request,) = fake.requests
    assert request.parent == PARENT
    assert json_format.MessageToDict(request.batch_prediction_job) == {
        "displayName": "hear 7",
        "model": MODEL,
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": SOURCES}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": RESULTS}},
        "dedicatedResources": {
            "machineSpec": {
                "machineType": "n1-standard-8",
                "acceleratorType": "NVIDIA_TESLA_V100",
                "acceleratorCount": 1,
            }
        },
        "manualBatchTuningParameters": {},
        "labels": LABELS,
    }
    assert fake.headers[0]["x-goog-request-params"] == f"parent={PARENT}"
    assert (job.name, job.state, job.labels) == (fake.jobs[0].name, "pending", LABELS)
    assert fake.calls == ["create"]


def test_the_official_client_s_submit_asks_for_the_same(rest_service: JobService, fake: FakeJobs) -> None:
    # The call that the HeAR API documentation shows (design.md 2.1).
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    host = rest_service.settings.host
    aiplatform.init(api_endpoint=f"http://{host}", api_transport="rest", credentials=AnonymousCredentials())
    try:
        official = aiplatform.BatchPredictionJob.submit(
            job_display_name="hear 7",
            model_name=MODEL,
            instances_format="jsonl",
            gcs_source=SOURCES,
            gcs_destination_prefix=RESULTS,
            predictions_format="jsonl",
            accelerator_type="NVIDIA_TESLA_V100",
            accelerator_count=1,
            machine_type="n1-standard-8",
            labels=LABELS,
            project="my-project",
            location="us-west1",
        )
    finally:
        aiplatform.initializer.global_config.__init__()  # type: ignore[misc]
    create(rest_service)
    theirs, ours = fake.requests
    assert ours == theirs
    assert rest_service.get(official.resource_name).link == official._dashboard_uri()


@pytest.mark.parametrize(
    ("changes", "resources"),
    [
        (
            {"starting_replicas": 2, "max_replicas": 5, "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 2},
            {
                "machineSpec": {
                    "machineType": "n1-standard-8",
                    "acceleratorType": "NVIDIA_TESLA_T4",
                    "acceleratorCount": 2,
                },
                "startingReplicaCount": 2,
                "maxReplicaCount": 5,
            },
        ),
        (
            {"machine_type": "n2-standard-16", "accelerator_count": 0},
            {"machineSpec": {"machineType": "n2-standard-16"}},
        ),
    ],
)
def test_machines_are_options(
    fake: FakeJobs, moments: Moments, changes: dict[str, Any], resources: dict[str, Any]
) -> None:
    with serve_jobs(fake, "grpc") as port, service_at(port, moments, model=f"{MODEL}@3", **changes) as service:
        create(service)
    job = fake.requests[0].batch_prediction_job
    assert json_format.MessageToDict(job.dedicated_resources) == resources
    assert job.model == f"{MODEL}@3"


def test_accelerators_are_those_of_the_official_client(moments: Moments) -> None:
    for name in ("ACCELERATOR_TYPE_UNSPECIFIED", "NVIDIA_V100"):
        with pytest.raises(
            ValueError, match=f"^batch_accelerator_type is '{name}': expected one of .*NVIDIA_L4, .*TPU_V3"
        ):
            JobService(settings_for(9, accelerator_type=name))


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"Clips": "a"},
        {"clips": "A"},
        {"1": "a"},
        {"clips": 'a"'},
        {"clips": "a" * 64},
        {"c" * 64: "a"},
        {f"k{n}": "" for n in range(65)},
    ],
)
def test_labels_that_the_service_would_refuse_are_not_sent(
    grpc_service: JobService, fake: FakeJobs, labels: dict[str, str]
) -> None:
    for call in (lambda: grpc_service.find(labels), lambda: grpc_service.create("n", labels, SOURCES, RESULTS)):
        with pytest.raises(ValueError, match="label"):
            call()
    assert fake.calls == []


@pytest.mark.parametrize(
    ("name", "sources", "results"),
    [("", SOURCES, RESULTS), ("n" * 129, SOURCES, RESULTS), ("n", ["/tmp/a"], RESULTS), ("n", SOURCES, "results")],
)
def test_files_and_names_that_the_service_would_refuse_are_not_sent(
    grpc_service: JobService, fake: FakeJobs, name: str, sources: list[str], results: str
) -> None:
    with pytest.raises(ValueError, match="expected"):
        grpc_service.create(name, LABELS, sources, results)
    assert fake.calls == []


@pytest.mark.parametrize("code", LEFT_OPEN)
def test_a_job_whose_answer_was_lost_is_found_and_not_created_again(
    service: JobService, fake: FakeJobs, code: str
) -> None:
    fake.fail("create", Fault(code, is_done=True))
    assert create(service).name == fake.jobs[0].name
    assert fake.calls == ["create", "list"]


def test_nor_after_a_connection_that_was_lost(rest_service: JobService, fake: FakeJobs) -> None:
    fake.fail("create", Fault("hang up", is_done=True))
    assert create(rest_service).name == fake.jobs[0].name
    assert fake.calls == ["create", "list"]


def test_nor_where_lists_lag_behind(service: JobService, fake: FakeJobs, moments: Moments) -> None:
    fake.fail("create", Fault("UNAVAILABLE", is_done=True))
    fake.lag = 5
    assert create(service).name == fake.jobs[0].name
    assert fake.calls == ["create"] + ["list"] * 6
    assert moments.now_s == 60


@pytest.mark.parametrize("code", LEFT_OPEN)
def test_a_job_that_was_not_created_is_asked_for_again_after_a_minute(
    service: JobService, fake: FakeJobs, moments: Moments, code: str
) -> None:
    fake.fail("create", Fault(code))
    assert create(service).name == fake.jobs[0].name
    assert fake.calls == ["create"] + ["list"] * 6 + ["create"]
    assert len(fake.jobs) == 1
    assert moments.now_s >= 60


def test_a_quota_needs_no_look(service: JobService, fake: FakeJobs) -> None:
    fake.fail("create", *[Fault("RESOURCE_EXHAUSTED")] * 3)
    create(service)
    assert fake.calls == ["create"] * 4


def test_what_an_earlier_process_may_have_asked_for_is_looked_for_first(
    service: JobService, fake: FakeJobs, moments: Moments
) -> None:
    create(service)
    fake.calls.clear()
    fake.lag = 2
    assert create(service, known=True).name == fake.jobs[0].name
    assert fake.calls == ["list"] * 3
    assert moments.pauses == [2, 4]


def test_a_job_is_not_looked_for_by_its_further_labels(service: JobService, fake: FakeJobs) -> None:
    service.create("hear 7", LABELS, SOURCES, RESULTS, further_labels={"hear-checkpoint": "a"})
    assert dict(fake.jobs[0].labels) == {**LABELS, "hear-checkpoint": "a"}
    again = service.create("hear 7", LABELS, SOURCES, RESULTS, known=True, further_labels={"hear-checkpoint": "b"})
    assert again.name == fake.jobs[0].name


def test_and_created_if_it_is_not_there(service: JobService, fake: FakeJobs) -> None:
    fake.add({"hear-clips": "others"})
    assert create(service, known=True).name == fake.jobs[1].name
    assert fake.calls == ["list"] * 6 + ["create"]


def test_a_job_that_may_be_there_or_not_is_not_asked_for_again(service: JobService, fake: FakeJobs) -> None:
    fake.fail("create", Fault("UNAVAILABLE", is_done=True))
    fake.fail("list", *[Fault("UNAVAILABLE")] * ATTEMPTS)
    with pytest.raises(JobUnreachable, match=r"did not say whether it created .* run the same command again"):
        create(service)
    assert fake.calls == ["create"] + ["list"] * ATTEMPTS
    # The next run.
    assert create(service, known=True).name == fake.jobs[0].name
    assert len(fake.jobs) == 1


def test_a_service_that_stays_away_is_given_up(service: JobService, fake: FakeJobs) -> None:
    fake.fail("create", *[Fault("INTERNAL")] * 100)
    with pytest.raises(
        JobUnreachable, match=r"asked to create .* \(INTERNAL, 8 attempts\).*run the same command again"
    ):
        create(service)
    assert fake.calls.count("create") == ATTEMPTS
    fake.fail("get", *[Fault("UNAVAILABLE")] * 100)
    with pytest.raises(JobUnreachable, match=r"tell about .* \(UNAVAILABLE, 8 attempts\)"):
        service.get(f"{PARENT}/batchPredictionJobs/1")


def test_pauses_between_attempts_grow_and_keep_to_the_service_s_wish(fake: FakeJobs, moments: Moments) -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    fake.fail("get", *[Fault("UNAVAILABLE")] * 7)
    job = fake.add(LABELS)
    with (
        serve_jobs(fake, "grpc") as port,
        JobService(
            settings_for(port), pause=moments.pause, rng=Longest(), backoff=Backoff(base_s=1, cap_s=16)
        ) as service,
    ):
        assert service.get(job.name).name == job.name
    assert moments.pauses == [1, 2, 4, 8, 16, 16, 16]


@pytest.mark.parametrize(
    ("code", "remedies"),
    [
        ("PERMISSION_DENIED", ["aiplatform.batchPredictionJobs.create", "roles/aiplatform.user", "service agent"]),
        ("INVALID_ARGUMENT", ["n1-standard-8 with 1 x NVIDIA_TESLA_V100", "--instance_format", "location us-west1"]),
        ("FAILED_PRECONDITION", ["service agent", "may read and write the bucket"]),
        ("NOT_FOUND", ["--batch_model", "--batch_project"]),
        ("UNIMPLEMENTED", ["check the host"]),
        ("UNAUTHENTICATED", ["gcloud auth application-default login"]),
    ],
)
def test_a_refusal_names_model_project_status_and_remedy(
    service: JobService, fake: FakeJobs, code: str, remedies: list[str]
) -> None:
    calls = 2 if code == "UNAUTHENTICATED" else 1  # once more with other credentials
    fake.fail("create", *[Fault(code)] * calls)
    with pytest.raises(JobRefused) as caught:
        create(service)
    for part in (MODEL, "my-project", service.settings.host, code, *remedies):
        assert part in caught.value.message
    assert "0.734375" not in repr(caught.value)
    assert caught.value.__context__ is None
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    assert fake.calls == ["create"] * calls
    assert fake.jobs == []


def test_a_quota_that_stays_used_up_is_a_refusal(service: JobService, fake: FakeJobs) -> None:
    fake.fail("create", *[Fault("RESOURCE_EXHAUSTED")] * ATTEMPTS)
    with pytest.raises(JobRefused, match="a quota of project my-project in us-west1 is used up"):
        create(service)
    assert fake.calls == ["create"] * ATTEMPTS


@pytest.mark.parametrize("method", ["get", "list"])
def test_refusals_of_what_changes_nothing_name_the_permission(service: JobService, fake: FakeJobs, method: str) -> None:
    fake.fail(method, Fault("PERMISSION_DENIED"))
    with pytest.raises(
        JobRefused,
        match=f"the account that is signed in needs aiplatform.batchPredictionJobs.{method} in project my-project",
    ):
        service.find(LABELS) if method == "list" else service.get(f"{PARENT}/batchPredictionJobs/1")


def test_a_job_that_is_not_there(service: JobService) -> None:
    with pytest.raises(JobMissing, match=f"about the batch prediction job {PARENT}/batchPredictionJobs/5 .*deleted"):
        service.get(f"{PARENT}/batchPredictionJobs/5")


@pytest.mark.parametrize("ignores_filter", [False, True])
def test_jobs_are_found_by_all_of_their_labels_newest_first(
    service: JobService, fake: FakeJobs, ignores_filter: bool
) -> None:
    fake.page_size, fake.ignores_filter = 2, ignores_filter
    wanted = [fake.add({**LABELS, "more": str(n)}).name for n in range(5)]
    fake.add({"hear-run": "7"})
    fake.add({**LABELS, "hear-run": "8"})
    fake.fail("list", Fault("UNAVAILABLE"))
    assert [job.name for job in service.find(LABELS)] == wanted[::-1]
    tokens = [request.page_token for request in fake.requests]
    assert tokens == (["", "", "2", "4"] if not ignores_filter else ["", "", "2", "4", "6"])


def test_no_jobs(service: JobService) -> None:
    assert service.find(LABELS) == []


@pytest.mark.parametrize("state", list(types.JobState), ids=lambda state: state.name)
def test_every_state_of_the_official_client_is_known(grpc_service: JobService, fake: FakeJobs, state: Any) -> None:
    job = grpc_service.get(fake.add(LABELS, state.name).name)
    assert f"JOB_STATE_{job.state.upper()}" == state.name.replace("UNSPECIFIED", "UNKNOWN")
    # As the high-level client has them (`aiplatform.jobs._JOB_COMPLETE_STATES`), and a job that has expired has ended too.
    ended = {"SUCCEEDED", "FAILED", "CANCELLED", "PARTIALLY_SUCCEEDED", "EXPIRED"}
    assert job.is_final == (job.state in FINAL) == (state.name.removeprefix("JOB_STATE_") in ended)


def test_a_state_that_is_newer_than_the_client_is_not_final(service: JobService, fake: FakeJobs) -> None:
    fake.add(LABELS).state = 99
    job = service.get(fake.jobs[0].name)
    assert (job.state, job.is_final) == ("unknown", False)


def test_what_a_job_tells(service: JobService, fake: FakeJobs) -> None:
    made = fake.add(LABELS, "JOB_STATE_RUNNING", display_name="hear 7", model=f"{MODEL}@golden", model_version_id="2")
    made.output_info.gcs_output_directory = "gs://bucket/run/results/prediction-hear-2026"
    made.completion_stats.successful_count = 40
    made.completion_stats.failed_count = 2
    made.completion_stats.incomplete_count = 58
    made.create_time.FromJsonString("2026-10-01T12:00:00.500Z")
    assert service.get(made.name) == PredictionJob(
        name=made.name,
        display_name="hear 7",
        labels=LABELS,
        state="running",
        output_folder="gs://bucket/run/results/prediction-hear-2026",
        model=f"{MODEL}@2",
        created="2026-10-01T12:00:00.500000+00:00",
        done=40,
        failed=2,
        total=100,
    )


def test_what_a_job_does_not_tell(service: JobService, fake: FakeJobs) -> None:
    made = fake.add(LABELS, model=MODEL)
    made.ClearField("create_time")
    job = service.get(made.name)
    assert (job.model, job.created, job.output_folder) == (MODEL, "", "")
    assert (job.done, job.failed, job.total, job.error) == (None, None, None, None)
    made.completion_stats.incomplete_count = -1
    job = service.get(made.name)
    assert (job.done, job.failed, job.total) == (0, 0, None)


def test_a_job_s_own_error_is_told_without_what_it_echoes(service: JobService, fake: FakeJobs) -> None:
    made = fake.add(LABELS, "JOB_STATE_FAILED")
    made.error.code = 8
    made.error.message = (
        "Quota CustomModelServingV100GPUsPerProjectPerRegion\nis exceeded [0.734375, 0.5] Bearer ya29.abc"
    )
    job = service.get(made.name)
    assert job.error == "RESOURCE_EXHAUSTED: Quota CustomModelServingV100GPUsPerProjectPerRegion is exceeded […"
    made.error.Clear()
    made.partial_failures.add(code=7, message="no access to gs://my-bucket/clips")
    assert service.get(made.name).error == "PERMISSION_DENIED: no access to gs://my-bucket/clips"
    made.partial_failures[0].code = 77
    made.partial_failures[0].message = ""
    assert service.get(made.name).error == "code 77"


@pytest.mark.parametrize("status", [200, 204, 302])
def test_answers_that_are_none_are_no_job(fake: FakeJobs, moments: Moments, status: int) -> None:
    def log_in_page(_: object) -> Any:
        return status, {"Location": "http://127.0.0.1:9/"}, b"{}" if status == 200 else b"<html>Log in"

    with (
        serve_rest(log_in_page) as port,
        service_at(port, moments, transport="rest") as service,
        pytest.raises(JobRefused if status == 302 else JobUnreachable),
    ):
        service.get(f"{PARENT}/batchPredictionJobs/1")


def test_a_service_that_is_not_there_is_out_of_reach(moments: Moments) -> None:
    with serve_grpc(FakeJobs()) as port:
        pass
    for transport in ("grpc", "rest"):
        with (
            service_at(port, moments, transport=transport) as service,
            pytest.raises(JobUnreachable, match="UNAVAILABLE"),
        ):
            service.get(f"{PARENT}/batchPredictionJobs/1")


def test_ctrl_c_is_passed_on(fake: FakeJobs) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    fake.fail("create", Fault("UNAVAILABLE", is_done=True))
    fake.lag = 1
    with serve_jobs(fake, "grpc") as port, JobService(settings_for(port), pause=interrupt) as service:
        with pytest.raises(KeyboardInterrupt):
            create(service)
        # The next run.
        assert create(service, known=True).name == fake.jobs[0].name
    assert len(fake.jobs) == 1


def test_a_job_is_cancelled(service: JobService, fake: FakeJobs) -> None:
    name = fake.add(LABELS, "JOB_STATE_RUNNING").name
    fake.fail("cancel", Fault("UNAVAILABLE"))
    service.cancel(name)
    assert fake.calls == ["cancel", "cancel"]
    assert service.get(name).state == "cancelling"
    with pytest.raises(JobMissing, match="did not cancel the batch prediction job"):
        service.cancel(name.replace("/1", "/7") if name.endswith("/1") else f"{name}7")
