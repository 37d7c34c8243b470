"""Lists of samples are read as a JSON parser reads them, or not at all."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.sample_parser import SampleParser
from tests.endpoint.job_clips import KINDS, clip_of_kind, decimals
from tests.endpoint.test_job_lines import RENDERINGS, SEEDS

PARSER = SampleParser()
COUNT = 32000
USUAL = [name for name in RENDERINGS if name != "lines"]

ODD_NUMBERS = re.findall(
    r"\S+",
    """
    0 1 -1 -0 -0.0 9 9.999999 -9.999999 0.5 0.500000 1e-05 1.2e-05 -9.9e-06 1E-5 3.4e-4 5e-0 1.2000000424450263e-05
    0.012345678901234567 0.0000004 0.00000048999 0.00000049 0.0000005 0.00000050999 0.00000051 9.9999994 9.9999996
    4.95e-07 5.05e-07 1e-9 1e-15 1e-005 1e-5 10 10.5 123 1e5 1e+05 0.1e1 1e0 1E-05 12e-05 1.5e-5 0.25e-3
    """,
)
NO_NUMBERS = re.findall(
    r"\S+",
    r"""
    . - -- +1 .5 -.5 0. -0. 00 00.5 01 0.. 0.1.2 1-1 0.1- -e-05 e-05 1.e-05 1e 1e- 1e-0 1ee-05 1.2e-0x 0x1 0:5 0.:
    0.12345: 0.12345678: 0.1234567890: :.5 0/5 0.5e-05e-05 1e-:5 1.2e--5 NaN Infinity true null [] {} "" '' 0.5" \ 0.5]
    """,
)
SPACED = ["", " ", "0 .5", "- 1", "0.5 ", " 0.5", "\t0.5", "0.5\n", "  -0.5", "-", "0. 5", "0.5\0"]


def parse(numbers: bytes) -> np.ndarray | None:
    # In the middle of something, so that nothing from around it can be read.
    text = b'{"instance": [%b], "prediction": [0.1, 1e-05]}' % numbers
    return PARSER.millionths(text, 14, 14 + len(numbers))


def official(numbers: bytes) -> np.ndarray | None:
    """Whole millionths by the json module and Python's rounding; None if it is no list of 32000 numbers."""
    try:
        parsed = json.loads(b"[" + numbers + b"]")
        if len(parsed) != COUNT or any(type(number) not in (int, float) for number in parsed):
            return None
        # By Python, not by numpy; this product and its rounding are what a digest is defined by.
        return np.array([round(number * 1e6) for number in parsed], object)
    except (ValueError, OverflowError):
        # No JSON; infinite, or not a number, which Python would read; or too large.
        return None


@pytest.mark.parametrize("rendering", [name for name in USUAL if name != "exponents"])
@pytest.mark.parametrize("kind", KINDS)
def test_usual_renderings_are_read(kind: str, rendering: str) -> None:
    clip = clip_of_kind(kind, 7)
    written = decimals(clip)
    numbers = RENDERINGS[rendering]([float(number) for number in written])[1:-1]
    millionths = parse(numbers)
    assert millionths is not None
    assert millionths.dtype == np.int32
    assert millionths.tolist() == [int(number.scaleb(6)) for number in written]


@settings(max_examples=80, deadline=None)
@given(
    seed=SEEDS,
    kind=st.sampled_from(["normal", "quiet", "padded"]),
    rendering=st.sampled_from(USUAL),
    odd=st.lists(
        st.tuples(
            st.integers(0, COUNT - 1),
            st.sampled_from(ODD_NUMBERS) | st.sampled_from(ODD_NUMBERS) | st.sampled_from(NO_NUMBERS + SPACED),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_a_list_with_odd_members_is_read_as_json_or_not_at_all(
    seed: int, kind: str, rendering: str, odd: list[tuple[int, str]]
) -> None:
    texts = RENDERINGS[rendering](clip_of_kind(kind, seed % 4).astype(np.float64).round(6).tolist())[1:-1].split(b",")
    for place, member in odd:
        space = b" " if texts[place].startswith(b" ") else b""
        texts[place] = space + member.encode()
    check(b",".join(texts))


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, 10**9), byte=st.integers(0, 255), inserted=st.booleans(), rendering=st.sampled_from(USUAL))
def test_a_list_with_another_byte_is_read_as_json_or_not_at_all(
    place: int, byte: int, inserted: bool, rendering: str
) -> None:
    numbers = RENDERINGS[rendering](clip_of_kind("quiet", 2).astype(np.float64).round(6).tolist())[1:-1]
    place %= len(numbers)
    check(numbers[:place] + bytes([byte]) + numbers[place + (not inserted) :])


def check(numbers: bytes) -> None:
    millionths, expected = parse(numbers), official(numbers)
    if expected is None:
        assert millionths is None
    elif millionths is not None:
        assert (millionths == expected).all()
        assert np.abs(millionths).max() < 10_000_000


@pytest.mark.parametrize("member", ODD_NUMBERS)
def test_odd_numbers_among_zeros(member: str) -> None:
    for separator in (b",", b", "):
        for place in (0, 1, 17, COUNT - 1):
            texts = [b"0"] * COUNT
            texts[place] = member.encode()
            millionths = parse(separator.join(texts))
            if millionths is not None:
                exact = Decimal(member) * 1_000_000
                assert abs(millionths[place] - exact) < Decimal("0.5")
                assert np.count_nonzero(millionths) == (millionths[place] != 0)
            check(separator.join(texts))


@pytest.mark.parametrize("member", NO_NUMBERS + SPACED)
def test_what_is_no_number_among_zeros(member: str) -> None:
    for separator in (b",", b", "):
        for place in (0, 1, 17, COUNT - 1):
            texts = [b"0"] * COUNT
            texts[place] = member.encode()
            check(separator.join(texts))


@pytest.mark.parametrize("count", [0, 1, 2, COUNT - 1, COUNT + 1, 2 * COUNT])
def test_lists_of_other_lengths_are_not_read(count: int) -> None:
    assert parse(b",".join([b"0.25"] * count)) is None
    assert parse(b", ".join([b"0.25"] * count)) is None


def test_commas_alone_are_no_numbers() -> None:
    assert parse(b"," * (COUNT - 1)) is None
    assert parse(b", " * (COUNT - 1)) is None


def test_what_was_read_before_does_not_matter() -> None:
    small, large = b",".join([b"0"] * COUNT), b",".join([b"-0.012345678901234567"] * COUNT)
    for numbers, expected in ((small, 0), (large, -12346), (small, 0)):
        millionths = parse(numbers)
        assert millionths is not None
        assert (millionths == expected).all()


def test_what_was_read_stays_as_it_is() -> None:
    first = parse(b",".join([b"0.1"] * COUNT))
    parse(b",".join([b"0.2"] * COUNT))
    assert first is not None
    assert (first == 100_000).all()
