"""Results of batch jobs become the rows of the clips whose samples they repeat, each once, whatever their order and their form."""

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.metrics.execution import MetricResult
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from endpoint.job_lines import LineWriter
from endpoint.settings import InstanceFormat
from rows.checkpoint import Row, read_all, read_embedding
from rows.held import Held
from rows.model import EmbeddingRow, FailureRow, Receipt
from rows.pending import PendingClip, encode_index
from rows.store import LocalStore
from tests.audio.gcs import StorageServer
from tests.cloud.storage import proxied_storage
from tests.rows.samples import embedding_row
from tests.transforms.samples import keep, kept
from transforms import join_results
from transforms.files import FileError
from transforms.interruption import INTERRUPTION
from transforms.join_results import FinishedJob, JoinResults
from transforms.progress import PROGRESS, Progress
from transforms.quiet import INTERRUPT

RUN = "run7"
MODEL = "projects/p/locations/l/models/220@3"
NO_RESULT = "The batch prediction job gave no result for this clip; run again later."


def samples(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(32000) * 0.1).astype(np.float32)


def embedding(seed: int) -> np.ndarray:
    """What the job answers to `samples(seed)`."""
    return np.random.default_rng(1000 + seed).standard_normal(512).astype(np.float32)


class Job:
    """The folder of a job that is made by hand: its clips, and the lines that answer them.

    Args:
      seeds: of the samples of its clips, `clip 0`, `clip 1`, ...
      shard: so many clips are in a shard.
    """

    def __init__(
        self,
        server: StorageServer,
        bucket: str,
        name: str,
        seeds: Iterable[int],
        form: InstanceFormat = "research",
        shard: int = 5,
    ) -> None:
        self.server, self.bucket, self.name, self.form = server, bucket, name, form
        self.seeds = list(seeds)
        self.finished = FinishedJob(f"gs://{bucket}/{name}/", MODEL)
        self.rows = [
            embedding_row(f"{name} clip {number}", f"/data/{number // 3}.wav", clip_index=number)
            for number in range(len(self.seeds))
        ]
        writer = LineWriter(form)
        self._lines = {seed: writer.line(samples(seed)) for seed in set(self.seeds)}
        for first in range(0, len(self.seeds), shard):
            clips = range(len(self.seeds))[first : first + shard]
            index = [PendingClip.of(self._lines[self.seeds[n]].digest, f"s{n // 3}", self.rows[n]) for n in clips]
            self.put(f"index/{first}.json", encode_index(index))
            self.put(f"clips/{first}.jsonl", b"")  # their text is of no interest

    def put(self, name: str, data: bytes) -> None:
        self.server.upload(self.bucket, f"{self.name}/{name}", data)

    def instance(self, seed: int) -> Any:
        """The instance as the service repeats it: the JSON that was sent, made anew."""
        return json.loads(self._lines[seed].data)

    def answer(self, seed: int, values: np.ndarray | None = None) -> bytes:
        """A line that answers the clips of these samples."""
        floats = (embedding(seed) if values is None else values).tolist()
        prediction = floats if self.form == "research" else {"embedding": floats}
        return json.dumps({"instance": self.instance(seed), "prediction": prediction}).encode() + b"\n"

    def error(self, seed: int, code: int = 3) -> bytes:
        """A line of `errors_stats`."""
        return (
            json.dumps({"instance": self.instance(seed), "error": {"code": code, "message": "PLANTED"}}).encode()
            + b"\n"
        )

    def embedded(self, *numbers: int) -> dict[str, tuple[object, ...]]:
        """What is expected of these clips."""
        return {
            self.rows[n].clip_id: (
                *self.rows[n]._replace(endpoint=MODEL)[:-1],
                embedding(self.seeds[n]).tobytes(),
            )
            for n in numbers
        }


def stored_rows(checkpoint: Path) -> list[Row]:
    """All rows in the files of a checkpoint."""
    store = LocalStore(str(checkpoint))
    return [row for name in store.names() for _, row in read_all(store.read(name))]


class Joined:
    """What came of joining: rows and receipts."""

    def __init__(self, checkpoint: Path, folder: Path, counters: list[MetricResult]) -> None:
        self.metrics = {found.key.metric.name: found.committed for found in counters}
        store = LocalStore(str(checkpoint))
        self.receipts: list[tuple[str, Receipt]] = kept(folder / "receipts")
        self.counts = sum((Counter(some) for some in kept(folder / "counts")), Counter[str]())
        files = {name: store.read(name) for name in store.names()}
        self.stored = stored_rows(checkpoint)
        self.segments = {row.clip_id: segment for data in files.values() for segment, row in read_all(data)}
        self.files = sorted(files)

    @property
    def embedded(self) -> dict[str, tuple[object, ...]]:
        rows = [row for row in self.stored if isinstance(row, EmbeddingRow)]
        assert len({row.clip_id for row in rows}) == len(rows)
        return {row.clip_id: (*row[:-1], row.embedding.tobytes()) for row in rows}

    @property
    def failures(self) -> dict[str, FailureRow]:
        rows = [row for row in self.stored if isinstance(row, FailureRow)]
        assert len({row.clip_id for row in rows}) == len(rows)
        return {str(row.clip_id): row for row in rows}


def join(folder: Path, *jobs: Job | FinishedJob, options: PipelineOptions | None = None) -> Joined:
    finished = tuple(job.finished if isinstance(job, Job) else job for job in jobs)
    folder.mkdir(exist_ok=True)
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        joined = pipeline | "Join" >> JoinResults(finished, str(folder / "checkpoint"), RUN)
        keep(joined["receipts"], folder / "receipts")
        keep(joined["counts"], folder / "counts")
    counters = pipeline.result.metrics().query(MetricsFilter().with_namespace("embed"))["counters"]
    return Joined(folder / "checkpoint", folder, counters)


@pytest.fixture
def make(server: StorageServer, bucket: str, reached: str) -> Iterator[Any]:
    return lambda name, seeds, **how: Job(server, bucket, name, seeds, **how)


@pytest.mark.parametrize(
    ("form", "results", "errors"),
    [
        (
            "research",
            "prediction-hear-1/prediction.results-{:05}-of-00003",
            "prediction-hear-1/prediction.errors_stats-00000-of-00001",
        ),
        ("model_garden", "predictions_{:04}.jsonl", "errors_0001.jsonl"),
    ],
    ids=["lists in new files", "objects in old files"],
)
def test_results_in_any_order_become_the_rows_of_their_clips(
    make: Any, tmp_path: Path, form: InstanceFormat, results: str, errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_results, "PART_BYTES", 700_000)  # files are cut within lines
    job = make("job", range(20), form=form)
    order = [seed for seed in range(20) if seed not in (4, 11, 17)]
    random.Random(1).shuffle(order)
    for number in range(3):
        data = b"".join(job.answer(seed) for seed in order[number::3])
        job.put("results/" + results.format(number), data)
    statistics = json.dumps({"error": {"code": 3, "message": "PLANTED"}, "count": 2}).encode() + b"\n"
    job.put(f"results/{errors}", job.error(4, 3) + job.error(11, 14) + statistics)
    before = PROGRESS.counts()
    joined = join(tmp_path, job)
    assert joined.embedded == job.embedded(*order)
    assert joined.failures.keys() == {"job clip 4", "job clip 11", "job clip 17"}
    rejected, unavailable, missing = (joined.failures[f"job clip {n}"] for n in (4, 11, 17))
    assert (rejected.stage, rejected.code, rejected.retryable) == ("endpoint", "rejected", False)
    assert (unavailable.code, unavailable.retryable) == ("unavailable", True)
    assert missing == FailureRow(
        *("/data/5.wav", "123-456", "job clip 17", "mean", 6.0, "endpoint", "no_result", NO_RESULT, True, 1)
    )
    assert "PLANTED" not in repr(joined.stored)
    assert joined.segments == {f"job clip {n}": f"s{n // 3}" for n in range(20)}
    assert joined.counts == {"results/without_instance": 1}
    counted = PROGRESS.counts() - before
    assert (counted["embedded"], counted["failed"]) == (17, 3)
    assert joined.metrics == {"embedded": 17, "failed": 3}


def test_receipts_say_where_the_rows_are(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_results, "_MOST_HELD_ROWS", 3)
    job = make("job", range(8))
    job.put("results/predictions_1.jsonl", b"".join(map(job.answer, range(1, 8))))
    joined = join(tmp_path, job)
    assert all(uri == receipt.recording_uri for uri, receipt in joined.receipts)
    store = LocalStore(str(tmp_path / "checkpoint"))
    found = {
        clip.clip_id: read_embedding(store.read(receipt.file), clip.offset).clip_id
        for _, receipt in joined.receipts
        for clip in receipt.clips
    }
    assert found == {f"job clip {n}": f"job clip {n}" for n in range(1, 8)}
    assert [f.clip_id for _, receipt in joined.receipts for f in receipt.failures] == ["job clip 0"]
    assert {receipt.run_id for _, receipt in joined.receipts} == {RUN}
    packets = {file.rpartition("/")[0] for file in joined.files}
    assert len(packets) == 2
    assert all(packet.startswith(f"{RUN}/") for packet in packets)


def test_clips_of_the_same_samples_all_get_their_row(make: Any, tmp_path: Path) -> None:
    silent = [1] * 3000
    job = make("job", [0, *silent, 2, 2, 3], shard=1000)
    answers = [job.answer(1), job.answer(1), job.error(1), job.error(2), job.error(2, 14), job.answer(0)]
    job.put("results/predictions_1.jsonl", b"".join(answers))
    joined = join(tmp_path, job)
    assert joined.embedded == job.embedded(*range(3001))
    assert {clip: failure.code for clip, failure in joined.failures.items()} == {
        "job clip 3001": "unavailable",
        "job clip 3002": "unavailable",
        "job clip 3003": "no_result",
    }
    assert joined.counts == {}


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_answers_the_same_one_counts_wherever_it_is(make: Any, tmp_path: Path, order: int) -> None:
    job = make("job", [0])
    answers = [embedding(seed) for seed in range(6)]
    for number, values in enumerate(answers[::order]):
        job.put(f"results/predictions_{number}.jsonl", job.answer(0, values))
    (row,) = join(tmp_path, job).embedded.values()
    assert row[-1] == min((values.tobytes() for values in answers), key=zlib.crc32)


def test_lines_that_cannot_be_used_are_counted_and_cost_their_own_clips_only(make: Any, tmp_path: Path) -> None:
    job, other = make("job", range(4)), make("other", [70, 71])
    long = b"[" + b" " * (9 << 20) + b"]\n"
    lines = [job.answer(0), b"\n", b"no JSON\n", long, b"[1]\n", other.answer(70), job.answer(1), other.error(71)]
    no_instance = json.dumps({"prediction": embedding(2).tolist()}).encode() + b"\n"
    nan = job.answer(2, np.full(512, np.nan, np.float32))
    job.put("results/predictions_1.jsonl", b"".join([*lines, no_instance, nan, job.answer(3)[:-20]]))
    job.put("results/notes.jsonl", job.answer(2))
    job.put("elsewhere/predictions_1.jsonl", job.answer(3))
    joined = join(tmp_path, job)
    assert joined.embedded == job.embedded(0, 1)
    assert {clip: failure.code for clip, failure in joined.failures.items()} == {
        "job clip 2": "no_result",
        "job clip 3": "no_result",
    }
    assert joined.counts == {"results/unreadable": 6, "results/unmatched": 2}


def test_a_last_line_without_an_end_counts(make: Any, tmp_path: Path) -> None:
    job = make("job", range(2))
    job.put("results/predictions_1.jsonl", job.answer(0) + job.answer(1).rstrip())
    assert join(tmp_path, job).embedded == job.embedded(0, 1)


def test_jobs_answer_for_their_own_clips_under_their_own_names(make: Any, tmp_path: Path) -> None:
    first, second = make("first", [0, 1, 2]), make("second", [2, 1, 5], form="model_garden")
    first.put("results/predictions_1.jsonl", first.answer(0) + first.answer(1))
    second.put("results/predictions_1.jsonl", second.answer(2) + second.answer(5))
    joined = join(tmp_path, first, second.finished._replace(endpoint="projects/p/locations/l/models/own@1"))
    expected = first.embedded(0, 1)
    for clip, row in second.embedded(0, 2).items():
        fields = list(row)
        fields[EmbeddingRow._fields.index("endpoint")] = "projects/p/locations/l/models/own@1"
        expected[clip] = tuple(fields)
    assert joined.embedded == expected
    assert joined.failures.keys() == {"first clip 2", "second clip 1"}


def test_a_job_without_results_leaves_a_failure_for_each_clip(make: Any, tmp_path: Path) -> None:
    job = make("job", range(7))
    joined = join(tmp_path, job)
    assert joined.embedded == {}
    assert {failure.code for failure in joined.failures.values()} == {"no_result"}
    assert len(joined.failures) == 7


def test_nothing_to_join_is_nothing(reached: str, tmp_path: Path) -> None:
    assert join(tmp_path).receipts == []
    assert join(tmp_path, FinishedJob(f"{reached}/", MODEL)).receipts == []


def test_only_shards_that_were_committed_count(make: Any, tmp_path: Path) -> None:
    job = make("job", range(4), shard=2)
    stray = [PendingClip.of("0" * 32, "s", embedding_row("never committed"))]
    job.put("index/stray.json", encode_index(stray))
    job.put("writing/stray.jsonl", b"")
    job.put("results/predictions_1.jsonl", b"".join(map(job.answer, range(4))))
    joined = join(tmp_path, job)
    assert joined.embedded == job.embedded(*range(4))
    assert joined.failures == {}


def test_an_index_that_is_missing_or_damaged_ends_the_run_with_its_name(make: Any, tmp_path: Path) -> None:
    job = make("job", range(4), shard=2)
    whole, _ = job.server.content(job.bucket, "job/index/2.json")
    job.server.delete(job.bucket, "job/index/2.json")
    with pytest.raises(FileError, match=r"the index 'gs://.*/job/index/2.json' is missing"):
        join(tmp_path, job)
    job.put("index/2.json", whole[:-9])
    with pytest.raises(FileError, match=r"the index 'gs://.*/job/index/2.json' is damaged"):
        join(tmp_path, job)


def test_joining_again_stores_the_same_rows_again_and_reads_nothing_of_the_first_attempt(
    make: Any, tmp_path: Path
) -> None:
    job = make("job", range(5))
    job.put("results/predictions_1.jsonl", b"".join(map(job.answer, range(4))))
    once = join(tmp_path, job)
    (left,) = job.server.names(job.bucket, "job/answers/")
    assert left.startswith(f"job/answers/{RUN}/")
    job.server.upload(job.bucket, left, b"")
    again = join(tmp_path / "again", job)
    assert again.embedded == once.embedded
    held = Held(receipt for _, receipt in [*once.receipts, *again.receipts])
    assert held.embedded.keys() == once.embedded.keys()


def test_worker_processes_join_as_well(make: Any, tmp_path: Path) -> None:
    job = make("job", range(12))
    for number in range(3):
        job.put(f"results/predictions_{number}.jsonl", b"".join(map(job.answer, range(number, 10, 3))))
    options = PipelineOptions(direct_running_mode="multi_processing", direct_num_workers=2)
    joined = join(tmp_path, job, options=options)
    assert joined.embedded == job.embedded(*range(10))
    assert joined.failures.keys() == {"job clip 10", "job clip 11"}


class AsksToStop(Progress):
    """Asks to stop once so many rows were counted."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def add(self, name: str, by: int) -> None:
        super().add(name, by)
        if self.counts().total() == self._after:
            INTERRUPTION.ask()


@pytest.mark.parametrize(("answered", "kind"), [(9, EmbeddingRow), (0, FailureRow)])
def test_an_interrupted_join_stores_what_it_has_and_stops(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: int, kind: type
) -> None:
    job = make("job", range(9))
    job.put("results/predictions_1.jsonl", b"".join(map(job.answer, range(answered))))
    monkeypatch.setattr(join_results, "PROGRESS", AsksToStop(after=4))
    try:
        with pytest.raises(RuntimeError, match=INTERRUPT):
            join(tmp_path, job)
    finally:
        INTERRUPTION.forget()
    assert [type(row) for row in stored_rows(tmp_path / "checkpoint")] == [kind] * 4


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_faults_of_storage_cost_no_row(tmp_path: Path, reached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied_storage(tmp_path / "storage") as (server, proxy):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        server.make_bucket("faulty")
        job = Job(server, "faulty", "job", range(40), shard=40)
        job.put("results/predictions_1.jsonl", b"".join(map(job.answer, range(40))))  # more than one request brings
        proxy.inject(r"GET .*prefix=job%2Fresults", status=503)
        proxy.inject(r"GET .*prefix=job%2Fclips", drop=True)
        proxy.inject(r"GET .*index.*alt=media", cut=True)
        proxy.inject(r"GET .*predictions_1.*alt=media", cut=True)
        proxy.inject(r"POST .*answers", status=503, after=True)
        proxy.inject(r"GET .*answers.*alt=media", drop=True)
        joined = join(tmp_path, job)
        assert joined.embedded == job.embedded(*range(40))
        assert joined.failures == {}
        assert len(server.names("faulty", "job/answers/")) == 1
