"""Work on packets, against endpoints that answer late, out of order, with refusals, or not at all."""

import io
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.clips import ClipSettings
from audio.errors import StorageError
from audio.recording import Recording
from endpoint.errors import RunEnded
from rows.model import Census, FailureRow, Receipt, WantedClip
from tests.transforms.fake_endpoint import MODEL, FakeEndpoint, PromptEndpoint, embed, refuse
from tests.transforms.packet_work import NAME, SlowStore, Store, id_of, plan_of, working
from tests.transforms.samples import noise, packet, recording, task, write_wav
from transforms.choose_rows import choose


@pytest.fixture
def five_clips(tmp_path: Path) -> Recording:
    return recording(write_wav(tmp_path / "nine-seconds.wav", 9.0, seed=5))


def test_a_row_says_where_its_clip_is_and_what_the_endpoint_answered(five_clips: Recording) -> None:
    store, endpoint = Store(), PromptEndpoint()
    with working(endpoint, store) as (work, _):
        work.work(packet(five_clips))
        work.drain()
    audio = np.pad(noise(9.0, seed=5) / np.float32(32768), (0, 16000))
    rows = sorted(store.embedded(), key=lambda row: row.clip_index)
    assert len(rows) == 5
    for index, row in enumerate(rows):
        clip = audio[index * 32000 : (index + 1) * 32000]
        heard = clip[:16000] if index == 4 else clip
        assert row[:8] == (
            id_of(five_clips, index),
            five_clips.uri,
            five_clips.version,
            "mean",
            index,
            2.0 * index,
            9.0 if index == 4 else 2.0 * index + 2,
            1.0 if index == 4 else 0.0,
        )
        assert row.rms_dbfs == pytest.approx(10 * np.log10(np.mean(np.square(heard, dtype=np.float64))), abs=1e-4)
        assert row.peak_dbfs == pytest.approx(20 * np.log10(np.abs(heard).max()), abs=1e-4)
        assert row[10:16] == (16000, 1, "pcm_s16le", "model", f"{NAME}@{MODEL}", "f" * 16)
        assert np.array_equal(row.embedding, clip[:512].astype(np.float32))


def test_a_segments_census_counts_what_is_sent_and_what_is_skipped(tmp_path: Path) -> None:
    heard = recording(write_wav(tmp_path / "4.25 s.wav", 4.25))
    silent = tmp_path / "silent.wav"
    write_wav(silent, 4.0)
    data = bytearray(silent.read_bytes())
    data[44:] = bytes(len(data) - 44)
    silent.write_bytes(data)
    store, clips = Store(), ClipSettings(min_rms_dbfs=-60.0)
    with working(PromptEndpoint(), store, clips=clips) as (work, _):
        work.work(packet(heard, recording(silent), clips=clips))
        work.drain()
    by_uri = {census.recording_uri: census for census in store.censuses()}
    clips_of = tuple(WantedClip(id_of(heard, index), ((0, index),)) for index in range(2))
    facts = (4.25, 16000, 1, "wav", "pcm_s16le", "libsndfile", 0, 0.0)
    assert by_uri[heard.uri] == Census(heard.uri, heard.version, heard.size_bytes, clips_of, (), 1, 0, *facts)
    assert (by_uri[str(silent)].clips, by_uri[str(silent)].skipped_too_quiet) == ((), 2)
    assert len(store.embedded()) == 2


def test_batches_are_filled_across_the_recordings_of_a_packet_and_not_across_packets(tmp_path: Path) -> None:
    files = [recording(write_wav(tmp_path / f"{n}.wav", 2.0 * n, seed=n)) for n in (1, 2, 3)]
    endpoint = PromptEndpoint()
    with working(endpoint, Store()) as (work, _):
        work.work(packet(*files))
        work.work(packet(files[0]))
        work.drain()
    assert [len(request.results) for request in endpoint.requests] == [4, 2, 1]


def test_requests_for_a_packet_may_be_answered_while_later_ones_are_worked_on(
    five_clips: Recording, tmp_path: Path
) -> None:
    later = recording(write_wav(tmp_path / "later.wav", 3.0))
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store) as (work, _):
        assert work.work(packet(five_clips)) == []
        work.work(packet(later))
        for request in reversed(endpoint.requests):
            request.answer()
        receipts = work.drain()
    assert {row.clip_id for row in store.embedded()} == {id_of(five_clips, n) for n in range(5)} | {
        id_of(later, n) for n in range(2)
    }
    assert {receipt.segment_id for receipt in receipts} == {task(five_clips).segment_id, task(later).segment_id}


def test_a_slow_request_does_not_keep_the_rest_from_being_stored(five_clips: Recording, tmp_path: Path) -> None:
    later = recording(write_wav(tmp_path / "later.wav", 3.0))
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store) as (work, _):
        work.work(packet(five_clips))
        work.work(packet(later))
        slow, second, of_later = endpoint.requests
        of_later.answer()
        assert store.written.acquire(timeout=30)
        assert {row.recording_uri for row in store.rows()} == {later.uri}
        second.answer()
        slow.answer()
        work.drain()
    assert len(store.embedded()) == 7


def test_rows_of_a_packet_are_stored_before_all_of_it_is_answered(five_clips: Recording) -> None:
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store, flush_rows=5) as (work, _):
        work.work(packet(five_clips))
        four, one = endpoint.requests
        four.answer()
        assert store.written.acquire(timeout=30)
        assert len(store.embedded()) == 4
        one.answer()
        work.drain()
    assert len(store.embedded()) == 5


def test_draining_waits_for_the_last_answer(five_clips: Recording) -> None:
    store, endpoint = Store(), FakeEndpoint()
    order: list[str] = []
    with working(endpoint, store) as (work, _), ThreadPoolExecutor(1) as pool:
        work.work(packet(five_clips))
        draining = pool.submit(work.drain)
        draining.add_done_callback(lambda _: order.append("drained"))
        for number, request in enumerate(endpoint.requests):
            order.append(f"answer {number}")
            request.answer()
        (receipt,) = draining.result(timeout=30)
    assert order == ["answer 0", "answer 1", "drained"]
    assert len(receipt.clips) == 5


def test_samples_are_not_kept_while_their_answer_is_awaited(five_clips: Recording) -> None:
    endpoint = FakeEndpoint()
    with working(endpoint, Store()) as (work, _):
        work.work(packet(five_clips))
        samples = [reference for request in endpoint.requests for reference in request.samples]
        assert len(samples) == 5
        assert [reference() for reference in samples] == [None] * 5
        for request in endpoint.requests:
            request.answer()
        work.drain()


def test_a_refused_clip_is_its_own_failure_and_no_others(five_clips: Recording) -> None:
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store) as (work, _):
        work.work(packet(five_clips))
        first, last = endpoint.requests
        first.answer(results=(first.results[0], refuse(np.empty(0)), *first.results[2:]))
        last.answer()
        work.drain()
    assert store.failures() == [
        FailureRow(
            five_clips.uri,
            five_clips.version,
            id_of(five_clips, 1),
            "mean",
            2.0,
            "endpoint",
            "rejected",
            "the endpoint rejected this clip as invalid",
            retryable=False,
            attempts=3,
        )
    ]
    assert {row.clip_index for row in store.embedded()} == {0, 2, 3, 4}


def test_counts_are_what_happened_since_they_were_last_taken(five_clips: Recording) -> None:
    endpoint = FakeEndpoint()
    with working(endpoint, Store()) as (work, _):
        work.work(packet(five_clips))
        endpoint.requests[0].answer(requests=3, retries=2)
        taken = work.take_counts()
        del taken["decode_ms"]
        assert taken == Counter(recordings=1, requests=3, retries=2, embedded=4)
        endpoint.requests[1].answer(results=(refuse(np.empty(0)),))
        work.drain()
        assert +work.take_counts() == Counter(requests=1, failed=1)
        assert not +work.take_counts()


def test_time_and_bytes_of_what_is_decoded_are_counted(tmp_path: Path) -> None:
    ticks = count()
    path = write_wav(tmp_path / "a.wav", 4.1)
    data = path.read_bytes()
    object_ = recording(path)._replace(uri="gs://bucket/a.wav")
    with working(PromptEndpoint(), Store(), fetch=lambda _: data, clock=lambda: next(ticks) * 0.0006) as (work, _):
        work.work(packet(object_))
        counts = work.take_counts()
        # Two clips, a tail that is skipped and the end, each between two readings of the clock; what is below 1 ms is kept.
        assert counts == Counter(recordings=1, requests=1, embedded=2, skipped=1, fetched_bytes=len(data), decode_ms=2)
        work.work(packet(object_._replace(uri="gs://bucket/b.wav")))
        assert work.take_counts()["decode_ms"] == 2
        work.work(packet(object_._replace(uri="gs://bucket/c.wav")))
        assert work.take_counts()["decode_ms"] == 3


def test_when_the_run_ends_before_a_request_is_sent_what_was_answered_is_kept(five_clips: Recording) -> None:
    store, endpoint = Store(), FakeEndpoint(ends_after=1)
    with working(endpoint, store, flush_rows=10**6) as (work, writer):
        sending = iter(endpoint.requests)
        with pytest.raises(RunEnded, match="check --endpoint"):
            work.work(packet(five_clips))
        next(sending).answer()
        writer.flush()
    assert {row.clip_index for row in store.embedded()} == {0, 1, 2, 3}


def test_when_the_run_ends_while_requests_are_out_draining_stores_what_was_answered_and_raises(
    five_clips: Recording,
) -> None:
    store, endpoint = SlowStore(), FakeEndpoint()
    with working(endpoint, store) as (work, _):
        work.work(packet(five_clips))
        four, one = endpoint.requests
        one.answer()
        four.end(RunEnded("the credentials were refused"))
        with pytest.raises(RunEnded, match="the credentials were refused"):
            work.drain()
        assert store.files
    assert [row.clip_index for row in store.embedded()] == [4]
    assert store.failures() == []


def test_when_the_run_has_ended_no_further_clip_is_sent(five_clips: Recording) -> None:
    endpoint = FakeEndpoint()
    with working(endpoint, Store()) as (work, _):
        work.work(packet(five_clips))
        for request in endpoint.requests:
            request.end(RunEnded("the credentials were refused"))
        with pytest.raises(RunEnded, match="the credentials were refused"):
            work.work(packet(five_clips))
    assert len(endpoint.requests) == 2


def test_an_outcome_that_cannot_be_is_an_error_and_not_a_lost_clip(five_clips: Recording) -> None:
    store, endpoint = Store(), FakeEndpoint()
    with working(endpoint, store) as (work, _):
        work.work(packet(five_clips))
        four, one = endpoint.requests
        four.answer(results=four.results[:3])
        one.answer()
        with pytest.raises(ValueError, match="shorter"):
            work.drain()


def header_only(path: Path) -> None:
    write_wav(path, 0.0)


def web_page(path: Path) -> None:
    path.write_text("<html>404</html>")


def cut_off(path: Path) -> None:
    write_wav(path, 6.0)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 16000 * 5])


BAD = {
    "missing.wav": (write_wav, ("fetch", "missing_file"), 0),
    "pipe.wav": (os.mkfifo, ("fetch", "not_a_regular_file"), 0),
    "changed.wav": (write_wav, ("fetch", "changed_file"), 0),
    "empty.wav": (Path.touch, ("decode", "empty_file"), 0),
    "text.wav": (web_page, ("decode", "not_audio"), 0),
    "header.wav": (header_only, ("decode", "no_audio"), 0),
    "short.wav": (cut_off, ("decode", "truncated"), 2),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_failure_of_its_stage_and_spoils_no_neighbour(tmp_path: Path, name: str) -> None:
    make, expected, clips = BAD[name]
    good = [recording(write_wav(tmp_path / f"{letter}.wav", 5.0)) for letter in "az"]
    make(tmp_path / name)
    bad = recording(tmp_path / name)
    if name == "missing.wav":
        Path(bad.uri).unlink()
    if name == "changed.wav":
        bad = bad._replace(version="1-1")
    store = Store()
    with working(PromptEndpoint(), store) as (work, _):
        receipts = work.work(packet(good[0], bad, good[1])) + work.drain()
    (failure,) = store.failures()
    assert (failure.recording_uri, failure.stage, failure.code) == (bad.uri, *expected)
    assert failure.clip_id is None
    assert failure.start_s == (5.0 if clips else None)
    assert (
        Counter(row.recording_uri for row in store.embedded())
        == Counter({good[0].uri: 3, good[1].uri: 3, bad.uri: clips}) - Counter()
    )
    for plan in plan_of(packet(good[0], bad, good[1])):
        of_plan = [receipt for receipt in receipts if receipt.recording_uri == plan.recording.uri]
        row = choose(plan, of_plan, may_be_unfinished=False).recording
        assert row.status == ("embedded" if row.recording_uri != bad.uri else "partial" if clips else "failed")


def test_a_clip_that_cannot_be_sent_is_a_failure_and_the_others_are_embedded(tmp_path: Path) -> None:
    samples = np.full(96000, 0.1, np.float32)
    samples[40000:50000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    of = recording(tmp_path / "nan.wav")
    store = Store()
    with working(PromptEndpoint(), store) as (work, _):
        work.work(packet(of))
        work.drain()
    assert {row.clip_id for row in store.embedded()} == {id_of(of, 0), id_of(of, 2)}
    (failure,) = store.failures()
    assert failure[2:7] == (id_of(of, 1), "mean", 2.0, "decode", "non_finite_samples")
    assert (failure.retryable, failure.attempts) == (False, 0)


class BreaksOff(io.BytesIO):
    """An object of Cloud Storage of which only the first bytes come."""

    def readinto(self, buffer: memoryview) -> int:
        self._check()
        return super().readinto(buffer)

    def read(self, size: int | None = -1) -> bytes:
        self._check()
        return super().read(size)

    def _check(self) -> None:
        if self.tell() > 150_000:
            raise StorageError("reading the object failed (HTTP 503); try again")


def test_storage_that_fails_while_it_is_decoded_is_a_failure_to_fetch_that_may_be_tried_again(tmp_path: Path) -> None:
    of = recording(write_wav(tmp_path / "a.wav", 60.0))

    def fetch(_: Recording) -> BinaryIO:
        return BreaksOff((tmp_path / "a.wav").read_bytes())

    store = Store()
    with working(PromptEndpoint(), store, fetch=fetch) as (work, _):
        work.work(packet(of))
        work.drain()
    (failure,) = store.failures()
    assert (failure.stage, failure.code, failure.retryable) == ("fetch", "storage_error", True)


LENGTHS_S = (0.1, 0.4, 1.0, 2.0, 2.3, 3.0, 5.9, 8.0, 12.5)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Recording, int]]:
    """Recordings with the number of clips that each must have an outcome for."""
    folder = tmp_path_factory.mktemp("collection")
    good = [recording(write_wav(folder / f"{n}.wav", length_s, seed=n)) for n, length_s in enumerate(LENGTHS_S)]
    (folder / "text.wav").write_text("no sound")
    pieces = [(length_s, int(-(-length_s // 2))) for length_s in LENGTHS_S]
    sent = [count - (count > 1 and 0 < length_s % 2 < 0.5) for length_s, count in pieces]
    return [*zip(good, sent, strict=True), (recording(folder / "text.wav"), 0)]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), clips_per_request=st.integers(1, 4), flush_rows=st.integers(1, 12))
def test_every_clip_has_exactly_one_outcome(
    collection: list[tuple[Recording, int]], data: st.DataObject, clips_per_request: int, flush_rows: int
) -> None:
    order = data.draw(st.permutations(collection))[: data.draw(st.integers(1, len(collection)))]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order)), max_size=3)) | {0, len(order)})
    packets = [packet(*(of for of, _ in order[a:b])) for a, b in pairwise(cuts)]
    refused = data.draw(st.sets(st.integers(0, 40)))
    store = Store()
    submitted = iter(range(10**6))
    judge = lambda samples: refuse(samples) if next(submitted) in refused else embed(samples)  # noqa: E731
    endpoint = FakeEndpoint(judge, max_instances=clips_per_request)
    receipts: list[Receipt] = []
    with working(endpoint, store, flush_rows=flush_rows) as (work, _):
        answered = 0
        for some in packets:
            receipts += work.work(some)
            if data.draw(st.booleans()):
                waiting = endpoint.requests[answered:]
                for request in data.draw(st.permutations(waiting)):
                    request.answer()
                answered += len(waiting)
        for request in data.draw(st.permutations(endpoint.requests[answered:])):
            request.answer()
        receipts += work.drain()

    assert all(1 <= len(request.results) <= clips_per_request for request in endpoint.requests)
    outcomes = Counter(row.clip_id for row in store.rows() if not isinstance(row, Census) and row.clip_id is not None)
    assert outcomes == Counter(id_of(of, clip) for of, clips in order for clip in range(clips))
    sent = sum(clips for _, clips in order)
    assert sum(failure.stage == "endpoint" for failure in store.failures()) == sum(number < sent for number in refused)
    assert sorted(census.recording_uri for census in store.censuses()) == sorted(of.uri for of, _ in order)
    assert {receipt.file for receipt in receipts} == set(store.files)
    for of, clips in order:
        (plan,) = plan_of(packet(of))
        of_plan = [receipt for receipt in receipts if receipt.recording_uri == of.uri]
        places, row, failures, left = choose(plan, of_plan, may_be_unfinished=False)
        assert left == 0
        assert (row.clips, row.embedded, row.failed) == (
            clips + row.skipped_too_short,
            len(places),
            clips - len(places),
        )
        assert bool(failures) == (row.status in ("failed", "partial"))
