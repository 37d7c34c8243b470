"""What is packed comes out as it was."""

import pickle
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.listing import Unlisted
from audio.manifest import ManifestRow
from audio.recording import Recording, Segment, Take
from rows.model import Census, ClipReference, FailureRow, Receipt, WantedClip
from transforms.choose_rows import Place, Use
from transforms.make_packets import Packet
from transforms.packed import Packing
from transforms.plan_segments import RecordingPlan, Task

TYPES = (Recording, Unlisted, ManifestRow, FailureRow, Receipt, RecordingPlan, Task, Packet, Place)
PACKING: Packing[Any] = Packing(*TYPES)
URI = "gs://clinic/study/0001/recording-000123.wav"
VERSION = "1753391234567890"

texts = st.text() | st.just(URI) | st.characters(categories=["Cs"])
for kind in (str, float):
    st.register_type_strategy(kind, texts if kind is str else st.floats(allow_nan=False))


@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_values_come_out_as_they_were(kind: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    key = data.draw(texts)
    unpacked = PACKING.unpack(PACKING.pack(value, key), key)
    assert unpacked == value
    assert repr(unpacked) == repr(value)
    assert types_of(unpacked) == types_of(value)


def types_of(value: object) -> object:
    return type(value), [types_of(one) for one in value] if isinstance(value, tuple) else None


def test_each_field_comes_out_under_its_own_name() -> None:
    take = Take("mean", 5, None)
    row = ManifestRow(3, 4, URI, take, (("age", "007"), ("sex", "")), "0123456789abcdef")
    plan = RecordingPlan(Recording(URI, VERSION, 9), (("segment", (take,)),), (row,), (), (), is_whole=False)
    assert PACKING.unpack(PACKING.pack(plan, URI), URI) == plan
    place = Place(7, (Use(0, None, ()), Use(1, 2, (("age", "007"),))))
    assert PACKING.unpack(PACKING.pack(place)) == place


def test_packed_references_take_a_fraction_of_the_memory() -> None:
    recording, segment_id, run_id = Recording(URI, VERSION, 32_044), "a" * 32, "20260725T220000Z-abcdef"
    clips = (WantedClip("c" * 32, ((0, 0),)),)
    census = Census(URI, VERSION, 32_044, clips, (), 0, 0, 1.0, 16_000, 1, "WAV", "PCM_16", "libsndfile", 0, 0.0)
    file = f"{run_id}/{'b' * 32}/0123456789ab-00000.rows"
    receipt = Receipt(URI, VERSION, segment_id, run_id, file, (ClipReference("c" * 32, 1234, 0.0),), (), census)
    plan = RecordingPlan(recording, ((segment_id, (Take("mean"),)),), (), (), ())
    task = Task(segment_id, Segment(recording, (Take("mean"),)), ())
    for value in (recording, receipt, plan, task):
        unpickled = pickle.loads(pickle.dumps(value))
        assert 3 * sys.getsizeof(PACKING.pack(value, URI)) < size_bytes(unpickled, {}), value


def size_bytes(value: object, seen: dict[int, object]) -> int:
    """What a value takes up with all that is in it, each object counted once."""
    if id(value) in seen:
        return 0
    seen[id(value)] = value
    return sys.getsizeof(value) + sum(size_bytes(one, seen) for one in (value if isinstance(value, tuple) else ()))


def test_what_could_not_be_told_apart_again_is_refused() -> None:
    class Either(NamedTuple):
        value: int | str

    with pytest.raises(ValueError, match="too many values"):
        Packing(Either)

    class Anything(NamedTuple):
        value: object

    with pytest.raises(TypeError, match="cannot be packed"):
        Packing(Anything)
