"""Grouping many in one element groups as GroupByKey does."""

from collections import Counter, defaultdict
from collections.abc import Callable

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from audio.listing import Unlisted
from audio.recording import Recording
from transforms.group_packed import BUCKETS, GroupPacked, _Gather, _TellApart, bucket_of
from transforms.packed import Packing

Value = Recording | Unlisted
PACKING: Packing[Value] = Packing(Recording, Unlisted)
KEYS = ["gs://clinic/кашель #1.wav", "", *(f"/recordings/{number}.wav" for number in range(3000))]


def values() -> list[tuple[str, Value]]:
    one = [(key, Recording(key, str(number), number)) for number, key in enumerate(KEYS)]
    return one + [(key, Unlisted(key, "code", "why")) for key in KEYS[::7]] + one[:20]


def by_key(keyed: list[tuple[str, Value]]) -> dict[str, Counter[Value]]:
    groups: dict[str, Counter[Value]] = defaultdict(Counter)
    for key, value in keyed:
        groups[key][value] += 1
    return groups


def is_grouped(actual: list[tuple[str, list[Value]]]) -> None:
    assert {key: Counter(some) for key, some in actual} == by_key(values())
    assert len(actual) == len(KEYS)


@pytest.mark.parametrize("held_bytes", [1, 5_000, 8 << 20])
def test_values_of_all_collections_are_grouped_by_their_keys(held_bytes: int) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        parts = [pipeline | f"Part {part}" >> beam.Create(values()[part::3]) for part in range(3)]
        assert_that(tuple(parts) | GroupPacked(PACKING, held_bytes), is_grouped)


def test_two_keys_of_one_hash_are_told_apart() -> None:
    same = [key for key in KEYS if bucket_of(key) == bucket_of(KEYS[-1])]
    assert len(same) > 1
    gathered = gather([(key, Recording(key, "", 1)) for key in same], lambda _: None)
    assert {bucket for bucket, _ in gathered} == {bucket_of(KEYS[-1])}
    told_apart = dict(_TellApart(PACKING).process((gathered[0][0], [data for _, data in gathered])))
    assert told_apart == {key: [Recording(key, "", 1)] for key in same}


def test_a_bundle_holds_no_more_than_it_may_and_nothing_of_the_one_before() -> None:
    passed_on: list[int] = []
    keyed = values()
    gathered = gather(keyed, passed_on.append, held_bytes=10_000)
    packed_bytes = sum(len(key.encode()) + len(PACKING.pack(value, key)) for key, value in keyed)
    assert 0 <= packed_bytes // 10_000 - sum(passed > 0 for passed in passed_on) <= 1
    assert all(0 <= bucket < BUCKETS for bucket, _ in gathered)


def gather(
    keyed: list[tuple[str, Value]], on_passed: Callable[[int], None], held_bytes: int = 8 << 20
) -> list[tuple[int, bytes]]:
    """What a bundle passes on; `on_passed` is told how much for each element."""
    stage = _Gather(PACKING, held_bytes)
    stage.start_bundle()
    passed_on: list[tuple[int, bytes]] = []
    for element in keyed:
        some = list(stage.process(element))
        on_passed(len(some))
        passed_on += some
    for last in stage.finish_bundle():
        assert isinstance(last, WindowedValue)
        assert list(last.windows) == [GlobalWindow()]
        passed_on.append(last.value)
    assert list(stage.finish_bundle()) == []
    return passed_on
