"""A job's files of results are found by their names, and each of their lines is read once, wherever they are cut."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audio.gcs import StorageServer
from transforms.files import FileError
from transforms.result_files import ResultPart, find_parts, is_result_file, lines_between, read_lines

FILES = [
    "prediction.results-00000-of-00002",
    "prediction.errors_stats-00000-of-00001",
    "predictions_0001.jsonl",
    "errors_0001.jsonl",
]
OTHERS = ["notes.txt", "prediction.results", "predictions_0001.csv", "other.prediction.results-1", "predictions.jsonl"]


def parts_of(size: int, part: int) -> list[tuple[int, int]]:
    return [(start, min(start + part, size)) for start in range(0, size, part)]


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"-"))), st.booleans(), st.integers(1, 40))
def test_each_line_is_read_once_wherever_a_file_is_cut(lines: list[bytes], is_ended: bool, part: int) -> None:
    data = b"\n".join(lines) + (b"\n" if is_ended else b"")
    read = [
        line for start, stop in parts_of(len(data), part) for line in lines_between(io.BytesIO(data), start, stop, 1000)
    ]
    *ended, last = data.split(b"\n")
    assert read == [line + b"\n" for line in ended] + [last] * bool(last)


@given(st.lists(st.integers(0, 30)), st.integers(1, 40), st.integers(1, 20))
def test_lines_that_are_too_long_are_passed_over_once(lengths: list[int], part: int, most: int) -> None:
    data = b"".join(b"x" * length + b"\n" for length in lengths)
    read = [
        line for start, stop in parts_of(len(data), part) for line in lines_between(io.BytesIO(data), start, stop, most)
    ]
    assert read == [b"x" * length + b"\n" if length <= most else None for length in lengths]


class Counted(io.BytesIO):
    """Says how far it was read."""

    furthest = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.furthest = max(self.furthest, self.tell())
        return line


def test_what_is_no_line_at_all_is_not_read_again_by_every_part() -> None:
    data = Counted(b"x" * (8 << 20))
    assert list(lines_between(data, 1 << 20, 2 << 20, 1 << 10)) == []
    assert data.furthest <= 3 << 20


@pytest.mark.parametrize("name", FILES)
def test_a_result_file_is_known_by_its_name(name: str) -> None:
    assert is_result_file(f"gs://b/results/prediction-hear-2024/{name}")


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_not_taken_for_results(name: str) -> None:
    assert not is_result_file(f"gs://b/prediction.results-00000-of-00001/{name}")


def test_files_are_found_in_the_folders_of_the_job_and_cut_into_parts(
    server: StorageServer, bucket: str, reached: str
) -> None:
    for name in [*FILES, *OTHERS]:
        server.upload(bucket, f"folder/results/prediction-m-1/{name}", b"a line\n" * 10)
    generation = server.upload(bucket, "folder/results/predictions_7.jsonl", b"x" * 100)
    server.upload(bucket, "folder/results/predictions_8.jsonl", b"")
    server.upload(bucket, "folder/other/predictions_9.jsonl", b"x")
    parts = list(find_parts(f"{reached}/", part_bytes=40))
    uri = f"{reached}/results/predictions_7.jsonl"
    assert [part for part in parts if part.uri == uri] == [
        ResultPart(uri, generation, 100, 0, 40),
        ResultPart(uri, generation, 100, 40, 80),
        ResultPart(uri, generation, 100, 80, 100),
    ]
    assert {part.uri.rpartition("/")[2] for part in parts} == {*FILES, "predictions_7.jsonl"}


def test_no_results_are_no_parts(reached: str) -> None:
    assert list(find_parts(f"{reached}/", 100)) == []


def test_a_large_file_is_read_in_pieces_as_it_was_listed(server: StorageServer, bucket: str, reached: str) -> None:
    lines = [b"%d" % number * 100_000 + b"\n" for number in range(10, 70)]
    server.upload(bucket, "folder/results/predictions_1.jsonl", b"".join(lines))
    parts = list(find_parts(f"{reached}/", part_bytes=5_000_000))
    assert len(parts) == 3
    assert [line for part in parts for line in read_lines(part)] == lines
    server.upload(bucket, "folder/results/predictions_1.jsonl", b"another\n")
    with pytest.raises(FileError, match=r"'gs://.*/results/predictions_1.jsonl': the object was replaced"):
        list(read_lines(parts[0]))


def test_a_bucket_that_is_not_there_is_said_so(reached: str) -> None:
    with pytest.raises(FileError, match=r"cannot list 'gs://no-such-bucket/f/results/' \(HTTP 404\)"):
        list(find_parts("gs://no-such-bucket/f/", 100))
