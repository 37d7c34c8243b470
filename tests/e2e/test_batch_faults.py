"""What becomes of jobs, of their rows, and of the storage server: failures with their codes, nothing else lost, nothing left there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.batches import (
    CLIPS,
    Bucket,
    JobService,
    Samples,
    Since,
    Study,
    assert_rows_of,
    digests,
    job_service,
    places,
    record_some,
)
from tests.e2e.running import failures

BROKEN = Counter({("decode", "not_audio", False): 1})
REJECTED, UNAVAILABLE, NO_RESULT = (
    ("endpoint", "rejected", False),
    ("endpoint", "unavailable", True),
    ("endpoint", "no_result", True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recordings(folder: Path) -> Samples:
    return record_some(folder)


def codes(prefix: Path) -> Counter[tuple[str, str, bool]]:
    return Counter((row["stage"], row["code"], row["retryable"]) for row in failures(prefix))


def test_rows_that_fail_for_now_are_sent_again_and_those_that_fail_for_good_only_if_asked(
    at: Bucket, service: JobService, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    # Of the job's 15 rows, 4 are invalid, 3 unavailable and 4 lost: more of each than there are clips with a twin.
    faults = "--job_faults=shards=4,invalid=0.25,unavailable=0.25,lost=0.25,old_names=1"
    with job_service(at, tmp_path / "arrivals", faults) as troubled:
        summary = study.succeed(troubled)
        assert troubled.states == ["PARTIALLY_SUCCEEDED"]
        embedded = places(troubled.predicted, recordings)
    failed = codes(study.prefix) - BROKEN
    assert failed.keys() == {REJECTED, UNAVAILABLE, NO_RESULT}
    assert (summary["embedded"], summary["failed"], failed.total()) == (embedded, CLIPS - embedded, CLIPS - embedded)
    assert_rows_of(study.rows, recordings, but=failed.total())

    since = Since(service)
    summary = study.succeed(service)
    assert (summary["embedded"], summary["reused"]) == (CLIPS - failed[REJECTED], embedded)
    assert (since.jobs, since.predicted.total()) == (1, failed[UNAVAILABLE] + failed[NO_RESULT])
    assert codes(study.prefix) == BROKEN + Counter({REJECTED: failed[REJECTED]})

    summary = study.succeed(service, "--retry_failed")
    assert (summary["embedded"], summary["failed"]) == (CLIPS, 0)
    assert (since.jobs, since.predicted.total()) == (2, failed.total())
    assert_rows_of(study.rows, recordings)
    assert {row["endpoint"] for row in study.rows.values()} == {f"{service.local.model}@1"}


def test_a_job_that_ends_early_is_told_and_the_next_one_gets_the_rest(
    at: Bucket, service: JobService, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    faults = "--job_faults=die_after=0.5,die_code=RESOURCE_EXHAUSTED"
    with job_service(at, tmp_path / "arrivals", faults) as troubled:
        done = study.run(troubled)
        predicted = troubled.predicted
    assert done.status == 1
    assert done.last.startswith("python -m pipeline: error: the batch prediction job https://console.cloud.google.com/")
    assert " ended as failed: RESOURCE_EXHAUSTED: The job has died after 7 rows" in done.last
    assert study.staged == []
    assert study.summary["embedded"] == len(study.rows) == places(predicted, recordings) > 0
    assert codes(study.prefix) == BROKEN + Counter({NO_RESULT: CLIPS - len(study.rows)})
    since = Since(service)
    assert study.succeed(service)["embedded"] == CLIPS
    predicted += since.predicted
    assert since.jobs == 1
    assert predicted.keys() == digests(recordings).keys()
    assert predicted <= digests(recordings), "none was sent again"
    assert_rows_of(study.rows, recordings)


def test_a_lost_answer_and_a_storage_server_in_trouble_cost_neither_a_row_nor_a_second_job(
    at: Bucket, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    troubles = [
        at.proxy.inject("/b/staging/", times=-1, chance=0.1, status=503),
        at.proxy.inject("/b/staging/", times=-1, chance=0.1, after=True, drop=True),
    ]
    try:
        with job_service(at, tmp_path / "arrivals", "--job_faults=lose_answers=1,get_503=0.3") as service:
            summary = study.succeed(service)
            assert [(line["status"], line["fault"]) for line in service.created] == [("UNAVAILABLE", "lose_answer")]
            assert service.predicted == digests(recordings)
    finally:
        at.proxy.clear()
    assert min(trouble.hits for trouble in troubles) > 0
    assert (summary["embedded"], summary["failed"]) == (CLIPS, 0)
    assert_rows_of(study.rows, recordings)


def test_a_model_that_is_not_there_leaves_nothing_behind(
    at: Bucket, service: JobService, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    since = Since(service)
    done = study.run(service, "--batch_model", f"{service.local.model}9")
    assert (done.status, since.jobs) == (1, 1)
    assert service.created[-1]["job"] is None
    assert "(NOT_FOUND): check that --batch_model and --batch_project exist" in done.last
    assert study.staged == []
    # The next run begins anew, at once.
    summary = study.succeed(service)
    assert since.predicted == digests(recordings)
    assert (summary["embedded"], summary["reused"]) == (CLIPS, 0)
    assert_rows_of(study.rows, recordings)
