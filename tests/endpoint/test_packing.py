from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.packing import Packing


@dataclass
class Inner:
    counts: list[int]
    is_there: bool = False


@dataclass
class Outer:
    at_s: float
    inner: Inner
    number: int = 0
    other: Inner = field(default_factory=lambda: Inner([0, 0, 0]))


PACKING = Packing(Outer, 3)

inners = st.builds(Inner, st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), st.booleans())


@given(st.builds(Outer, st.floats(allow_nan=False), inners, st.integers(-(2**63), 2**63 - 1), inners))
def test_what_was_packed_is_unpacked(value: Outer) -> None:
    data = PACKING.pack(value)
    assert len(data) == PACKING.size_bytes
    assert PACKING.unpack(data) == value


def test_fields_stand_in_their_order_little_endian_and_without_gaps() -> None:
    value = Outer(-math.inf, Inner([1, 2, 3], True), -5)
    assert PACKING.pack(value) == struct.pack("<d3I?q3I?", -math.inf, 1, 2, 3, True, -5, 0, 0, 0, False)


def test_a_list_of_another_length_is_no_state() -> None:
    with pytest.raises(struct.error):
        PACKING.pack(Outer(0.0, Inner([1, 2])))
