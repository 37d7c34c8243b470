"""Files and sharded files on a real storage server."""

import re

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from tests.audio.gcs import StorageServer
from tests.transforms.test_shards import Lines
from transforms.files import (
    FileError,
    WriteError,
    create,
    names_in,
    read_whole,
    remove,
    remove_folder,
    rename,
    write_whole,
)
from transforms.shards import WriteShards, _NameShards, unfinished_folder


@pytest.mark.parametrize("name", ["plain", "compressed.gz", "with space", "ключ 🤧", "a#b?c%20d*[x]&=+"])
def test_what_is_written_is_read_whatever_the_name_says(reached: str, name: str) -> None:
    for data in (b"\x00\xff bytes", b"short"):
        write_whole(f"{reached}/{name}", data)
        assert read_whole(f"{reached}/{name}") == data
    remove(f"{reached}/{name}")
    remove(f"{reached}/{name}")
    with pytest.raises(FileError, match=r"cannot read .* \(HTTP 404\)"):
        read_whole(f"{reached}/{name}")


def test_a_folder_names_its_files_and_folders_by_their_beginnings(reached: str) -> None:
    for name in ("r-1", "r-2/x", "r-2/y", "rr-1", ".r-3/x", "r"):
        write_whole(f"{reached}/{name}", b"")
    assert names_in(f"{reached}/", "r-") == [f"{reached}/r-1", f"{reached}/r-2/"]
    assert names_in(f"{reached}/", ".r-") == [f"{reached}/.r-3/"]
    assert names_in(f"{reached}/none/", "") == []
    remove_folder(f"{reached}/r-2")
    assert names_in(f"{reached}/", "r-") == [f"{reached}/r-1"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bucket_that_is_not_there_is_one_sentence(reached: str) -> None:
    with pytest.raises(WriteError, match=r"^cannot write 'gs://none-such/x' \(HTTP 404\): is there space"):
        write_whole("gs://none-such/x", b"")
    with pytest.raises(FileError, match=r"^cannot list 'gs://none-such/' \(HTTP 404\)"):
        names_in("gs://none-such/", "x")


@pytest.mark.parametrize("elements", [[], ["x", "y", "z"]])
@pytest.mark.parametrize("prefix", ["a", "b c/кашель #1?%20[x]"])
def test_shards_get_their_names_and_nothing_else_is_left(
    server: StorageServer, reached: str, prefix: str, elements: list[str]
) -> None:
    bucket = reached.split("/")[2]
    neighbours = {
        f"folder/{name}" for name in (f"{prefix}-recordings-0", ".a-other.lines/0", f"{prefix}-00000-of-00009.x")
    }
    for name in neighbours:
        server.upload(bucket, name, b"")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        names = pipeline | beam.Create(elements) | WriteShards(f"{reached}/{prefix}", ".lines", Lines, "run")
        assert_that(names, equal_to([f"{reached}/{prefix}-00000-of-00001.lines"]))
    assert set(server.names(bucket)) == {*neighbours, f"folder/{prefix}-00000-of-00001.lines"}
    lines = server.content(bucket, f"folder/{prefix}-00000-of-00001.lines")[0].decode().split()
    assert sorted(lines[:-1]) == elements
    assert lines[-1] == "end"


def test_naming_that_was_cut_off_half_way_ends_the_same_when_it_is_done_again(
    server: StorageServer, reached: str
) -> None:
    prefix, bucket = f"{reached}/a", reached.split("/")[2]
    hidden = unfinished_folder(prefix, "run", ".lines")
    assert hidden == f"{reached}/.a-run.lines"
    paths = [f"{hidden}/shard-{text}" for text in "xyz"]
    for path in (*paths, f"{hidden}/of-a-bundle-that-failed"):
        file = create(path)
        Lines(file).write(path[-1])
        file.close()
    server.upload(bucket, "folder/a-00000-of-00003.lines", b"of an earlier run")
    rename(paths[0], f"{prefix}-00000-of-00003.lines")
    naming = _NameShards(hidden, prefix, ".lines", Lines)
    for _ in range(2):
        named = list(naming.process(None, reversed(paths)))
        assert [read_whole(name) for name in named] == [b"x\n", b"y\n", b"z\n"]
        assert server.names(bucket) == [name.removeprefix(f"gs://{bucket}/") for name in named]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_shard_that_is_missing_is_no_shard_of_another_run(server: StorageServer, reached: str) -> None:
    hidden = f"{reached}/.a-run.lines"
    server.upload(reached.split("/")[2], "folder/a-00000-of-00001.lines", b"of an earlier run")
    naming = _NameShards(hidden, f"{reached}/a", ".lines", Lines)
    with pytest.raises(WriteError, match=re.escape(f"cannot write '{reached}/a-00000-of-00001.lines' (HTTP 404)")):
        list(naming.process(None, [f"{hidden}/lost"]))
