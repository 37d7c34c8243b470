"""Patterns say what the command takes: where they can say it all, exactly that."""

import argparse
import math
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flags import make_parser
from pipeline.usage import UsageError
from pipeline.values import ACCOUNT, FRACTION, NUMBER, RATE, SECONDS, Kind, truth, whole_number

DECIMALS = [NUMBER, SECONDS, FRACTION, RATE]
CLOSE_TO_DECIMALS = st.text("0123456789+-.eE_ \n", max_size=8) | st.floats().map(str)


def taken(convert: Callable[[str], Any], text: str) -> bool:
    try:
        convert(text)
    except argparse.ArgumentTypeError:
        return False
    return True


@given(st.integers(0, 2000), st.none() | st.integers(0, 2000), st.integers(0, 2500), st.integers(0, 3))
@settings(max_examples=300)
def test_the_pattern_of_whole_numbers_is_exact(least: int, above: int | None, number: int, zeros: int) -> None:
    most = None if above is None else least + above
    text = "0" * zeros + str(number)
    within = least <= number and (most is None or number <= most)
    assert (re.fullmatch(whole_number(least, most).pattern, text) is not None) == within
    assert taken(whole_number(least, most), text) == within


@pytest.mark.parametrize("text", ["", " 1", "1 ", "+1", "-1", "1.0", "1e3", "1_0", "0x1", "١", "1\n"])
def test_what_is_no_whole_number(text: str) -> None:
    assert not taken(whole_number(0), text)


@given(CLOSE_TO_DECIMALS)
def test_a_decimal_number_is_what_its_pattern_matches(text: str) -> None:
    matches = re.fullmatch(NUMBER.pattern, text) is not None
    assert taken(NUMBER, text) == (matches and math.isfinite(float(text)))


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [(SECONDS, 5e-324, 3600.0), (FRACTION, 0.0, 1.0), (RATE, 1.0, 1e6)],
    ids=["s", "share", "rate"],
)
def test_the_limits_of_decimal_numbers(kind: Kind[float], least: float, most: float) -> None:
    assert kind(str(least)) == least
    assert kind(str(most)) == most
    assert not taken(kind, str(math.nextafter(least, -math.inf)))
    assert not taken(kind, str(math.nextafter(most, math.inf)))
    assert not taken(kind, "nan")


@pytest.mark.parametrize("text", ["a@p.iam.gserviceaccount.com", "1-compute@developer.gserviceaccount.com", "x@y.z"])
def test_an_account(text: str) -> None:
    assert ACCOUNT(text) == text


@pytest.mark.parametrize(
    "text", ["", "a", "a@b", "a b@p.example", "a@b.example\n", "serviceAccount:a@b.c", "a@b@c.d", "a/b@c.d"]
)
def test_what_is_no_account(text: str) -> None:
    assert not taken(ACCOUNT, text)


@pytest.mark.parametrize("kind", [*DECIMALS, ACCOUNT, whole_number(0), whole_number(64), whole_number(1, 1024)])
@pytest.mark.parametrize(
    "text", ["0", "64", "1024", "1025", "0.5", ".5", "5.", "1e3", "-2", "a@b.c", "a@b", "x", "1 2"]
)
def test_patterns_mean_the_same_to_egrep(kind: Kind[Any], text: str) -> None:
    done = subprocess.run(["grep", "-Exq", "-e", kind.pattern], input=text, text=True, check=False)
    assert (done.returncode == 0) == (re.fullmatch(kind.pattern, text) is not None)


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ([], False),
        (["--overwrite"], True),
        (["--overwrite=true"], True),
        (["--overwrite=false"], False),
        (["--overwrite", "--overwrite=false"], False),
        (["--overwrite=false", "--overwrite"], True),
    ],
    ids=str,
)
def test_a_switch_is_given_alone_or_with_its_value(given: list[str], on: bool) -> None:
    assert make_parser().parse_args(given).overwrite is on


@pytest.mark.parametrize("value", ["", "True", "1", "yes", "on", " true"])
def test_a_switch_has_no_other_values(value: str) -> None:
    assert not taken(truth, value)
    with pytest.raises(UsageError, match=r"--overwrite: .* is neither true nor false"):
        make_parser().parse_args([f"--overwrite={value}"])
