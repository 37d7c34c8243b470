"""What is read is what is there, wherever reading begins; several pieces come at a time, and none that nobody will read."""

import io
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.read_ahead import AheadFile


def fetch_from(data: bytes) -> Callable[[int, int], bytes]:
    return lambda first, last: data[first : last + 1]


@given(
    st.binary(max_size=300),
    st.integers(0, 300),
    st.integers(1, 50),
    st.integers(1, 4),
    st.lists(
        st.one_of(st.tuples(st.just("seek"), st.integers(0, 320)), st.tuples(st.just("read"), st.integers(0, 90)))
    ),
)
def test_it_reads_as_a_file_does(
    data: bytes, until: int, piece: int, pieces: int, steps: list[tuple[str, int]]
) -> None:
    wanted = io.BytesIO(data)
    with io.BufferedReader(AheadFile(fetch_from(data), len(data), until, piece, pieces), 16) as file:
        for what, number in steps:
            if what == "seek":
                assert file.seek(number) == wanted.seek(number)
            else:
                assert file.read(number) == wanted.read(number)
            assert file.tell() == wanted.tell()
        assert file.read() == wanted.read()


def test_pieces_come_at_a_time_and_no_more_than_are_wanted() -> None:
    data = bytes(range(100))
    together = threading.Barrier(3)
    asked: list[tuple[int, int]] = []

    def fetch(first: int, last: int) -> bytes:
        asked.append((first, last))
        if first < 30:
            together.wait(timeout=10)
        return data[first : last + 1]

    with AheadFile(fetch, len(data), until=30, piece_bytes=10, pieces=3) as file:
        assert file.read(5) == data[:5]
        assert sorted(asked) == [(0, 9), (10, 19), (20, 29)]
        assert b"".join(iter(lambda: file.read(10), b"")) == data[5:]
    assert sorted(asked) == [(first, first + 9) for first in range(0, 100, 10)]


def test_what_cannot_be_fetched_is_raised_where_it_is_read() -> None:
    def fetch(first: int, last: int) -> bytes:
        if first:
            raise ConnectionError("gone")
        return b"x" * (last - first + 1)

    with AheadFile(fetch, 100, until=100, piece_bytes=10, pieces=2) as file:
        assert file.read(10) == b"x" * 10
        with pytest.raises(ConnectionError):
            file.read(10)
