"""Clips that a batch job is to be asked for: each once, as its samples, and an index that says which line is which clip."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from audio.clips import ClipSettings
from audio.recording import Recording
from endpoint.settings import InstanceFormat
from endpoint.wav import read_steps
from rows import objects
from rows.checkpoint import read_all
from rows.identity import clip_id
from rows.job_notes import Written, open_batch
from rows.model import Census
from rows.pending import decode_index
from rows.store import open_store
from tests.audio.gcs import StorageServer
from tests.rows.samples import embedding_row
from tests.transforms.samples import keep, kept, noise, packet, recording, write_wav
from transforms.clip_shards import LANES, ClipShards, Shard
from transforms.packet_bundles import WorkSettings, release_shared
from transforms.segment_rows import RowSettings
from transforms.staged_objects import StagingError
from transforms.write_clips import WriteClips, WriteSettings

LENGTHS_S = {"a.wav": 9.0, "b.wav": 0.5, "c.wav": 4.0}
CLIPS = 8
FINGERPRINT = "f" * 16


class Place:
    """Where a run writes."""

    def __init__(self, server: StorageServer, folder: str, tmp_path: Path) -> None:
        self.server = server
        self.bucket = folder.removeprefix("gs://").partition("/")[0]
        self.folder = f"{folder}/hear-staged-run/"
        self.checkpoint = tmp_path / "checkpoint"
        self.paths = [write_wav(tmp_path / "in" / name, s, seed=7) for name, s in LENGTHS_S.items()]
        self.recordings = [recording(path) for path in self.paths]
        self.kept = tmp_path / "written"

    def settings(self, instance_format: InstanceFormat, shard_bytes: int) -> WriteSettings:
        rows = RowSettings(FINGERPRINT, "hear", "projects/p/locations/l/models/1")
        work = WorkSettings(ClipSettings(), rows, str(self.checkpoint), "run")
        return WriteSettings(work, self.folder, instance_format, shard_bytes)

    def write(self, *packets: Any, instance_format: InstanceFormat = "research", shard_bytes: int = 10**8) -> list[Any]:
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            written = pipeline | beam.Create(packets) | WriteClips(self.settings(instance_format, shard_bytes))
            keep(written, self.kept)
        return kept(self.kept)

    def names(self, below: str) -> list[str]:
        prefix = self.folder.removeprefix(f"gs://{self.bucket}/") + below
        return [name.removeprefix(prefix) for name in self.server.names(self.bucket, prefix)]

    def read(self, name: str) -> bytes:
        prefix = self.folder.removeprefix(f"gs://{self.bucket}/")
        return self.server.content(self.bucket, prefix + name)[0]

    def clips(self) -> dict[str, Any]:
        """The instances that are written, by the id of the clip that the index says each is."""
        found = {}
        for name in self.names("clips/"):
            lines = self.read(f"clips/{name}").splitlines()
            for line, clip in zip(
                lines, decode_index(self.read(f"index/{name}".replace(".jsonl", ".json"))), strict=True
            ):
                assert clip.clip_id not in found
                found[clip.clip_id] = json.loads(line)
        return found

    def expected(self) -> dict[str, np.ndarray]:
        """Samples of all clips: those of the recordings, the last clip of each padded."""
        clips = {}
        for of, seconds in zip(self.recordings, LENGTHS_S.values(), strict=True):
            samples = noise(seconds, seed=7)
            for start in range(0, len(samples), 32000):
                clip = np.zeros(32000, np.int16)
                clip[: len(samples) - start] = samples[start : start + 32000]
                clips[id_at(of, start)] = clip
        return clips


def id_at(of: Recording, start: int) -> str:
    return clip_id(of, "mean", start, FINGERPRINT)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    release_shared()


@pytest.fixture
def place(server: StorageServer, reached: str, tmp_path: Path) -> Place:
    return Place(server, reached, tmp_path)


def test_each_clip_is_a_line_and_its_index_says_which(place: Place) -> None:
    first, *others = place.recordings
    (written,) = place.write(packet(first), packet(*others), shard_bytes=500_000)
    clips, expected = place.clips(), place.expected()
    assert clips.keys() == expected.keys()
    for identity, numbers in clips.items():
        assert len(numbers) == 32000
        assert np.abs(np.float64(numbers) - expected[identity] / 32768).max() <= 5.0000001e-7
    sizes = [len(place.read(f"clips/{name}")) for name in place.names("clips/")]
    assert written == Written("research", CLIPS, len(sizes), sum(sizes), 0)
    # Of so many bytes at least, but for the last of each bundle.
    assert len(sizes) >= 4
    assert max(sizes) < 500_000 + 32000 * 10
    assert not place.names("writing/")
    described = {"send": "batch", "run_id": "run", "staged": place.folder, "keep_staged": False}
    batch = open_batch(open_store(str(place.checkpoint)), described)
    assert batch is not None
    assert (batch.run_id, batch.folder, batch.written, batch.job) == ("run", place.folder, written, None)


def test_for_model_garden_clips_are_wav_files(place: Place) -> None:
    place.write(packet(*place.recordings), instance_format="model_garden")
    expected = place.expected()
    for identity, instance in place.clips().items():
        assert instance.keys() == {"input_bytes"}
        assert (read_steps(base64.b64decode(instance["input_bytes"])) == expected.pop(identity)).all()
    assert not expected


def test_what_is_known_of_the_recordings_is_in_the_checkpoint(place: Place) -> None:
    broken = place.paths[1]
    broken.write_bytes(b"no audio")
    place.write(packet(*map(recording, place.paths)))
    rows = [row for path in place.checkpoint.rglob("*.rows") for _, row in read_all(path.read_bytes())]
    censuses = {Path(row.recording_uri).name: len(row.clips) for row in rows if isinstance(row, Census)}
    assert censuses == {"a.wav": 5, "b.wav": 0, "c.wav": 2}
    (failure,) = (row for row in rows if not isinstance(row, Census))
    assert (Path(failure.recording_uri).name, failure.stage) == ("b.wav", "decode")


def test_nothing_to_write_is_noted_too(place: Place) -> None:
    assert place.write() == [Written("research", 0, 0, 0, 0)]
    assert not place.names("")


class Ticket:
    """A clip's ticket without a clip."""

    def __init__(self, number: int) -> None:
        self.segment_id = "s"
        self.row = embedding_row(f"clip {number}", "/data/a.wav")


@pytest.fixture
def shards(reached: str) -> Callable[..., ClipShards]:
    return partial(ClipShards, f"{reached}/hear-staged-run/", "research", lambda *_: None, lambda *_: None)


SILENCE = np.zeros(32000, np.float32)


def test_shards_end_when_they_are_long_enough(shards: Callable[..., ClipShards]) -> None:
    line_bytes = 2 * 32000 + 2  # [0,0,...,0] and a newline
    box = shards(shard_bytes=2 * line_bytes)
    for number in range(5):
        box.add(Ticket(number), SILENCE)  # type: ignore[arg-type]
    box.flush()
    assert sorted(shard[1:] for shard in box.shards()) == [(1, line_bytes), *[(2, 2 * line_bytes)] * 2]
    assert len({shard.name for shard in box.shards()}) == 3


def test_uploads_wait_for_their_answers_at_the_same_time(
    shards: Callable[..., ClipShards], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(LANES)

    class Slow(objects.ObjectWriter):
        def write(self, data: bytes) -> int:
            if not self.tell():
                together.wait(timeout=30)  # breaks unless all of them are under way
            return super().write(data)

    monkeypatch.setattr(objects, "ObjectWriter", Slow)
    box = shards()
    loud = np.random.default_rng(3).uniform(-0.9, 0.9, 32000).astype(np.float32)
    for number in range(8 * LANES):
        box.add(Ticket(number), loud)  # type: ignore[arg-type]
    box.flush()
    assert len(box.shards()) == LANES
    assert sum(shard.clips for shard in box.shards()) == 8 * LANES


def test_a_shard_that_is_let_go_is_not_there(place: Place, shards: Callable[..., ClipShards]) -> None:
    box = shards()
    box.add(Ticket(0), SILENCE)  # type: ignore[arg-type]
    box.abandon(wait_s=0)
    assert box.shards() == list[Shard]()
    assert not place.names("")


def test_a_bucket_that_is_gone_ends_the_work_in_our_own_words(reached: str) -> None:
    box = ClipShards("gs://no-such-bucket/hear-staged-run/", "research", lambda *_: None, lambda *_: None)
    box.add(Ticket(0), SILENCE)  # type: ignore[arg-type]
    with pytest.raises(
        StagingError, match="writing staged clips in gs://no-such-bucket: there is no such bucket"
    ) as told:
        box.flush()
    assert told.value.__suppress_context__
