"""Jobs under names of their own, by a client that answers as it is told."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions

from rows.bigquery import TableName
from transforms.bigquery_jobs import Merged, TableError, bigquery_client, explain_load, reason, run_merge, stop_jobs
from transforms.interruption import INTERRUPTION

TABLE = TableName("my-project", "study", "coughs")
DUPLICATE = exceptions.Conflict("a secret of the service")


class Stats:
    inserted_row_count, updated_row_count, deleted_row_count = 3, 2, None


class Job:
    """A job that is at work for some looks, then ends."""

    def __init__(self, error: dict[str, str] | None = None, looks: int = 0) -> None:
        self._error = error
        self._looks = looks
        self.dml_stats = Stats()
        self.was_cancelled = False

    @property
    def state(self) -> str:
        return "RUNNING" if self._looks else "DONE"

    @property
    def error_result(self) -> dict[str, str] | None:
        return None if self._looks else self._error

    def reload(self, **_: object) -> None:
        self._looks -= 1

    def cancel(self, **_: object) -> None:
        self.was_cancelled = True


class Client:
    """Answers to the start of jobs in turn; `there` are those that can be got, which an answer adds to if it is lost."""

    project = "my-project"

    def __init__(self, *answers: Job | Exception, there: dict[str, Any] | None = None) -> None:
        self._answers = list(answers)
        self.there = there or {}
        self.started: list[str] = []

    def query(self, statement: str, *, job_id: str, **_: object) -> Job:
        assert statement == "MERGE"
        self.started.append(job_id)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_job(self, job_id: str, **_: object) -> Job:
        found = self.there.get(job_id)
        if isinstance(found, list):
            found = found.pop(0)
        if found is None:
            raise exceptions.NotFound("nothing")
        return found


def merge(client: Client, pauses: list[float] | None = None) -> Merged:
    return run_merge(client, "MERGE", "stem", TABLE, "EU", pause=[].append if pauses is None else pauses.append)  # type: ignore[arg-type]


def test_a_job_is_waited_for_and_says_what_it_did() -> None:
    pauses: list[float] = []
    assert merge(Client(Job(looks=3)), pauses) == Merged(3, 2, 0, "my-project:EU.stem_0")
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_a_job_that_is_there_already_is_waited_for_instead_even_if_it_is_not_found_at_once() -> None:
    client = Client(DUPLICATE, there={"stem_0": [None, None, Job(looks=1)]})
    assert merge(client).job == "my-project:EU.stem_0"
    assert client.started == ["stem_0"]


@pytest.mark.parametrize(
    "error",
    [
        {"reason": "backendError"},
        {"reason": "jobInternalError"},
        {"reason": "rateLimitExceeded"},
        {"reason": "invalidQuery", "message": "Could not serialize access to table x due to concurrent update"},
        {"reason": "invalidQuery", "message": "Transaction is aborted due to concurrent update against table x"},
    ],
)
def test_a_job_that_failed_in_passing_is_followed_by_the_next(error: dict[str, str]) -> None:
    client = Client(Job(error), DUPLICATE, Job(), there={"stem_1": Job(error)})
    assert merge(client).job == "my-project:EU.stem_2"
    assert client.started == ["stem_0", "stem_1", "stem_2"]


def test_a_job_that_keeps_failing_ends_the_attempts() -> None:
    pauses: list[float] = []
    with pytest.raises(TableError, match=r"failed \(backendError\): 'bq show -j my-project:EU\.stem_7'"):
        merge(Client(*(Job({"reason": "backendError"}) for _ in range(8))), pauses)
    assert sum(pauses) > 60


def test_a_job_that_failed_for_good_is_told_without_the_text_of_the_service() -> None:
    client = Client(Job({"reason": "invalidQuery", "message": "a secret of the service"}))
    with pytest.raises(TableError) as raised:
        merge(client)
    assert "failed (invalidQuery)" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert client.started == ["stem_0"]


def test_what_the_client_raises_is_told_by_its_code() -> None:
    forbidden = exceptions.Forbidden("a secret of the service", errors=[{"reason": "accessDenied"}])
    with pytest.raises(
        TableError, match=r"stem_0 that merges rows into my-project\.study\.coughs .*\(HTTP 403, accessDenied\)"
    ):
        merge(Client(forbidden))
    assert reason(exceptions.RetryError("too long", exceptions.ServiceUnavailable("x"))) == "HTTP 503"
    assert reason(ConnectionError("x")) == "ConnectionError"


def test_waiting_ends_when_the_process_is_asked_to_stop() -> None:
    INTERRUPTION.ask()
    try:
        with pytest.raises(KeyboardInterrupt):
            merge(Client(Job(looks=1)))
    finally:
        INTERRUPTION.forget()


def test_jobs_at_work_are_ended_before_their_tables_go() -> None:
    done, at_work = Job(), Job(looks=2)
    client = Client(there={"stem_0": done, "stem_1": at_work})
    stop_jobs(client, "stem", "EU", pause=[].append)  # type: ignore[arg-type]
    assert (done.was_cancelled, at_work.was_cancelled, at_work.state) == (False, True, "DONE")


def test_a_server_elsewhere_is_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://example.org:9050")
    with pytest.raises(TableError, match="expected a server on this machine"):
        bigquery_client("my-project")


STEP = " [while running 'Write to BigQuery/Load recordings/BigQueryBatchFileLoads/TriggerLoadJobsWithoutTempTables/ParDo(TriggerLoadJobs)']"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "RuntimeError: apitools.base.py.exceptions.HttpForbiddenError: HttpError accessing <https://x>: response: <{'status': '403'}>, "
            'content <{"error": {"errors": [{"reason": "accessDenied", "message": "a secret"}]}}>' + STEP,
            "loading recordings into BigQuery failed (HTTP 403, accessDenied)",
        ),
        (
            "RuntimeError: BigQuery job beam_bq_job_1 failed. Error Result: <ErrorProto\n message: 'a secret'\n reason: 'invalid'>"
            + STEP,
            "the job beam_bq_job_1 that loads recordings into BigQuery failed (invalid)",
        ),
        (
            "RuntimeError: ConnectionRefusedError: [Errno 111] a secret" + STEP.replace("'", r"\'"),
            "(ConnectionRefusedError)",
        ),
        (
            'File "apache_beam/io/gcp/bigquery_file_loads.py", line 309, in finish_bundle\n'
            "google.cloud.storage.exceptions.InvalidResponse: (403, 'a secret')",
            "loading rows into BigQuery failed (HTTP 403)",
        ),
    ],
)
def test_what_beam_raises_while_it_loads_is_said_in_one_line(text: str, said: str) -> None:
    explained = explain_load(text)
    assert explained is not None
    assert said in explained
    assert "secret" not in explained


def test_other_stack_traces_are_not_explained() -> None:
    assert explain_load("ValueError: x [while running 'Embed/Embed']") is None
