"""BigQuery's own client, and jobs under names of their own: whoever asks for one again gets the one that is there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from audio.fetch import keep_authorization
from rows.bigquery import TableName
from transforms.interruption import INTERRUPTION
from transforms.quiet import LOAD_ERROR

if TYPE_CHECKING:
    from google.cloud import bigquery

EMULATOR: Final = "BIGQUERY_EMULATOR_HOST"
RETRY_FOR_S: Final = 120.0
"""A call that fails in a way that may pass is repeated for so long."""
_ANSWER_WITHIN_S: Final = 60.0
_MAX_ATTEMPTS: Final = 8
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 32.0
_LONGEST_POLL_S: Final = 10.0
_UNTIL_FOUND_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""A job that is there already is sometimes not found for a while (googleapis/python-bigquery issue 2134)."""
# https://cloud.google.com/bigquery/docs/error-messages
_PASSING: Final = frozenset(
    {"backendError", "internalError", "jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
    | {"quotaExceeded", "rateLimitExceeded", "stopped", "tableUnavailable", "timeout"}
)
_CONFLICT: Final = re.compile(r"concurrent update|could not serialize|too many DML", re.IGNORECASE)
"""Such a failure's reason is `invalidQuery`, as that of a mistake is; only its text tells."""


class TableError(Exception):
    """Something could not be done in BigQuery; the message names it and says why."""


class Merged(NamedTuple):
    """What a job did to a table."""

    inserted: int
    updated: int
    deleted: int
    job: str
    """`PROJECT:LOCATION.ID`, as `bq show -j` takes it."""


def bigquery_client(project: str) -> bigquery.Client:
    """A client whose jobs run in `project`; anonymous to a server on this machine (BIGQUERY_EMULATOR_HOST).

    Raises TableError without credentials, and for a server elsewhere.
    """
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import bigquery

    emulator = os.environ.get(EMULATOR)
    if emulator and urlsplit(emulator).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise TableError(
            f"{EMULATOR} is {emulator!r}: expected a server on this machine, such as http://127.0.0.1:9050"
        )
    try:
        client = bigquery.Client(project=project, credentials=AnonymousCredentials() if emulator else None)
    except GoogleAuthError as error:
        raise TableError(
            f"no usable credentials for BigQuery ({type(error).__name__}): run 'gcloud auth application-default login'"
        ) from None
    keep_authorization(client)
    return client


def retry(for_s: float = RETRY_FOR_S) -> Any:
    """The client's own policy, with an end, and for all answers of the kind 5xx."""
    from google.api_core.exceptions import ServerError
    from google.api_core.retry import Retry
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    def may_pass(error: Exception) -> bool:
        return isinstance(error, ServerError) or bool(DEFAULT_RETRY._predicate(error))

    return Retry(may_pass, initial=0.5, maximum=16.0, timeout=for_s)


def reason(error: BaseException) -> str:
    """What an error of the client is, without the service's text: `HTTP 403, accessDenied`, or the exception's name."""
    error = getattr(error, "cause", None) or error  # of a RetryError
    code = getattr(error, "code", None)
    if not isinstance(code, int):
        return type(error).__name__
    named = next((item.get("reason") for item in getattr(error, "errors", []) if isinstance(item, dict)), None)
    return f"HTTP {int(code)}" + (f", {named}" if isinstance(named, str) and re.fullmatch(r"\w{1,60}", named) else "")


def table_error(error: BaseException, doing: str) -> TableError:
    """The error of something that could not be done, such as `removing p.d.t`."""
    return TableError(f"{doing} in BigQuery failed ({reason(error)}): is it there, and may it be done?")


def explain_load(text: str) -> str | None:
    """What a stack trace of Beam's loading steps is about, without the service's text; None if it is of something else."""
    kinds = LOAD_ERROR.findall(text)
    if not kinds:
        return None
    because = []
    if (status := re.search(r"(?:status\W{1,6}|InvalidResponse: \()(\d{3})\b", text)) is not None:
        because.append(f"HTTP {status[1]}")
    if (named := re.search(r"\breason\W{1,8}(\w{1,60})\b", text)) is not None:
        because.append(named[1])
    if not because:
        because += re.findall(r"(\w*(?:Error|Exception|Timeout|Forbidden|NotFound))\b: ", text)[-1:]
    job = re.search(r"BigQuery job (\S+) failed", text)
    what = max(kinds) or "rows"
    return (
        f"{f'the job {job[1]} that loads {what}' if job else f'loading {what}'} into BigQuery failed ({', '.join(because) or 'unknown'}): "
        "may the load files be written and read, the dataset's tables be written, and jobs be run? The same command tries again, and "
        "sends nothing that was answered"
    )


def run_merge(
    client: bigquery.Client,
    statement: str,
    stem: str,
    table: TableName,
    location: str,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Merged:
    """Runs a MERGE once, whatever is repeated: a job of the same name is waited for instead, in whatever state it is.

    A job that failed in a way that may pass is followed by one of another name.

    Args:
      client: of the project in which the job runs.
      statement: the MERGE.
      stem: of the jobs' names, which end with the number of the attempt; the same for the same rows.
      table: the target, for messages.
      location: of the dataset.
      pause: replaceable in tests.

    Raises TableError; KeyboardInterrupt when this process is asked to stop, while the job goes on.
    """
    for attempt in range(_MAX_ATTEMPTS):
        job_id = f"{stem}_{attempt}"
        try:
            job = _start(client, statement, job_id, location, pause)
            _wait(job, pause)
        except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
            raise table_error(error, f"the job {job_id} that merges rows into {table}") from None
        name = f"{client.project}:{location}.{job_id}"
        if job.error_result is None:
            stats = job.dml_stats
            counts = (
                (stats.inserted_row_count, stats.updated_row_count, stats.deleted_row_count) if stats else (0, 0, 0)
            )
            inserted, updated, deleted = (int(count or 0) for count in counts)
            return Merged(inserted, updated, deleted, name)
        if not _may_pass(job.error_result):
            break
        pause(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
    raise TableError(
        f"the job that merges rows into {table} failed ({job.error_result.get('reason')}): 'bq show -j {name}' says more; the "
        "same command tries again, and sends nothing that was answered"
    )


def stop_jobs(
    client: bigquery.Client,
    stem: str,
    location: str,
    *,
    for_s: float = RETRY_FOR_S,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Ends the jobs of `run_merge`, if there are some at work, so that none does its work later. Raises TableError."""
    from google.api_core.exceptions import NotFound

    for attempt in range(_MAX_ATTEMPTS):
        try:
            job = client.get_job(f"{stem}_{attempt}", location=location, retry=retry(for_s), timeout=_ANSWER_WITHIN_S)
            if job.state != "DONE":
                job.cancel(retry=retry(for_s), timeout=_ANSWER_WITHIN_S)
                _wait(job, pause)
        except NotFound:
            return
        except Exception as error:  # noqa: BLE001 - likewise
            raise table_error(error, f"ending the job {stem}_{attempt}") from None


def _start(client: bigquery.Client, statement: str, job_id: str, location: str, pause: Callable[[float], None]) -> Any:
    from google.api_core.exceptions import Conflict, NotFound

    try:
        return client.query(
            statement, job_id=job_id, location=location, retry=retry(), job_retry=None, timeout=_ANSWER_WITHIN_S
        )
    except Conflict:  # it was started before, or just now, and the answer was lost
        for wait_s in (*_UNTIL_FOUND_S, None):
            try:
                return client.get_job(job_id, location=location, retry=retry(), timeout=_ANSWER_WITHIN_S)
            except NotFound:
                if wait_s is None:
                    raise
                pause(wait_s)


def _wait(job: Any, pause: Callable[[float], None]) -> None:
    wait_s = 0.2
    while job.state != "DONE":
        INTERRUPTION.raise_if_asked()
        pause(wait_s)
        wait_s = min(1.5 * wait_s, _LONGEST_POLL_S)
        job.reload(retry=retry(), timeout=_ANSWER_WITHIN_S)


def _may_pass(error: dict[str, Any]) -> bool:
    return error.get("reason") in _PASSING or bool(_CONFLICT.search(str(error.get("message"))))
