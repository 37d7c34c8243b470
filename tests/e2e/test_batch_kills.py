"""A command with a batch prediction job that is killed wherever it is: one job in all, the same rows, and nothing left.

Kills need no luck: the command is killed by the storage server's proxy when a certain request of it arrives.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.batches import (
    INTERRUPTED,
    TWO_PROCESSES,
    Bucket,
    Samples,
    Study,
    assert_rows_of,
    digests,
    ended,
    job_service,
    record,
    wait_to_be_told,
)

UPLOAD = "^POST /upload/storage/v1/b/"
RESULTS = "^GET .*results.*prediction.results-.*alt=media"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recordings(folder: Path) -> Samples:
    """Twelve clips."""
    return {f"{seed}.wav": record(folder, f"{seed}.wav", 7.0, seed) for seed in range(3)}


def test_killed_again_and_again_it_submits_one_job_in_all(
    at: Bucket, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    """The checkpoint is in a bucket, so that whatever is noted there is a request, too."""
    study = Study(at, folder, tmp_path / "r", ("--checkpoint", "gs://study/killed"))
    with job_service(at, tmp_path / "arrivals", "--job_faults=least_s=2,shards=3") as service:
        study.killed(service, "^POST .*rewriteTo.*clips", after=True)  # a shard stands in two places
        assert {re.sub(r".*/(\w+)/[^/]*$", r"\1", name) for name in study.staged} == {"writing", "clips", "index"}
        study.killed(service, r"^GET .*written\.json", skip=1)  # that of the first run; its own before it submits a job
        assert not service.created
        written = study.staged
        assert {re.sub(r".*/(\w+)/[^/]*$", r"\1", name) for name in written} == {"clips", "index"}

        # The next one finds those clips. Notes are uploads: that it submits, and which job there is.
        study.killed(service, f"{UPLOAD}study", only_if=lambda: bool(service.created))
        assert len(service.created) == 1
        assert set(written) <= set(study.staged)

        process = study.start(service)
        wait_to_be_told(process, "has left 12 clips for a batch prediction job")  # which it is about to wait for
        process.send_signal(signal.SIGKILL)
        assert ended(process).status == -signal.SIGKILL

        study.killed(service, RESULTS, skip=1)
        study.killed(service, f"{UPLOAD}study", only_if=lambda: any("/answers/" in name for name in study.staged))
        study.killed(service, "^DELETE .*%2Fclips%2F", after=True)  # its job is closed by then
        summary = study.succeed(service)
        assert (len(service.created), service.predicted) == (1, digests(recordings))
    assert (summary["embedded"], summary["failed"], summary["reused"]) == (12, 0, 12)
    assert_rows_of(study.rows, recordings)
    open_notes = {name.rpartition("/")[2] for name in at.direct.names("study")} - {"lease.json"}
    assert open_notes >= {"closed.json", "job.json"}


def test_stopped_while_it_writes_waits_or_joins_it_says_so_and_goes_on(
    at: Bucket, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    with job_service(at, tmp_path / "arrivals", "--job_faults=least_s=3,shards=3") as service:
        done = study.killed(service, "^POST .*rewriteTo.*clips", by=signal.SIGTERM)
        assert "interrupted: what was answered is in the checkpoint" in done.last
        assert study.staged == []

        process = study.start(service, *TWO_PROCESSES)
        wait_to_be_told(process, "is running")
        process.send_signal(signal.SIGINT)
        done = ended(process)
        assert done.status == INTERRUPTED
        assert "interrupted: the batch prediction job goes on, see https://console.cloud.google.com/" in done.last

        done = study.killed(service, RESULTS, *TWO_PROCESSES, by=signal.SIGTERM, skip=1)
        assert "interrupted: what was answered is in the checkpoint" in done.last
        summary = study.succeed(service)
        assert (len(service.created), service.predicted) == (1, digests(recordings))
    assert (summary["embedded"], summary["failed"]) == (12, 0)
    assert_rows_of(study.rows, recordings)
