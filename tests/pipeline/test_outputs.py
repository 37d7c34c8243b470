import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio import fetch
from pipeline.outputs import existing_outputs, make_folders, remove_unfinished, replaced_outputs
from pipeline.usage import UsageError
from tests.audio.gcs import StorageServer, storage_server
from tests.pipeline.commands import settings
from transforms.tidy_up import remove_replaced

OURS = (
    "r-00000-of-00002.tfrecord",
    "r-00001-of-00002.tfrecord",
    "r-00000-of-00001.parquet",
    "r-recordings-00000-of-00001.parquet",
    "r-failures-00000-of-00001.jsonl",
    "r-summary.json",
)
OTHERS = (
    "r",
    "r-notes.txt",
    "r-0-of-1.tfrecord",
    "r-b-00000-of-00001.tfrecord",
    "r-00000-of-00001.tfrecord.bak",
    "rr-00000-of-00001.tfrecord",
    "q-00000-of-00001.tfrecord",
    "r-b-summary.json",
    "r-recordings-summary.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    for name in (*OURS, *OTHERS):
        (path / name).write_text(name)
    return path


def test_output_of_this_prefix_is_found_and_no_other(folder: Path) -> None:
    assert existing_outputs(str(folder / "r")) == sorted(str(folder / name) for name in OURS)


def test_a_relative_prefix_finds_relative_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert existing_outputs("r") == sorted(OURS)
    monkeypatch.chdir(folder.parent)
    assert existing_outputs("out/r") == sorted(f"out/{name}" for name in OURS)


def test_where_there_is_no_folder_there_is_no_output(tmp_path: Path) -> None:
    assert existing_outputs(str(tmp_path / "nowhere" / "r")) == []


def test_output_that_is_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"exists .* and 5 more\): choose another, or give --overwrite"):
        replaced_outputs(settings(tmp_path), [])


def test_output_that_is_there_may_be_overwritten_when_the_user_says_so(folder: Path, tmp_path: Path) -> None:
    arguments = settings(tmp_path)
    run = type(arguments)(**{**vars(arguments), "overwrite": True})
    assert replaced_outputs(run, []) == sorted(str(folder / name) for name in OURS)


def test_a_checkpoints_own_earlier_output_is_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = [{"output": str(folder / "r"), "fingerprint": settings(tmp_path).fingerprint}]
    assert len(replaced_outputs(settings(tmp_path), earlier)) == len(OURS)
    monkeypatch.chdir(tmp_path)
    assert len(replaced_outputs(settings(tmp_path, output="out/r"), earlier)) == len(OURS)


@pytest.mark.parametrize("earlier", [{}, {"output": "other"}, {"output": "r", "fingerprint": "another"}, {"output": 7}])
def test_output_of_another_prefix_or_model_is_not_its_own(
    earlier: dict[str, object], folder: Path, tmp_path: Path
) -> None:
    earlier = {"fingerprint": settings(tmp_path).fingerprint} | earlier
    if isinstance(earlier.get("output"), str):
        earlier["output"] = str(folder / str(earlier["output"]))
    with pytest.raises(UsageError, match="--overwrite"):
        replaced_outputs(settings(tmp_path), [earlier])


def test_folders_are_made(tmp_path: Path) -> None:
    run = settings(tmp_path, output=str(tmp_path / "new" / "er" / "r"))
    assert replaced_outputs(run, []) == []
    assert not (tmp_path / "new").exists()
    make_folders(run)
    assert (tmp_path / "new" / "er" / "r-checkpoint").is_dir()


def test_files_that_the_finished_run_did_not_write_again_are_removed(folder: Path) -> None:
    existing = existing_outputs(str(folder / "r"))
    written = [
        str(folder / "r-summary.json"),
        str(folder / "r-00000-of-00001.parquet"),
        str(folder / "r-00000-of-00009.new"),
    ]
    remove_replaced(existing, written)
    assert {path.name for path in folder.iterdir()} == {"r-summary.json", "r-00000-of-00001.parquet", *OTHERS}


def test_files_are_the_same_by_a_relative_and_an_absolute_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    remove_replaced(existing_outputs("r"), [str(folder / name) for name in OURS])
    assert len(existing_outputs("r")) == len(OURS)


def test_a_folder_may_have_brackets_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study [2024]*"
    folder.mkdir()
    (folder / "r-00001-of-00002.tfrecord").write_text("of an earlier run")
    monkeypatch.chdir(folder)
    remove_replaced(existing_outputs("r"), ["r-00000-of-00001.tfrecord"])
    assert list(folder.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    """A storage server with OURS and OTHERS in a bucket `results`, below `out/`."""
    (tmp_path / "storage").mkdir()
    with storage_server(tmp_path / "storage") as running:
        running.make_bucket("results")
        for name in (*OURS, *OTHERS):
            running.upload("results", f"out/{name}", b"")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.address)
        monkeypatch.setattr(fetch, "_client", None)
        yield running
        fetch.storage_client().close()
        gc.collect()


def test_outputs_in_a_bucket_are_found_and_replaced_as_on_disk(server: StorageServer) -> None:
    existing = existing_outputs("gs://results/out/r")
    assert existing == sorted(f"gs://results/out/{name}" for name in OURS)
    assert existing_outputs("gs://results/none/r") == []
    remove_replaced(existing, ["gs://results/out/r-summary.json", "gs://results/out/r-00000-of-00009.new"])
    assert server.names("results") == sorted(f"out/{name}" for name in ("r-summary.json", *OTHERS))


RUN = "20260101T000000Z-abcdef"
OTHER_RUN = "20260102T000000Z-abcdef"
UNFINISHED = [
    f".r-{RUN}.tfrecord/0123",
    f".r-{RUN}.parquet/0123",
    f".r-recordings-{RUN}.parquet/0123",
    f".r-failures-{OTHER_RUN}.jsonl/0123",
]
NOT_UNFINISHED = [f".r-b-{RUN}.tfrecord/0123", f".rr-{RUN}.tfrecord/0123", f".r-{RUN}.csv/0123", ".r-notes/0"]


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_what_is_unfinished_is_removed_of_one_run_or_of_all(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "out"
    server = request.getfixturevalue("server") if place == "bucket" else None
    for name in (*UNFINISHED, *NOT_UNFINISHED):
        if server is not None:
            server.upload("results", f"out/{name}", b"")
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")

    def left() -> set[str]:
        if server is not None:
            return {name.removeprefix("out/") for name in server.names("results", "out/.")}
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    before = left()
    prefix = str(folder / "r") if server is None else "gs://results/out/r"
    remove_unfinished(prefix, RUN)
    assert before - left() == {name for name in UNFINISHED if RUN in name}
    remove_unfinished(prefix)
    assert before - left() == set(UNFINISHED)
