from collections import Counter
from pathlib import Path
from typing import BinaryIO

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from transforms.files import WriteError
from transforms.shards import WriteShards, _NameShards, shard_name


class Lines:
    """Writes a line an element, and a last line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, element: str) -> None:
        self._file.write(f"{element}\n".encode())

    def close(self) -> None:
        self._file.write(b"end\n")


def write(folder: Path, elements: list[str], prefix: str = "a", suffix: str = ".lines", workers: int = 1) -> None:
    """Runs a pipeline; what it returns must be the names of the files."""
    options = PipelineOptions(["--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        names = (
            pipeline
            | beam.Create(elements, reshuffle=True)
            | WriteShards(f"{folder}/{prefix}", suffix, Lines, "20260101T000000Z-abcdef")
        )
        names = names | beam.Map(_existing)
        assert_that(names | beam.combiners.ToList() | beam.Map(sorted), _are_all_shards)


def _existing(name: str) -> str:
    assert Path(name).is_file()
    return name


def _are_all_shards(actual: list[list[str]]) -> None:
    (names,) = actual
    prefix, suffix = names[0].split("-00000-of-")[0], Path(names[0]).suffix
    assert names == [f"{prefix}-{index:05d}-of-{len(names):05d}{suffix}" for index in range(len(names))]


def lines(folder: Path, prefix: str = "a") -> Counter[str]:
    """All lines of all shards, each of which must be complete."""
    found: Counter[str] = Counter()
    for path in folder.glob(f"{prefix}-[0-9]*-of-*.lines"):
        *rows, last = path.read_text().splitlines()
        assert last == "end"
        found.update(rows)
    return found


def shards_of(tmp_path: Path, *texts: str) -> tuple[list[str], _NameShards[str]]:
    """Unnamed shards as bundles leave them, and what names them."""
    hidden = tmp_path / ".a-run.lines"
    hidden.mkdir()
    paths = []
    for text in texts:
        path = hidden / f"shard-{text}"
        path.write_text(f"{text}\nend\n")
        paths.append(str(path))
    return paths, _NameShards(str(hidden), str(tmp_path / "a"), ".lines", Lines)


def test_names_count_from_zero_and_say_how_many_there_are() -> None:
    assert shard_name("out/a", 2, 5, ".tfrecord") == "out/a-00002-of-00005.tfrecord"
    assert shard_name("gs://bucket/a", 0, 123456, ".x") == "gs://bucket/a-00000-of-123456.x"


@pytest.mark.parametrize("workers", [1, 3])
def test_every_element_is_in_exactly_one_shard(tmp_path: Path, workers: int) -> None:
    write(tmp_path, [f"row {number}" for number in range(50)], workers=workers)
    assert lines(tmp_path) == Counter(f"row {number}" for number in range(50))


def test_no_rows_are_one_file_without_rows(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a-00000-of-00001.lines", "end\n")]


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "made", ["x", "y"], workers=3)
    assert all(path.name.startswith("a-0") for path in (tmp_path / "made").iterdir())


@pytest.mark.parametrize("elements", [[], ["x"]])
def test_neighbours_with_longer_prefixes_and_other_runs_are_not_touched(tmp_path: Path, elements: list[str]) -> None:
    neighbours = (
        "a-recordings-00000-of-00001.lines",
        "a-b-00000-of-00001.lines",
        "a-00000-of-00007.lines",
        "a-00000-of-00001.parquet",
        "a-summary.json",
        "aa-00000-of-00001.lines",
        ".a-20260101T000000Z-fedcba.lines/0123",
        ".a-recordings-20260101T000000Z-abcdef.lines/0123",
    )
    for name in neighbours:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write(tmp_path, elements)
    assert [(tmp_path / name).read_text() for name in neighbours] == list(neighbours)


def test_a_file_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a-00000-of-00001.lines").write_text("of an earlier run")
    write(tmp_path, ["new"])
    assert lines(tmp_path) == Counter(["new"])


def test_a_prefix_may_be_relative_and_hold_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for prefix in ("a", "with space", "кашель", "a#b%20"):
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            names = pipeline | beam.Create(["x"]) | WriteShards(prefix, ".lines", Lines, "run")
            assert_that(names, equal_to([f"{prefix}-00000-of-00001.lines"]))
        assert lines(tmp_path, prefix) == Counter(["x"])


def test_naming_that_was_cut_off_half_way_ends_the_same_when_it_is_done_again(tmp_path: Path) -> None:
    paths, naming = shards_of(tmp_path, "x", "y", "z")
    in_the_way = tmp_path / "a-00001-of-00003.lines"
    in_the_way.mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        list(naming.process(None, paths))
    assert (tmp_path / "a-00000-of-00003.lines").exists()
    in_the_way.rmdir()
    named = list(naming.process(None, reversed(paths)))
    assert [Path(name).read_text() for name in named] == ["x\nend\n", "y\nend\n", "z\nend\n"]


def test_naming_may_be_done_again_after_it_was_done(tmp_path: Path) -> None:
    paths, naming = shards_of(tmp_path, "x", "y")
    assert list(naming.process(None, paths)) == list(naming.process(None, paths))
    assert lines(tmp_path) == Counter("xy")


def test_what_a_failed_bundle_left_is_no_shard_and_is_removed(tmp_path: Path) -> None:
    paths, naming = shards_of(tmp_path, "x", "left by a bundle that failed")
    assert len(list(naming.process(None, paths[:1]))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-00000-of-00001.lines"]
    assert lines(tmp_path) == Counter(["x"])
