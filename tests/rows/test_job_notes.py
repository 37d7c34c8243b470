"""What a run notes about its batch prediction job, and what a later run makes of it."""

from pathlib import Path

import pytest

from rows.generations import note_run, remove_all
from rows.job_notes import (
    OpenBatch,
    Written,
    attempt,
    note_closed,
    note_job,
    note_submitting,
    note_written,
    open_batch,
    open_batches,
)
from rows.store import Store, StoreError, open_store

PARENT = "projects/p/locations/l"
WRITTEN = Written("research", clips=7, shards=2, size_bytes=2_100_000, clipped_samples=0)
ME = {"run_id": "run1", "send": "batch", "staged": "gs://b/x/hear-staged-run1/", "keep_staged": False}
OPEN = OpenBatch("run1", "gs://b/x/hear-staged-run1/", WRITTEN, None, False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "checkpoint"))


def test_a_batch_is_open_from_when_all_is_written_until_it_is_closed(store: Store) -> None:
    assert open_batch(store, ME) is None
    note_written(store, "run1", WRITTEN)
    assert open_batch(store, ME) == OPEN
    note_submitting(store, "run1", PARENT)
    assert open_batch(store, ME) == OPEN
    note_job(store, "run1", "projects/p/locations/l/batchPredictionJobs/1")
    assert open_batch(store, ME) == OPEN._replace(job="projects/p/locations/l/batchPredictionJobs/1")
    note_closed(store, "run1", "succeeded")
    assert open_batch(store, ME) is None


def test_a_run_that_had_nothing_to_write_leaves_nothing_open(store: Store) -> None:
    note_written(store, "run1", WRITTEN._replace(clips=0, shards=0, size_bytes=0))
    assert open_batch(store, ME) is None


def test_the_first_attempt_to_submit_is_the_one_that_counts(store: Store) -> None:
    assert attempt(store, "run1") is None
    note_submitting(store, "run1", PARENT)
    first = attempt(store, "run1")
    note_submitting(store, "run1", "projects/q/locations/l")
    assert attempt(store, "run1") == first
    assert first is not None
    assert first.parent == PARENT


def test_runs_that_sent_no_batch_have_left_none(store: Store) -> None:
    for name in ("run1", "run2"):
        note_written(store, name, WRITTEN)
    others = [ME | {"run_id": "run2", "send": "uris"}, {"run_id": "run3"}, ME | {"staged": None}]
    assert list(open_batches(store, [*others, ME | {"keep_staged": True}])) == [OPEN._replace(is_kept=True)]


@pytest.mark.parametrize("text", [b"{", b"[]", b""])
def test_a_damaged_note_is_an_error_that_names_it(store: Store, text: bytes) -> None:
    note_written(store, "run1", WRITTEN)
    store.write("run1/job.json", text)
    with pytest.raises(StoreError, match=r"run1/job\.json is damaged"):
        open_batch(store, ME)


def test_a_checkpoint_that_is_removed_loses_its_notes_too(store: Store) -> None:
    note_run(store, "run1", ME)
    note_written(store, "run1", WRITTEN)
    note_submitting(store, "run1", PARENT)
    note_job(store, "run1", "name")
    note_closed(store, "run1", "failed")
    remove_all(store, but_notes_of={"run1"})
    assert open_batch(store, ME) is None
    assert len(list(store.names())) == 5
    remove_all(store)
    assert list(store.names()) == []
