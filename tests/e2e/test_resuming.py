"""Runs on a checkpoint that earlier runs have left: what is sent, what the tables hold, and what is refused."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.digests import clip_digest
from rows.checkpoint import Row, read_all
from rows.model import EmbeddingRow
from tests.audio.gcs import storage_server
from tests.e2e.running import assert_same_rows, embeddings, failures, recordings
from tests.e2e.served import Served, are_gone, cut, digests, served
from tests.transforms.samples import noise, store, write_wav

PROBE_REQUESTS = 2


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fast")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("slow"), 150) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _look(request: pytest.FixtureRequest) -> None:
    """What arrived before a test does not count."""
    for name in ("fast", "slow"):
        if name in request.fixturenames:
            request.getfixturevalue(name).arrived()


def stored(checkpoint: Path) -> list[EmbeddingRow]:
    """Embeddings in the checkpoint's files."""
    rows = (row for path in checkpoint.rglob("*.rows") for _, row in read_all(path.read_bytes()))
    return [row for row in rows if isinstance(row, EmbeddingRow)]


def test_over_growing_and_changing_inputs_only_what_is_missing_is_sent(fast: Served, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    a, b = write_wav(folder / "a.wav", 5, seed=1), write_wav(folder / "b.wav", 3, seed=2)
    (folder / "broken.wav").write_text("no sound")
    arguments = ("--input", folder, "--output", tmp_path / "r")
    summary, arrived = fast.run(*arguments)
    assert arrived.clips == Counter(digests(noise(5, 1)) + digests(noise(3, 2)))
    assert (summary["embedded"], summary["reused"]) == (5, 0)
    first = embeddings(tmp_path / "r"), recordings(tmp_path / "r"), failures(tmp_path / "r")

    # The same again, with other spellings of the inputs.
    summary, arrived = fast.run("--input", f"{folder}/../in/*.wav", a, "--output", tmp_path / "r")
    assert (arrived.requests, arrived.only_probe) == (PROBE_REQUESTS, True)
    assert (summary["embedded"], summary["reused"], summary["requests"]) == (5, 5, 0)
    assert_same_rows(embeddings(tmp_path / "r"), first[0])
    assert (recordings(tmp_path / "r"), failures(tmp_path / "r")) == first[1:]

    # One more, one changed, one that is gone.
    write_wav(folder / "c.wav", 4, seed=3)
    write_wav(a, 5, seed=4)
    b.rename(tmp_path / "b.wav")
    summary, arrived = fast.run(*arguments)
    assert arrived.clips == Counter(digests(noise(4, 3)) + digests(noise(5, 4)))
    assert summary["reused"] == 0
    rows = embeddings(tmp_path / "r").values()
    assert Counter(Path(row["recording_uri"]).name for row in rows) == {"a.wav": 3, "c.wav": 2}
    assert {row["recording_version"] for row in rows if row["recording_uri"] == str(a)} == {
        f"{a.stat().st_size}-{a.stat().st_mtime_ns}"
    }
    assert not {row["clip_id"] for row in rows} & first[0].keys()
    assert set(recordings(tmp_path / "r")) == {str(a), str(folder / "c.wav"), str(folder / "broken.wav")}

    # It comes back with its old time of modification.
    (tmp_path / "b.wav").rename(b)
    summary, arrived = fast.run(*arguments)
    assert (arrived.only_probe, summary["reused"], summary["embedded"]) == (True, 7, 7)
    of_b = {key: row for key, row in embeddings(tmp_path / "r").items() if row["recording_uri"] == str(b)}
    assert_same_rows(of_b, {key: row for key, row in first[0].items() if row["recording_uri"] == str(b)})


def test_clips_at_the_same_places_are_reused_with_another_hop_and_output(fast: Served, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", 6, seed=11)
    arguments = ("--input", tmp_path / "in", "--checkpoint", tmp_path / "kept")
    fast.run(*arguments, "--output", tmp_path / "r")
    summary, arrived = fast.run(*arguments, "--output", tmp_path / "s", "--hop_s", 1, "--no_probe")
    assert arrived.clips == Counter(digests(noise(6, 11), [16000, 48000]))
    assert (summary["embedded"], summary["reused"]) == (5, 3)
    rows = sorted(embeddings(tmp_path / "s").values(), key=lambda row: row["start_s"])
    assert [(row["clip_index"], row["start_s"]) for row in rows] == [(n, n) for n in range(5)]
    # Back to the coarser hop: nothing is sent, and the clips have their own numbers again.
    summary, arrived = fast.run(*arguments, "--output", tmp_path / "r", "--no_probe")
    assert (arrived.requests, summary["embedded"]) == (0, 3)
    assert sorted(row["clip_index"] for row in embeddings(tmp_path / "r").values()) == [0, 1, 2]
    # And a cut that keeps no tail.
    summary, arrived = fast.run(*arguments, "--output", tmp_path / "t", "--hop_s", 1.5, "--tail", "drop", "--no_probe")
    assert arrived.clips == Counter(digests(noise(6, 11), [24000]))
    assert summary["embedded"] == 3


def test_damaged_files_of_the_checkpoint_cost_their_own_rows_only(fast: Served, tmp_path: Path) -> None:
    names = ["cut", "flipped", "empty", "whole", "gone"]
    for seed, name in enumerate(names):
        write_wav(tmp_path / "in" / f"{name}.wav", 6, seed=20 + seed)
        # Each in a file of its own: a run for each.
        fast.run("--input", tmp_path / "in" / f"{name}.wav", "--output", tmp_path / "r", "--no_probe")
    (tmp_path / "other").mkdir()
    before = embeddings_of(tmp_path / "r-checkpoint")
    files = {Path(next(iter(uris))).stem: path for path, uris in before.items()}
    files["cut"].write_bytes(files["cut"].read_bytes()[:-3000])
    data = bytearray(files["flipped"].read_bytes())
    data[len(data) // 2] ^= 4
    files["flipped"].write_bytes(data)
    files["empty"].write_bytes(b"")
    files["gone"].unlink()
    fast.arrived()
    undisturbed = tmp_path / "undisturbed"
    fast.run("--input", tmp_path / "in", "--output", undisturbed)
    summary, arrived = fast.run("--input", tmp_path / "in", "--output", tmp_path / "r")
    assert summary["damaged_checkpoint_files"] == 3
    assert summary["embedded"] == 15
    assert 6 + 2 <= sum(arrived.clips.values()) <= 6 + 4
    assert not arrived.clips.keys() & set(digests(noise(6, 23)))
    assert set(digests(noise(6, 22)) + digests(noise(6, 24))) <= arrived.clips.keys()
    assert_same_rows(embeddings(tmp_path / "r"), embeddings(undisturbed))
    assert recordings(tmp_path / "r") == recordings(undisturbed)
    summary, arrived = fast.run("--input", tmp_path / "in", "--output", tmp_path / "r")
    assert arrived.only_probe
    assert_same_rows(embeddings(tmp_path / "r"), embeddings(undisturbed))


def embeddings_of(checkpoint: Path) -> dict[Path, set[str]]:
    """The recordings whose embeddings are in each file."""
    return {
        path: {row.recording_uri for _, row in read_all(path.read_bytes()) if isinstance(row, EmbeddingRow)}
        for path in checkpoint.rglob("*.rows")
    }


def test_another_model_is_refused_unless_all_is_dropped(fast: Served, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", 3, seed=31)
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "r")
    fast.run(*arguments)
    said = ("--model_id is 'other', but", "hear-stand-in-v1", "--fresh_checkpoint")
    fast.refused(*arguments, "--model_id", "other", status=2, said=said)
    summary, arrived = fast.run(*arguments, "--model_id", "other", "--fresh_checkpoint", "--overwrite")
    assert sum(arrived.clips.values()) == summary["embedded"] == 2
    assert {row["model_id"] for row in embeddings(tmp_path / "r").values()} == {"other"}
    assert {row.model_id for row in stored(tmp_path / "r-checkpoint")} == {"other"}
    # Removed after a success, and not after a failure.
    summary, arrived = fast.run(*arguments, "--model_id", "other", "--delete_checkpoint")
    assert arrived.only_probe
    left = sorted(path.name for path in tmp_path.iterdir())
    assert "r-checkpoint" not in left
    assert "r-summary.json" in left
    (tmp_path / "in" / "b.wav").write_text("no sound")
    failing = ("--max_failure_fraction", 0.1, "--delete_checkpoint", "--overwrite")
    done = fast.command(*arguments, *failing)
    assert done.returncode == 1
    assert sum(fast.arrived().clips.values()) == 2
    summary, arrived = fast.run(*arguments)
    assert arrived.only_probe


def test_rows_whose_run_cannot_be_known_are_not_taken_for_another_models(fast: Served, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", 3, seed=32)
    (tmp_path / "in" / "broken.wav").write_text("no sound")
    arguments = ("--input", tmp_path / "in", "--checkpoint", tmp_path / "kept", "--no_probe")
    fast.run(*arguments, "--output", tmp_path / "r")
    (run,) = (tmp_path / "kept").glob("*/run.json")
    run.write_text(run.read_text()[:100])
    fast.arrived()
    summary, arrived = fast.run(*arguments, "--output", tmp_path / "s", "--model_id", "other")
    assert sum(arrived.clips.values()) == 2
    assert (summary["reused"], summary["embedded"]) == (0, 2)
    assert {row["model_id"] for row in embeddings(tmp_path / "s").values()} == {"other"}
    assert {row["fingerprint"] for row in embeddings(tmp_path / "s").values()} == {summary["fingerprint"]}


def test_what_may_pass_is_tried_again_and_what_may_not_when_asked(tmp_path: Path) -> None:
    for seed in range(3):
        write_wav(tmp_path / "in" / f"{seed}.wav", 4, seed=40 + seed)
    (tmp_path / "in" / "broken.wav").write_text("no sound")
    bad = clip_digest(cut(noise(4, 40), 32000))
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "r", "--clips_per_request", 1)
    with served(tmp_path, 0, f"--faults=reject_clips={bad}") as rejecting:
        summary, arrived = rejecting.run(*arguments)
        assert {(row["code"], row["retryable"]) for row in failures(tmp_path / "r")} == {
            ("rejected", False),
            ("not_audio", False),
        }
        assert summary["embedded"] == 5
        summary, arrived = rejecting.run(*arguments, "--no_probe")
        assert arrived.requests == 0
        assert len(failures(tmp_path / "r")) == 2
    (tmp_path / "second").mkdir()
    with served(tmp_path / "second") as healthy:
        summary, arrived = healthy.run(*arguments, "--retry_failed")
        assert arrived.clips == Counter([bad])
        assert (summary["embedded"], summary["failed"], summary["reused"]) == (6, 0, 5)
    (tmp_path / "third").mkdir()
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "s", "--clips_per_request", 1)
    with served(tmp_path / "third", 0, "--faults=seed=66,503=0.3") as shaky:
        summary, arrived = shaky.run(*arguments, "--max_attempts", 1, "--no_probe")
        lost = [row for row in failures(tmp_path / "s") if row["code"] == "unavailable"]
        assert 0 < len(lost) == summary["failed"]
        assert summary["embedded"] > 0
        assert all(row["retryable"] for row in lost)
        summary, arrived = shaky.run(*arguments, "--no_probe")
        assert sum(arrived.clips.values()) == len(lost)
        assert (summary["embedded"], summary["failed"]) == (6, 0)


def test_many_runs_are_merged_and_stay_the_same(fast: Served, tmp_path: Path) -> None:
    for number in range(8):
        write_wav(tmp_path / "in" / f"{number}.wav", 2.5, seed=50 + number)
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "r", "--no_probe")
    fast.run(*arguments)
    checkpoint = tmp_path / "r-checkpoint"
    split_into_runs(checkpoint)
    assert len(folders_with_rows(checkpoint)) == 8
    write_wav(tmp_path / "in" / "8.wav", 2.5, seed=58)
    fast.arrived()
    summary, arrived = fast.run(*arguments)
    assert arrived.clips == Counter(digests(noise(2.5, 58)))
    assert (summary["reused"], summary["embedded"]) == (16, 18)
    before = embeddings(tmp_path / "r"), recordings(tmp_path / "r")
    merged, last = sorted(folders_with_rows(checkpoint), key=len, reverse=True)
    assert merged == f"{last}-merged1"
    summary, arrived = fast.run(*arguments)
    assert (arrived.requests, summary["reused"]) == (0, 18)
    assert_same_rows(embeddings(tmp_path / "r"), before[0])
    assert recordings(tmp_path / "r") == before[1]


def folders_with_rows(checkpoint: Path) -> set[str]:
    return {path.relative_to(checkpoint).parts[0] for path in checkpoint.rglob("*.rows")}


def split_into_runs(checkpoint: Path) -> None:
    """Makes it look as if each recording had been embedded by a run of its own."""
    (run,) = folders_with_rows(checkpoint)
    by_recording: dict[str, list[tuple[str, Row]]] = {}
    for path in checkpoint.rglob("*.rows"):
        for segment, row in read_all(path.read_bytes()):
            by_recording.setdefault(row.recording_uri, []).append((segment, row))
    for number, rows in enumerate(by_recording.values()):
        name = f"2024010{number + 1}T000000Z-00000{number}"
        store(checkpoint, f"{name}/packet/0.rows", rows)
        described = json.loads((checkpoint / run / "run.json").read_text())
        (checkpoint / name / "run.json").write_text(json.dumps({**described, "run_id": name}))
    shutil.rmtree(checkpoint / run)


@pytest.mark.parametrize(
    ("number", "mode"),
    [(signal.SIGINT, "in_memory"), (signal.SIGTERM, "multi_processing")],
    ids=["ctrl-c", "two workers"],
)
def test_a_stopped_run_leaves_no_process_and_the_next_sends_the_rest(
    number: signal.Signals, mode: str, slow: Served, tmp_path: Path
) -> None:
    for seed in range(60):
        write_wav(tmp_path / "in" / f"{seed}.wav", 8, seed=100 + seed)
    checkpoint = tmp_path / "r-checkpoint"
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "r", "--requests_in_flight", 2, "--no_probe")
    if mode == "multi_processing":
        arguments += ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    requests = 10 if mode == "in_memory" else 1

    def is_half_done() -> bool:
        if mode == "in_memory":
            return len(slow.log.read_text().splitlines()) >= before + requests
        return any(checkpoint.rglob("*.rows"))

    before = len(slow.log.read_text().splitlines())
    status, said, started = slow.interrupt(number, is_half_done, *arguments)
    assert status == 130
    assert "Traceback" not in said
    # On a machine that is busy with other things, there is time for a line of progress.
    (line,) = [line for line in said.splitlines() if line and not line.startswith("note: ") and "clips/s" not in line]
    assert "interrupted" in line
    assert "the same command goes on" in line
    assert started
    assert are_gone(started)
    assert not list(tmp_path.glob("r-*.parquet"))
    kept = {row.clip_id for row in stored(checkpoint)}
    first = slow.arrived()
    assert kept
    if mode == "in_memory":
        assert sum(first.clips.values()) - 2 * 4 * 2 <= len(kept) <= sum(first.clips.values())
    summary, arrived = slow.run(*arguments, "--requests_in_flight", 32)
    assert (summary["embedded"], summary["reused"]) == (240, len(kept))
    assert sum(arrived.clips.values()) == 240 - len(kept)


def test_a_run_with_its_checkpoint_on_cloud_storage_stops_and_goes_on(slow: Served, tmp_path: Path) -> None:
    for seed in range(10):
        write_wav(tmp_path / "in" / f"{seed}.wav", 8, seed=200 + seed)
    (tmp_path / "storage").mkdir()
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "r", "--requests_in_flight", 1, "--no_probe")
    arguments += ("--checkpoint", "gs://kept/check point")
    before = len(slow.log.read_text().splitlines())
    with storage_server(tmp_path / "storage") as storage:
        storage.make_bucket("kept")
        environment = {"STORAGE_EMULATOR_HOST": storage.address}
        status, said, started = slow.interrupt(
            signal.SIGTERM, lambda: len(slow.log.read_text().splitlines()) >= before + 4, *arguments, **environment
        )
        assert status == 130, said
        assert are_gone(started)
        names = storage.names("kept")
        assert [name for name in names if name.endswith(".rows")]
        assert not [name for name in names if name.endswith("lease.json")]
        kept = [
            row for name in names if name.endswith(".rows") for _, row in read_all(storage.content("kept", name)[0])
        ]
        count = len([row for row in kept if isinstance(row, EmbeddingRow)])
        slow.arrived()
        summary, arrived = slow.run(*arguments, "--requests_in_flight", 8, "--delete_checkpoint", **environment)
        assert storage.names("kept") == []
    assert 0 < count == summary["reused"]
    assert sum(arrived.clips.values()) == 40 - count
