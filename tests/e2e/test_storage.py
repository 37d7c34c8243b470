"""Recordings in Cloud Storage, by way of a real storage server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.recordings import write_recordings
from tests.audio.gcs import StorageServer, storage_server
from tests.e2e.running import embeddings, recordings, run_command, succeed

PARQUET = ("--output_format", "parquet")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        for bucket in ("clinic", "globs"):
            running.make_bucket(bucket)
        yield running


def test_objects_give_the_rows_of_the_same_files(server: StorageServer, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    write_recordings(folder)
    generations = {
        path.name: server.upload("clinic", f"study 1/{path.name}", path.read_bytes()) for path in folder.iterdir()
    }
    server.upload("clinic", "study 1/notes.txt", b"not a recording")
    where = {"STORAGE_EMULATOR_HOST": server.address}
    from_disk, from_bucket = tmp_path / "disk", tmp_path / "bucket"
    succeed("--endpoint", "local", "--input", folder, "--output", from_disk, *PARQUET)
    summary = succeed(
        "--endpoint", "local", "--input", "gs://clinic/study 1", "--output", from_bucket, *PARQUET, **where
    )
    assert summary["ignored"] == ["gs://clinic/study 1/notes.txt"]
    table = recordings(from_bucket)
    assert {uri: row["recording_version"] for uri, row in table.items()} == {
        f"gs://clinic/study 1/{name}": str(generation) for name, generation in generations.items()
    }

    def by_name(prefix: Path) -> dict[tuple[str, float], bytes]:
        rows = embeddings(prefix).values()
        return {(Path(row["recording_uri"]).name, row["start_s"]): row["embedding"].round(5).tobytes() for row in rows}

    assert by_name(from_disk) == by_name(from_bucket)


def test_globs_and_single_objects(server: StorageServer, tmp_path: Path) -> None:
    write_recordings(tmp_path / "recordings")
    wav = tmp_path / "recordings" / "synthetic-cough-01.wav"
    for name in ("a/one.wav", "a/b/two.wav", "a/what?.wav", "a/кашель #1.wav"):
        server.upload("globs", name, wav.read_bytes())
    where = {"STORAGE_EMULATOR_HOST": server.address}
    arguments = ("--endpoint", "local", "--output", tmp_path / "r", "--overwrite", *PARQUET)
    for given, expected in (
        ("gs://globs/a/*.wav", {"a/one.wav", "a/what?.wav", "a/кашель #1.wav"}),
        ("gs://globs/**/two.wav", {"a/b/two.wav"}),
        ("gs://globs/a/what?.wav", {"a/what?.wav"}),
    ):
        succeed(*arguments, "--input", given, **where)
        assert set(recordings(tmp_path / "r")) == {f"gs://globs/{name}" for name in expected}


@pytest.mark.parametrize("given", ["gs://no-such-bucket/x.wav", "gs://globs/nothing*.wav"])
def test_what_is_not_there_is_one_line(server: StorageServer, given: str, tmp_path: Path) -> None:
    arguments = ("--endpoint", "local", "--output", tmp_path / "r", "--input", given)
    done = run_command(*arguments, STORAGE_EMULATOR_HOST=server.address)
    assert done.returncode in (1, 2)
    assert given in done.stderr
    assert done.stderr.count("\n") == 1
