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
from tests.transforms.samples import packet, recording, segment_of, write_wav
from transforms.choose_rows import choose
from transforms.embed_packets import COUNTS, EmbedPackets, EmbedSettings, release_client
from transforms.packet_work import RowSettings
from transforms.write_tables import read_places

LENGTHS_S = {"a.wav": 9.0, "b.wav": 0.5, "c.wav": 4.0}
CLIPS = {"a.wav": 5, "b.wav": 1, "c.wav": 2}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEndpoint]:
    with start_local_endpoint() as endpoint:
        yield endpoint
        release_client()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    folder = tmp_path_factory.mktemp("in")
    return [recording(write_wav(folder / name, seconds, seed=7)) for name, seconds in LENGTHS_S.items()]


def settings(local: LocalEndpoint, run_folder: Path, name: str | None = None) -> EmbedSettings:
    endpoint = EndpointSettings(name or local.endpoint_name, local.host, max_attempts=2)
    return EmbedSettings(ClipSettings(), RowSettings("f" * 16, "stand-in", endpoint.name), endpoint, str(run_folder))


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def run(of: EmbedSettings, recordings: list[Recording], run_folder: Path) -> dict[str, int]:
    """Embeds packets of two and of one recording; checks receipts and rows; the metrics."""
    uris = {segment_of(some): some.uri for some in recordings}

    def are_receipts(actual: list[Receipt]) -> None:
        for segment, uri in uris.items():
            places, row, failures = choose(some for some in actual if some.segment_id == segment)
            assert (row.recording_uri, row.embedded, failures) == (uri, CLIPS[Path(uri).name], [])
            for file, reference in places:
                (read,) = read_places(str(run_folder), (file, [(reference.offset,)]))
                assert read.clip_id == reference.clip_id
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
    metrics = run(settings(local, tmp_path), recordings, tmp_path)
    assert {name: count for name, count in metrics.items() if count} == {"recordings": 3, "embedded": 8, "requests": 2}
    assert {"failed", "retries", "throttled_ms", "staged", "clipped_samples"} <= metrics.keys()
    assert {path.parent.name for path in tmp_path.rglob("*.rows")} == {
        packet(*recordings[:2]).packet_id,
        packet(*recordings[2:]).packet_id,
    }
    assert not threads("checkpoint-writer")


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
        run(settings(local, tmp_path / str(number)), recordings, tmp_path / str(number))
        assert len(threads("hear-endpoint-client")) == 1
    release_client()
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
    release_client()
    assert not threads("checkpoint-writer")
    assert not threads("hear-endpoint-client")


def test_ids_are_those_of_the_recordings_and_not_of_the_run(
    local: LocalEndpoint, recordings: list[Recording], tmp_path: Path
) -> None:
    run(settings(local, tmp_path), recordings, tmp_path)
    rows = [row for path in tmp_path.rglob("*.rows") for _, row in read_all(path.read_bytes())]
    assert {row.clip_id for row in rows if isinstance(row, EmbeddingRow)} == {
        clip_id(some, "mean", 32000 * clip, "f" * 16)
        for some in recordings
        for clip in range(CLIPS[Path(some.uri).name])
    }


def test_settings_go_to_workers(local: LocalEndpoint, tmp_path: Path) -> None:
    some = settings(local, tmp_path)
    assert pickle.loads(pickle.dumps(some)) == some
