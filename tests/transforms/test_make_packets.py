from itertools import pairwise

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from audio.recording import Recording
from audio.stretches import STRETCH_S
from tests.transforms.samples import task
from transforms.make_packets import MAX_SIZE_BYTES, MAX_TASKS, MakePackets, Packet, _FillPackets
from transforms.plan_segments import Task

SIZES = st.one_of(st.integers(0, 5_000_000), st.integers(0, 3 * MAX_SIZE_BYTES), st.just(MAX_SIZE_BYTES))


def recordings_of(sizes_bytes: list[int]) -> list[Recording]:
    return [Recording(f"/in/{number}.wav", "1-1", size) for number, size in enumerate(sizes_bytes)]


def fill(recordings: list[Recording]) -> list[Packet]:
    """The packets of one bundle."""
    filling = _FillPackets()
    filling.start_bundle()
    packets = [packet for recording in recordings for packet in filling.process(task(recording))]
    return packets + [windowed.value for windowed in filling.finish_bundle()]


@given(st.lists(SIZES, max_size=120))
def test_every_recording_is_in_exactly_one_packet(sizes_bytes: list[int]) -> None:
    recordings = recordings_of(sizes_bytes)
    packed = [task.segment.recording for packet in fill(recordings) for task in packet.tasks]
    assert sorted(packed) == sorted(recordings)


@given(st.lists(SIZES, max_size=120))
def test_packets_keep_within_their_bounds(sizes_bytes: list[int]) -> None:
    for packet in fill(recordings_of(sizes_bytes)):
        assert 1 <= len(packet.tasks) <= MAX_TASKS
        total = sum(task.segment.recording.size_bytes for task in packet.tasks)
        assert total <= MAX_SIZE_BYTES or len(packet.tasks) == 1


@given(st.lists(SIZES, max_size=120))
def test_packets_are_not_smaller_than_need_be(sizes_bytes: list[int]) -> None:
    packets = fill(recordings_of(sizes_bytes))
    for packet, following in pairwise(packets):
        sizes = [task.segment.recording.size_bytes for task in packet.tasks]
        largest = max(task.segment.recording.size_bytes for task in following.tasks)
        assert len(sizes) == MAX_TASKS or sum(sizes) + largest > MAX_SIZE_BYTES


def test_of_small_recordings_a_packet_holds_so_many_and_no_more() -> None:
    packets = fill(recordings_of([1000] * 100))
    assert [len(packet.tasks) for packet in packets] == [
        MAX_TASKS,
        MAX_TASKS,
        MAX_TASKS,
        100 - 3 * MAX_TASKS,
    ]


@given(st.permutations(recordings_of([1000] * MAX_TASKS)))
def test_a_packet_is_the_same_whatever_the_order_of_its_recordings(recordings: list[Recording]) -> None:
    assert fill(recordings) == fill(sorted(recordings))


def test_packets_of_different_recordings_or_versions_have_different_ids() -> None:
    one, other = recordings_of([1, 1])
    ids = {packets[0].packet_id for packets in map(fill, ([one], [other], [one, other], [one._replace(version="1-2")]))}
    assert len(ids) == 4


def test_segments_of_one_recording_are_spread_over_packets() -> None:
    whole = task(Recording("/in/long.wav", "1-1", 7 << 30))
    parts = [
        Task(f"s{k}", whole.segment._replace(start_s=k * STRETCH_S, stop_s=(k + 1) * STRETCH_S), ()) for k in range(12)
    ]
    filling = _FillPackets()
    filling.start_bundle()
    packets = [packet for part in parts for packet in filling.process(part)]
    packets += [windowed.value for windowed in filling.finish_bundle()]
    assert [part for packet in packets for part in packet.tasks] == parts
    assert len(packets) == 12


def test_a_bundle_begins_with_nothing_of_the_one_before() -> None:
    filling = _FillPackets()
    for _ in range(2):
        filling.start_bundle()
        assert list(filling.process(task(Recording("/in/a.wav", "1-1", 5)))) == []
        assert [len(windowed.value.tasks) for windowed in filling.finish_bundle()] == [1]
    filling.start_bundle()
    assert list(filling.finish_bundle()) == []


def test_a_pipelines_packets_hold_all_recordings() -> None:
    recordings = recordings_of([3 << 20] * 70)

    def hold_all(actual: list[Packet]) -> None:
        assert sorted(task.segment.recording for packet in actual for task in packet.tasks) == sorted(recordings)
        assert len(actual) >= 4  # 64 MiB hold 21 of them

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        assert_that(pipeline | beam.Create(list(map(task, recordings))) | MakePackets(), hold_all)
