"""Runs with a batch prediction job: the rows of other ways of sending, in one go or in two steps, and nothing left in the bucket."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from audio.clips import Clip, ClipSettings, open_clips
from emulator.standin import embed
from tests.e2e.batches import (
    CLIPS,
    Bucket,
    JobService,
    Samples,
    Since,
    Study,
    assert_rows_of,
    digests,
    ended,
    job_service,
    places,
    record,
    record_some,
    wait_to_be_told,
)
from tests.e2e.running import assert_same_rows, shards
from tests.e2e.running import recordings as recordings_of
from tests.recordings import every, health_recordings, needs_shared_audio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def recordings(folder: Path) -> Samples:
    return record_some(folder)


@needs_shared_audio
@pytest.mark.parametrize("instance_format", ["research", "model_garden"])
def test_real_recordings_have_the_rows_that_they_have_in_requests(
    instance_format: str, at: Bucket, service: JobService, tmp_path: Path
) -> None:
    """Every fifth of them, or tenth in the other format, or all if REFERENCE is `all`."""
    folder = tmp_path / "in"
    folder.mkdir()
    chosen = health_recordings(every(5 if instance_format == "research" else 10))
    for path in chosen:
        (folder / path.name).symlink_to(path)
    is_garden = instance_format == "model_garden"
    local = service.local
    of_garden = ("--instance_format", "model_garden")
    study = Study(at, folder, tmp_path / "batch", of_garden if is_garden else ())
    since = Since(service)
    summary = study.succeed(service, *(("--batch_model", local.garden_model) if is_garden else ()))
    assert (since.jobs, since.predicted.total(), summary["failed"]) == (1, summary["embedded"], 0)
    requests = Study(at, folder, tmp_path / "requests", study.arguments)
    requests.succeed(service, *(("--endpoint", local.garden_endpoint) if is_garden else ()), sends="audio")
    rows, expected = study.rows, requests.rows
    assert {row.pop("endpoint") for row in rows.values()} == {f"{local.garden_model if is_garden else local.model}@1"}
    for row in expected.values():
        del row["endpoint"]
    if not is_garden:
        # A job gets six decimals of each sample: what the model makes of these.
        at_place = {(row["recording_uri"], row["start_s"]): row for row in expected.values()}
        for path in chosen:
            with (folder / path.name).open("rb") as file:
                for clip in (item for item in open_clips(file, ClipSettings()) if isinstance(item, Clip)):
                    rounded = np.round(clip.samples.astype(np.float64), 6).astype(np.float32)
                    at_place[str(folder / path.name), clip.start_sample / 16000]["embedding"] = embed([rounded])[0]
    assert_same_rows(rows, expected, 1e-6)
    assert recordings_of(study.prefix) == recordings_of(requests.prefix)


def test_in_two_steps_inputs_may_change_in_between(
    at: Bucket, service: JobService, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    own = tmp_path / "in"
    shutil.copytree(folder, own)
    study = Study(at, own, tmp_path / "r")
    since = Since(service)
    done = study.run(service, "--batch_step", "write")
    assert done.status == 0
    assert (since.jobs, study.staged == []) == (1, False)
    assert not list(tmp_path.glob("r-[0-9rf]*"))

    now = recordings | {name: record(own, name, 4.0, seed) for seed, name in ((10, "b.wav"), (11, "new.wav"))}
    del now["d.wav"]
    (own / "d.wav").unlink()
    as_before = {name: samples for name, samples in now.items() if name in ("a.wav", "c.wav")}
    for _ in range(2):
        summary = study.succeed(service, "--batch_step", "join")
        assert_rows_of(study.rows, as_before)
        assert summary["left"]["recordings"] == 2
        assert since.jobs == 1
    assert recordings_of(study.prefix)[str(own / "new.wav")]["status"] == "unfinished"

    # The same command without steps sends the rest.
    summary = study.succeed(service)
    assert (since.jobs, summary["reused"], summary["left"]["recordings"]) == (2, 8, 0)
    assert_rows_of(study.rows, now)
    assert since.predicted == digests(recordings) + digests({name: now[name] for name in ("b.wav", "new.wav")})


def test_while_a_job_is_at_work_its_checkpoint_is_for_nothing_else(
    at: Bucket, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    study = Study(at, folder, tmp_path / "r")
    with job_service(at, tmp_path / "arrivals", "--job_faults=least_s=60") as slow:
        assert study.run(slow, "--batch_step", "write").status == 0
        for more, sends, said in (
            ((), "audio", "has clips of this checkpoint in a batch prediction job whose results were not read yet"),
            (("--model_id", "another"), "batch", "--model_id is 'another', but the checkpoint"),
        ):
            done = study.run(slow, *more, sends=sends)
            assert (done.status, done.said.count("\n")) == (2, 1), done
            assert said in done.said
        process = study.start(slow, "--batch_step", "join")
        wait_to_be_told(process, "is running")
        slow.cancel()
        done = ended(process)
        assert done.status == 1
        assert "ended as cancelled: CANCELLED: The job was cancelled" in done.last
        assert study.staged == []
        assert len(study.rows) == places(slow.predicted, recordings) < CLIPS

        assert study.run(slow, "--batch_step", "write").status == 0
        done = study.run(slow, "--batch_step", "write", "--fresh_checkpoint")
        assert done.status == 0
        assert "cancelling the batch prediction job" in done.said
        assert (len(slow.created), slow.states) == (3, ["CANCELLED", "CANCELLED"])
    (run_id,) = {re.sub(r".*hear-staged-([^/]*)/.*", r"\1", name) for name in study.staged}
    assert study.noted.keys() == {run_id}


def test_what_is_kept_stays_and_is_not_predicted_again(
    at: Bucket, service: JobService, folder: Path, recordings: Samples, tmp_path: Path
) -> None:
    """A manifest's rows point at what is the same clip, or at none."""
    lines = [
        "uri,start_s,end_s,patient",
        "a.wav,1.0,2.0,PLANTED",
        "a.wav,1.0,2.0,OTHER",
        "b.wav,,,THIRD",
        "e.wav,,,LAST",
    ]
    (folder / "study.csv").write_text("\n".join(lines))
    study = Study(at, folder, tmp_path / "r", ("--keep_staged",), input=("--manifest", folder / "study.csv"))
    since = Since(service)
    done = study.run(service)
    assert done.status == 0, done.said
    assert (since.jobs, since.predicted.total()) == (1, 1 + 5)
    kept = study.staged
    kinds = {re.sub(r".*hear-staged-[^/]*/(\w+)/.*", r"\1", name) for name in kept}
    assert kinds == {"clips", "index", "results", "answers"}
    tables = [pq.read_table(path) for path in shards(study.prefix, "parquet")]
    patients = Counter(dict(row)["patient"] for table in tables for row in table["metadata"].to_pylist())
    assert patients == {"PLANTED": 1, "OTHER": 1, "THIRD": 5}
    assert study.run(service).status == 0
    assert (since.jobs, study.staged) == (1, kept)
    left = [at.direct.content("staging", name)[0] for name in kept]
    left += [path.read_bytes() for path in Path(f"{study.prefix}-checkpoint").rglob("*") if path.is_file()]
    assert not any(b"PLANTED" in data for data in [*left, done.said.encode()])


def test_without_a_clip_there_is_no_job(at: Bucket, service: JobService, folder: Path, tmp_path: Path) -> None:
    (folder / "e.wav").write_bytes(b"RIFF" + b"no recording" * 10)
    study = Study(at, folder / "e.wav", tmp_path / "r")
    since = Since(service)
    done = study.run(service)
    assert (done.status, done.said.count("\n")) == (1, 1), done
    assert "nothing could be embedded" in done.said
    assert (since.jobs, study.staged, study.summary["recordings"]) == (0, [], 1)
