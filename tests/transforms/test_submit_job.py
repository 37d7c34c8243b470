"""A job for the clips of a run is asked for once, however often that is tried."""

import pickle
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from endpoint.job_settings import JobSettings
from rows import job_notes
from rows.job_notes import Written, note_written, open_batch
from rows.store import open_store
from tests.transforms.fake_jobs import FakeJobs
from transforms.submit_job import Submission, checkpoint_label, submit

FOLDER = "gs://b/x/hear-staged-Run1/"
CREATE = f"{FOLDER}clips/*.jsonl {FOLDER}results"
LABELS = {"hear-run": "run1", "hear-fingerprint": "f" * 16}


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    settings = JobSettings("projects/p/locations/l/models/m", "127.0.0.1:9", "p")
    return Submission(settings, str(tmp_path / "checkpoint"), "Run1", FOLDER, "f" * 16)


def test_a_job_has_its_own_labels_and_is_noted(submission: Submission) -> None:
    service = FakeJobs()
    job = submit(service, submission)  # type: ignore[arg-type]
    assert (job.labels, job.display_name) == (LABELS, "hear-run1")
    assert service.asked == [f"create new {CREATE}"]
    store = open_store(submission.checkpoint)
    note_written(store, "Run1", Written("research", 1, 1, 1, 0))
    batch = open_batch(store, {"run_id": "Run1", "send": "batch", "staged": FOLDER})
    assert batch is not None
    assert batch.job == job.name


def test_after_an_attempt_of_which_nothing_is_known_the_service_makes_sure(submission: Submission) -> None:
    service = FakeJobs(refuses=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        submit(service, submission)  # type: ignore[arg-type]
    service.refuses = None
    submit(service, submission)  # type: ignore[arg-type]
    assert service.asked == [f"create new {CREATE}", f"create known {CREATE}"]


@pytest.mark.parametrize("was_created", [False, True])
def test_long_after_such_an_attempt_one_look_is_enough(
    submission: Submission, was_created: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeJobs()
    monkeypatch.setattr(job_notes, "time", Hour(ago_s=3600))
    submit(service, submission)  # type: ignore[arg-type]
    if not was_created:
        service.jobs.clear()
    service.asked.clear()
    submit(service, submission)  # type: ignore[arg-type]
    assert service.asked == (["find"] if was_created else ["find", f"create new {CREATE}"])
    assert len(service.jobs) == 1


class Hour:
    """The clock of some time ago."""

    strftime, gmtime = time.strftime, time.gmtime

    def __init__(self, ago_s: float) -> None:
        self._ago_s = ago_s

    def time(self) -> float:
        return time.time() - self._ago_s


def test_a_checkpoint_on_cloud_storage_is_a_label_of_its_jobs(submission: Submission) -> None:
    assert submission.further_labels == {}, "as a folder of a machine has many names"
    there = replace(submission, checkpoint="gs://b/x")
    assert there.further_labels == {"hear-checkpoint": checkpoint_label("gs://b/x")}
    assert there.labels == submission.labels


def test_the_label_of_a_checkpoint_is_made_as_workflows_makes_it() -> None:
    # Its documentation has this text's checksum (stdlib/hash/compute_checksum).
    documented = "pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4="
    assert checkpoint_label("Hello World") == documented.lower().replace("=", "-")
    assert re.fullmatch("[a-z0-9-]{44}", checkpoint_label("gs://bucket/кашель"))


def test_a_submission_goes_to_a_worker(submission: Submission) -> None:
    assert pickle.loads(pickle.dumps(submission)) == submission
