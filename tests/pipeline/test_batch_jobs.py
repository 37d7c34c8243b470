"""Jobs of a checkpoint are found again, waited for, dropped where they can be of no use, and closed once."""

from pathlib import Path

import pytest

from endpoint.errors import JobNotCreated, JobRefused
from endpoint.job_state import PredictionJob
from pipeline import batch_jobs
from pipeline.batch_jobs import BatchJobs, Ended
from pipeline.launch import RunFailed
from pipeline.on_dataflow import JobGoesOn
from rows.generations import note_run
from rows.job_notes import OpenBatch, Written, note_job, note_submitting, note_written, open_batch
from rows.store import open_store
from tests.audio.gcs import StorageServer
from tests.pipeline.commands import settings
from tests.transforms.conftest import bucket, reached, server  # noqa: F401 - fixtures
from tests.transforms.fake_jobs import FakeJobs

WRITTEN = Written("research", clips=3, shards=1, size_bytes=900_000, clipped_samples=0)
PARENT = "projects/p/locations/l"
JOB = f"{PARENT}/batchPredictionJobs/1"


class World:
    """A run, jobs, and what an earlier run has left in the bucket."""

    def __init__(self, tmp_path: Path, storage: StorageServer, folder: str) -> None:
        self.server = storage
        self.bucket = folder.removeprefix("gs://").partition("/")[0]
        self.run = settings(
            tmp_path,
            endpoint=None,
            batch_model="projects/p/locations/l/models/m",
            send="batch",
            staging_location=folder,
        )
        self.folder = f"{folder}/hear-staged-old/"
        self.service = FakeJobs()
        self.said: list[str] = []
        self.store = open_store(self.run.checkpoint)

    def jobs(self, *, waits: bool = True) -> BatchJobs:
        submission = self.run.submission(self.run.job_settings("projects/p/locations/l/models/m", "127.0.0.1:9"))
        return BatchJobs(self.run, self.service, submission, waits=waits, say=self.said.append)  # type: ignore[arg-type]

    def leave(self, written: Written = WRITTEN, *, shards: int = 1, keep: bool = False) -> OpenBatch:
        """What a run leaves that has written its clips."""
        me = {"run_id": "old", "send": "batch", "staged": self.folder, "keep_staged": keep}
        note_run(self.store, "old", me)
        note_written(self.store, "old", written)
        for number in range(shards):
            name = f"{self.folder.removeprefix(f'gs://{self.bucket}/')}clips/{number}.jsonl"
            self.server.upload(self.bucket, name, b"[0]\n")
        left = open_batch(self.store, me)
        assert left is not None
        return left

    @property
    def is_open(self) -> bool:
        return open_batch(self.store, {"run_id": "old", "send": "batch", "staged": self.folder}) is not None

    @property
    def files(self) -> int:
        return len(self.server.names(self.bucket))


def wait_without_pauses(service: FakeJobs, name: str, _say: object) -> PredictionJob:
    while not (job := service.get(name)).is_final:
        pass
    return job


@pytest.fixture
def world(tmp_path: Path, server: StorageServer, reached: str, monkeypatch: pytest.MonkeyPatch) -> World:  # noqa: F811
    monkeypatch.setattr(batch_jobs, "wait", wait_without_pauses)
    return World(tmp_path, server, reached)


def test_clips_that_were_written_and_not_submitted_are_submitted(world: World) -> None:
    world.service.states = ["succeeded"]
    (ended,) = world.jobs().settled([world.leave()])
    assert ended.job.labels["hear-run"] == "old"
    assert world.service.asked == ["find", f"create new {world.folder}clips/*.jsonl {world.folder}results", "get"]
    assert (ended.finished.folder, ended.finished.endpoint) == (world.folder, "projects/p/locations/l/models/m@1")
    assert world.is_open, "until its results are stored"
    assert world.files


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_job_that_is_there_is_waited_for_and_none_is_submitted(world: World, is_noted: bool) -> None:
    batch = world.leave()
    note_submitting(world.store, "old", PARENT)
    world.service.create("hear-old", {"hear-run": "old", "hear-fingerprint": world.run.fingerprint}, [], "")
    if is_noted:
        note_job(world.store, "old", JOB)
        batch = batch._replace(job=JOB)
    world.service.asked.clear()
    world.service.states = ["running", "succeeded"]
    (ended,) = world.jobs().settled([batch])
    assert (ended.job.name, ended.shortfall) == (JOB, None)
    assert not any(asked.startswith("create") for asked in world.service.asked)


@pytest.mark.parametrize(
    ("written", "shards"),
    [(WRITTEN._replace(instance_format="model_garden"), 1), (WRITTEN, 0)],
    ids=["another format", "shards are gone"],
)
def test_what_can_be_of_no_use_is_dropped(world: World, written: Written, shards: int) -> None:
    assert world.jobs().settled([world.leave(written, shards=shards)]) == []
    assert not any(asked.startswith("create") for asked in world.service.asked)
    assert not world.is_open
    assert not world.files


def test_a_job_that_was_deleted_has_ended(world: World) -> None:
    (ended,) = world.jobs().settled([world.leave()._replace(job=JOB)])
    assert ended.shortfall == "the batch prediction job of run old is no longer there"


def test_a_job_that_will_never_be_leaves_nothing(world: World) -> None:
    world.service.refuses = JobNotCreated("Vertex AI did not create it.")
    with pytest.raises(JobNotCreated):
        world.jobs().settled([world.leave()])
    assert not world.is_open
    assert not world.files


def test_where_a_quota_is_used_up_the_clips_wait_for_a_better_time(world: World) -> None:
    world.service.refuses = JobRefused("Vertex AI did not create it.")
    with pytest.raises(JobRefused):
        world.jobs().settled([world.leave()])
    assert world.is_open
    assert world.files


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_job_is_not_looked_for_where_it_cannot_be(world: World, is_noted: bool) -> None:
    batch = world.leave()
    note_submitting(world.store, "old", PARENT.replace("/l", "/elsewhere"))
    if is_noted:
        batch = batch._replace(job=JOB.replace("/l/", "/elsewhere/"))
    with pytest.raises(
        RunFailed, match=r"elsewhere, where this run, .* would not find it: give once more the --batch_model"
    ):
        world.jobs().settled([batch])
    assert world.service.asked == []
    assert world.is_open


def test_where_nobody_waits_a_job_that_goes_on_is_an_error(world: World) -> None:
    with pytest.raises(RunFailed, match="of run old is pending: start this step again once it has ended"):
        world.jobs(waits=False).settled([world.leave()])


def test_ctrl_c_says_that_the_job_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_jobs, "wait", wait)
    with pytest.raises(JobGoesOn, match="the batch prediction job goes on, see https://console") as told:
        world.jobs().settled([world.leave()])
    assert told.value.status == 130
    assert world.is_open
    assert world.files


def test_ctrl_c_while_a_job_is_being_created_says_that_there_may_be_one(world: World) -> None:
    world.service.refuses = KeyboardInterrupt()
    with pytest.raises(JobGoesOn, match="if the batch prediction job was created by then, it goes on"):
        world.jobs().settled([world.leave()])
    assert world.is_open
    assert world.files


def test_a_job_that_is_closed_has_no_files_unless_they_are_kept(world: World) -> None:
    kept = world.leave(keep=True)
    job = PredictionJob(JOB, state="succeeded")
    world.jobs().close(Ended(kept, job))
    assert not world.is_open
    assert world.files == 1
    world.jobs().close(Ended(kept._replace(is_kept=False), job))
    assert not world.files


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
def test_a_job_that_did_not_end_well_is_told_with_its_own_error(world: World, state: str) -> None:
    job = PredictionJob(JOB, state=state, error="RESOURCE_EXHAUSTED: no machines")  # type: ignore[arg-type]
    told = Ended(world.leave(), job).shortfall
    assert (
        told
        == f"the batch prediction job {job.link} ended as {state.replace('_', ' ')}: RESOURCE_EXHAUSTED: no machines"
    )


def test_a_fresh_checkpoint_cancels_what_is_under_way(world: World) -> None:
    batch = world.leave()
    world.jobs(waits=False).submitted(batch)
    world.service.asked.clear()
    world.service.states = ["cancelling", "cancelled"]
    world.jobs().forget([batch])
    # Until it has ended it writes results: only then is everything removed.
    assert world.service.asked == ["find", "cancel", "get", "get"]
    assert not world.files
    assert list(world.store.names()) == []


def test_a_job_that_ends_before_it_is_cancelled_is_no_trouble(world: World) -> None:
    batch = world.leave()
    world.jobs(waits=False).submitted(batch)
    world.service.states = ["succeeded"]
    world.service.refuses_to_cancel = JobRefused("it has ended")
    world.jobs().forget([batch])
    assert not world.files
