"""Packets to receipts in a small real pipeline, against the local endpoint."""

import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that

from audio.clips import ClipSettings
from audio.recording import Recording
from emulator.process import LocalEndpoint, start_local_endpoint
from endpoint.errors import RunEnded
from endpoint.settings import EndpointSettings
from rows.checkpoint import read_all
from rows.identity import clip_id
from rows.model import Census, EmbeddingRow, Receipt
from rows.store import open_store
from tests.transforms.packet_work import plan_of
from tests.transforms.samples import packet, recording, write_wav
from transforms.choose_rows import choose
from transforms.embed_packets import EmbedPackets, EmbedSettings
from transforms.packet_bundles import COUNTS, WorkSettings, release_shared
from transforms.segment_rows import RowSettings
from transforms.write_tables import read_places

LENGTHS_S = {"a.wav": 9.0, "b.wav": 0.5, "c.wav": 4.0}
CLIPS = {"a.wav": 5, "b.wav": 1, "c.wav": 2}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEndpoint]:
    with start_local_endpoint() as endpoint:
        yield endpoint
        release_shared()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("in")
    return [recording(write_wav(folder / name, seconds, seed=7)) for name, seconds in LENGTHS_S.items()]


def settings(local: LocalEndpoint, checkpoint: Path, name: str | None = None) -> EmbedSettings:
    endpoint = EndpointSettings(name or local.endpoint_name, local.host, max_attempts=2)
    rows = RowSettings("f" * 16, "stand-in", endpoint.name)
    return EmbedSettings(WorkSettings(ClipSettings(), rows, str(checkpoint), "run", decoder_processes=2), endpoint)


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def run(of: EmbedSettings, recordings: list[Recording]) -> dict[str, int]:
    """Embeds packets of two and of one recording; checks receipts and rows; the metrics."""
    store = open_store(of.work.checkpoint)

    def are_receipts(actual: list[tuple[str, Receipt]]) -> None:
        for plan in plan_of(packet(*recordings)):
            uri = plan.recording.uri
            mine = [receipt for key, receipt in actual if key == uri]
            places, row, failures, _ = choose(plan, mine, may_be_unfinished=False)
            assert (row.recording_uri, row.embedded, failures) == (uri, CLIPS[Path(uri).name], [])
            for file, place in places:
                ((read, _, _),) = read_places(store, (file, [(place,)]))
                assert read.recording_uri == uri
                assert np.isfinite(read.embedding).all()

    def are_counts(actual: list[dict[str, int]]) -> None:
        # Eight clips of two packets, four in a request.
        assert sum(counts["requests"] for counts in actual) == 2
        assert sum(counts["retries"] for counts in actual) == 0

    pipeline = beam.Pipeline(runner=FnApiRunner())
    packets = pipeline | beam.Create([packet(*recordings[:2]), packet(*recordings[2:])])
    embedded = packets | EmbedPackets(of)
    assert_that(embedded.receipts, are_receipts, label="receipts")
    assert_that(embedded[COUNTS], are_counts, label="counts")
    result = pipeline.run()
    found = result.metrics().query(MetricsFilter().with_namespace("embed"))["counters"]
    return {metric.key.metric.name: metric.committed for metric in found}


def test_packets_become_receipts_for_stored_rows(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path
) -> None:
    metrics = run(settings(local, tmp_path), recordings)
    assert metrics.pop("decode_ms") > 0
    assert 8 * 11 * 32000 <= metrics.pop("sent_bytes") < 1.01 * 8 * 11 * 32000
    assert {name: count for name, count in metrics.items() if count} == {"recordings": 3, "embedded": 8, "requests": 2}
    assert {
        "failed",
        "skipped",
        "retries",
        "rejections",
        "waiting_ms",
        "throttled_ms",
        "fetched_bytes",
    } <= metrics.keys()
    assert {"staged", "clipped_samples"} <= metrics.keys()
    assert {path.parent.name for path in tmp_path.rglob("*.rows")} == {
        packet(*recordings[:2]).packet_id,
        packet(*recordings[2:]).packet_id,
    }
    assert not threads("checkpoint-writer")


def test_requests_are_timed_and_retries_counted_by_their_code(recordings: list[Recording], tmp_path: Path) -> None:
    with start_local_endpoint(20, options=["--faults=503=0.5,seed=2"]) as faulty:
        of = settings(faulty, tmp_path)
        of = replace(of, endpoint=replace(of.endpoint, max_in_flight=1, clips_per_request=1, max_attempts=9))
        pipeline = beam.Pipeline(runner=FnApiRunner())
        embedded = pipeline | beam.Create([packet(recordings[2])]) | EmbedPackets(of)

        def are_counts(actual: list[dict[str, int]]) -> None:
            assert {
                name for counts in actual for name in counts if "_BYTES" in name.upper() or "WAITING" in name
            } == set()
            assert sum(counts.get("retries/UNAVAILABLE", 0) for counts in actual) > 0

        assert_that(embedded[COUNTS], are_counts)
        found = pipeline.run().metrics().query(MetricsFilter().with_namespace("embed"))
        release_shared()
    counters = {metric.key.metric.name: metric.committed for metric in found["counters"]}
    (latency,) = (metric.committed for metric in found["distributions"] if metric.key.metric.name == "latency_ms")
    assert counters["embedded"] == 2
    assert counters["retries"] == counters["retries_UNAVAILABLE"] > 0
    assert counters["requests"] == latency.count == 2 + counters["retries"]
    assert latency.max >= 20
    # One at a time: the second clip waits for the answer to the first, which does not come in less than 20 ms.
    assert counters["waiting_ms"] >= 20


def test_time_in_which_a_limit_held_requests_back_is_counted_and_signalled(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What other tests have just sent to this endpoint would hold back the first request too.
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    of = settings(local, tmp_path / "run")
    slow = replace(of, endpoint=replace(of.endpoint, clips_per_request=1, max_requests_per_minute=200))
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([packet(*recordings)]) | EmbedPackets(slow)
    found = pipeline.run().metrics().query(MetricsFilter().with_namespace("embed"))["counters"]
    metrics = {metric.key.metric.name: metric.committed for metric in found}
    # Eight requests, of which seven wait for their slot, the less the slower this machine is.
    assert metrics["requests"] == 8
    assert 0 < metrics["throttled_ms"] <= 1000 * 7 * 60 / (0.985 * 200)
    assert metrics.get("cumulativeThrottlingSeconds", 0) == metrics["throttled_ms"] // 1000


def test_a_process_keeps_one_client_until_it_is_released(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path
) -> None:
    for number in range(2):
        run(settings(local, tmp_path / str(number)), recordings)
        assert len(threads("hear-endpoint-client")) == 1
    release_shared()
    assert not threads("hear-endpoint-client")


def test_a_run_that_ends_says_why_and_leaves_no_rows_of_clips(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path
) -> None:
    wrong = settings(local, tmp_path, name="projects/p/locations/l/endpoints/404")
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([packet(*recordings)]) | EmbedPackets(wrong)
    with pytest.raises(RunEnded, match="projects/p/locations/l/endpoints/404"):
        pipeline.run()
    rows = [row for path in tmp_path.rglob("*.rows") for _, row in read_all(path.read_bytes())]
    assert all(isinstance(row, Census) for row in rows)
    release_shared()
    assert not threads("checkpoint-writer")
    assert not threads("hear-endpoint-client")


def test_ids_are_those_of_the_recordings_and_not_of_the_run(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path
) -> None:
    run(settings(local, tmp_path), recordings)
    rows = [row for path in tmp_path.rglob("*.rows") for _, row in read_all(path.read_bytes())]
    assert {row.clip_id for row in rows if isinstance(row, EmbeddingRow)} == {
        clip_id(some, "mean", 32000 * clip, "f" * 16)
        for some in recordings
        for clip in range(CLIPS[Path(some.uri).name])
    }


def test_settings_go_to_workers(local: LocalEndpoint, tmp_path: Path) -> None:
    some = settings(local, tmp_path)
    assert pickle.loads(pickle.dumps(some)) == some
