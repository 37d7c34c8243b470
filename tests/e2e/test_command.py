"""What the command does, as a user sees it: exit status, one line of error, complete and accounted-for output."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emulator.process import start_local_endpoint
from emulator.recordings import write_recordings
from rows.checkpoint import read_all
from rows.model import EmbeddingRow
from tests.audio.test_listing import ODD_NAMES
from tests.e2e.running import (
    REPOSITORY,
    assert_same_rows,
    embeddings,
    failures,
    recordings,
    run_command,
    shards,
    start_command,
    succeed,
    summary_of,
)
from tests.recordings import SHARED_AUDIO, needs_shared_audio

PARQUET = ("--output_format", "parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthesised")
    write_recordings(path)
    (path / "notes.txt").write_text("not a recording")
    return path


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("out") / "rows"
    succeed("--endpoint", "local", "--input", folder, "--output", prefix, *PARQUET)
    return prefix


def write_wav(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds))
    with path.open("wb") as file:
        soundfile.write(file, samples, 16000, format="WAV")
    return path


def test_every_recording_and_clip_is_accounted_for(folder: Path, rows: Path) -> None:
    summary = summary_of(rows)
    table = recordings(rows)
    assert set(table) == {str(path) for path in folder.iterdir() if path.suffix != ".txt"}
    assert summary["ignored"] == [str(folder / "notes.txt")]
    for name in ("clips", "embedded", "failed"):
        assert sum(row[name] for row in table.values()) == summary[name]
    per_recording = pd.Series([row["recording_uri"] for row in embeddings(rows).values()]).value_counts()
    assert per_recording.to_dict() == {uri: row["embedded"] for uri, row in table.items() if row["embedded"]}
    assert {row["recording_uri"] for row in failures(rows)} == {
        uri for uri, row in table.items() if row["status"] in ("partial", "failed")
    }


def test_parquet_is_read_by_pandas(rows: Path) -> None:
    frame = pd.concat(pd.read_parquet(path) for path in shards(rows, "parquet"))
    assert frame.clip_id.is_unique
    assert np.stack(frame.embedding.to_numpy()).shape == (len(frame), 512)
    assert (frame.end_s - frame.start_s + frame.padded_s).round(9).eq(2.0).all()


def test_twice_with_other_order_and_two_workers_the_same_rows(folder: Path, rows: Path, tmp_path: Path) -> None:
    files = sorted((path for path in folder.iterdir() if path.suffix != ".txt"), reverse=True)
    two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    succeed("--endpoint", "local", "--input", *files, folder, "--output", tmp_path / "again", *PARQUET, *two)
    assert_same_rows(embeddings(rows), embeddings(tmp_path / "again"), tolerance=1e-6)
    assert recordings(rows) == recordings(tmp_path / "again")


def test_any_file_name_works(tmp_path: Path) -> None:
    for seed, name in enumerate(ODD_NAMES):
        write_wav(tmp_path / "in" / name, seed=seed)
    summary = succeed(
        "--endpoint", "local", "--input", tmp_path / "in", "--output", tmp_path / "out dir" / "r 1", *PARQUET
    )
    assert summary["embedded"] == len(ODD_NAMES)
    assert set(recordings(tmp_path / "out dir" / "r 1")) == {str(tmp_path / "in" / name) for name in ODD_NAMES}


def test_a_name_with_a_leading_dash_can_be_given(tmp_path: Path) -> None:
    write_wav(REPOSITORY / "out" / "-dash test.wav")
    try:
        arguments = ("--endpoint", "local", f"--input=out/{'-dash test.wav'}", "--output", tmp_path / "r")
        assert succeed(*arguments)["embedded"] == 1
    finally:
        (REPOSITORY / "out" / "-dash test.wav").unlink()


def test_limit_takes_the_first_by_uri(folder: Path, tmp_path: Path) -> None:
    succeed("--endpoint", "local", "--input", folder, "--limit", 2, "--output", tmp_path / "r", *PARQUET)
    first = sorted(str(path) for path in folder.iterdir() if path.suffix != ".txt")[:2]
    assert sorted(recordings(tmp_path / "r")) == first


def test_each_channel_has_its_own_clips(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (48000, 2))
    soundfile.write(tmp_path / "stereo.wav", samples, 16000)
    arguments = ("--endpoint", "local", "--input", tmp_path / "stereo.wav", *PARQUET)
    succeed(*arguments, "--channel", "each", "--output", tmp_path / "each")
    succeed(*arguments, "--channel", "1", "--output", tmp_path / "one")
    each, one = embeddings(tmp_path / "each"), embeddings(tmp_path / "one")
    assert sorted((row["channel"], row["start_s"]) for row in each.values()) == [("0", 0), ("0", 2), ("1", 0), ("1", 2)]
    assert_same_rows({k: row for k, row in each.items() if row["channel"] == "1"}, one, tolerance=1e-6)
    done = run_command(*arguments, "--channel", "2", "--output", tmp_path / "two")
    assert done.returncode == 1
    assert [row["code"] for row in failures(tmp_path / "two")] == ["no_such_channel"]


def test_the_plan_says_where_audio_goes_and_sends_nothing(folder: Path, tmp_path: Path) -> None:
    arguments = ("--endpoint", "research", "--input", folder, "--output", tmp_path / "r", "--plan")
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["recordings"] == len(list(folder.iterdir())) - 1
    assert plan["audio_goes_to"] == (
        "projects/4016704501/locations/us-west1/endpoints/200 at us-west1-aiplatform.googleapis.com"
    )
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_only_replaced_when_asked_or_its_own(folder: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "r"
    neighbour = tmp_path / "r-b-00000-of-00001.parquet"
    neighbour.write_text("another run's")
    stale = tmp_path / "r-00001-of-00002.parquet"
    stale.write_text("an earlier run's")
    arguments = ("--endpoint", "local", "--input", folder, "--limit", 1, "--output", prefix, *PARQUET)
    done = run_command(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--overwrite" in done.stderr
    succeed(*arguments, "--overwrite")
    assert not stale.exists()
    succeed(*arguments)
    assert neighbour.read_text() == "another run's"
    assert len(embeddings(prefix)) > 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "r-00000-of-00001.parquet",
        "r-recordings-00000-of-00001.parquet",
        "r-failures-00000-of-00001.jsonl",
        "r-summary.json",
        "r-checkpoint",
        neighbour.name,
    }


def test_nothing_embedded_is_exit_status_1_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "page.mp3").write_text("<html>404</html>")
    os.mkfifo(tmp_path / "pipe.wav")
    done = run_command("--endpoint", "local", "--input", tmp_path, "--output", tmp_path / "out" / "r", timeout_s=60)
    assert done.returncode == 1
    assert "nothing could be embedded" in done.stderr
    assert "Traceback" not in done.stderr
    codes = {Path(row["recording_uri"]).name: (row["stage"], row["code"]) for row in failures(tmp_path / "out" / "r")}
    assert codes == {
        "empty.wav": ("decode", "empty_file"),
        "page.mp3": ("decode", "not_audio"),
        "pipe.wav": ("fetch", "not_a_regular_file"),
    }


def test_too_many_failures_are_exit_status_1(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_text("no sound")
    arguments = ("--endpoint", "local", "--input", tmp_path, "--output", tmp_path / "out" / "r")
    assert run_command(*arguments).returncode == 0
    done = run_command(*arguments, "--max_failure_fraction", 0.4)
    assert done.returncode == 1
    assert "1 of 2 recordings have failures" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--endpoint_host", "127.0.0.1:9"), "127.0.0.1:9"),
        (("--endpoint", "projects/p/locations/l/endpoints/404"), "projects/p/locations/l/endpoints/404"),
    ],
)
def test_a_wrong_endpoint_ends_the_run_with_one_message_and_no_rows(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    log = tmp_path / "arrivals"
    write_wav(tmp_path / "in" / "long.wav", seconds=60)
    with start_local_endpoint(arrivals_log=log) as local:
        arguments = {"--endpoint": local.endpoint_name, "--endpoint_host": local.host, change[0]: change[1]}
        given = [text for pair in arguments.items() for text in pair]
        done = run_command(*given, "--input", tmp_path / "in", "--output", tmp_path / "r", "--max_attempts", 2)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert said in line
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("r-*.tfrecord"))
    assert len(log.read_text().splitlines() if log.exists() else []) <= 1


def test_the_local_endpoint_ends_when_the_command_is_killed(tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "long.wav", seconds=1200)
    command = [sys.executable, "-m", "pipeline", "--endpoint", "local", "--input", str(tmp_path / "in")]
    process = subprocess.Popen([*command, "--output", str(tmp_path / "r")], cwd=REPOSITORY, stderr=subprocess.DEVNULL)

    def children() -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    deadline = time.monotonic() + 60
    while not (started := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert started
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


@needs_shared_audio
@pytest.mark.parametrize("name", ["zoo", "long"])
def test_odd_broken_and_long_recordings_all_have_their_row(name: str, tmp_path: Path) -> None:
    assert SHARED_AUDIO is not None
    prefix = tmp_path / name
    hop_s = 2 if name == "zoo" else 8  # all of the long ones is decoded, and of their clips every fourth is sent
    summary = succeed(
        "--endpoint", "local", "--input", SHARED_AUDIO / name, "--output", prefix, "--hop_s", hop_s, *PARQUET
    )
    table = recordings(prefix)
    assert set(table) | set(summary["ignored"]) == {str(p) for p in (SHARED_AUDIO / name).rglob("*") if p.is_file()}
    with_reason = {row["recording_uri"] for row in failures(prefix)}
    for uri, row in table.items():
        assert (row["status"] in ("failed", "partial")) == (uri in with_reason)
        assert row["clips"] == row["embedded"] + row["failed"] + row["skipped_too_short"] + row["skipped_too_quiet"]
    assert len(embeddings(prefix)) == summary["embedded"] > 0
    for row in failures(prefix):
        assert row["code"]
        assert row["message"]


def test_checkpoint_files_are_of_the_documented_kind(rows: Path) -> None:
    files = list(Path(f"{rows}-checkpoint").rglob("*.rows"))
    assert files
    assert all(path.read_bytes().startswith(b"HEARROWS2\n") for path in files)


def interrupted(arguments: list[str], number: signal.Signals, log: Path) -> tuple[int, str]:
    """Starts the command, sends it the signal once the endpoint has had some requests; its exit status and errors."""
    process = start_command(*arguments)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) >= 10):
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_an_interrupted_run_says_so_in_one_line_and_keeps_what_was_answered(
    number: signal.Signals, mode: str, tmp_path: Path
) -> None:
    log = tmp_path / "arrivals"
    write_wav(tmp_path / "in" / "long.wav", seconds=1200)
    with start_local_endpoint(latency_ms=100, arrivals_log=log) as local:
        arguments = ["--endpoint", local.endpoint_name, "--endpoint_host", local.host, "--requests_in_flight", "2"]
        arguments += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "r"), "--no_probe"]
        arguments += [f"--direct_running_mode={mode}", "--direct_num_workers=2"]
        status, said = interrupted(arguments, number, log)
        sent = sum(len(json.loads(line)["clips"]) for line in log.read_text().splitlines())
    assert status == 130
    assert len([line for line in said.splitlines() if "interrupted" in line]) == 1
    assert "Traceback" not in said
    stored = [row for path in (tmp_path / "r-checkpoint").rglob("*.rows") for _, row in read_all(path.read_bytes())]
    in_flight = 2 * 4 * (2 if mode == "multi_processing" else 1)
    assert sent - in_flight <= len([row for row in stored if isinstance(row, EmbeddingRow)]) <= sent
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_when_rows_cannot_be_stored_nothing_more_is_sent(tmp_path: Path) -> None:
    log = tmp_path / "arrivals"
    write_wav(tmp_path / "in" / "long.wav", seconds=20)
    with start_local_endpoint(arrivals_log=log) as local:
        command = [sys.executable, "-m", "pipeline", "--endpoint", local.endpoint_name, "--endpoint_host", local.host]
        command += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "r"), "--hop_s", "0.01"]
        # Decoding processes hand over samples in files of memory, which the limit is for, too.
        command += ["--decoder_processes", "0"]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"cannot write '{tmp_path}/r-checkpoint/" in done.stderr
    assert "File too large" in done.stderr
    needed = (20 - 2) * 100 / 4
    assert len(log.read_text().splitlines()) < needed / 2


def test_a_failure_in_worker_processes_ends_the_run_with_its_one_line(tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav")
    with start_local_endpoint() as local:
        arguments = ("--endpoint", "projects/p/locations/l/endpoints/404", "--endpoint_host", local.host)
        two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
        done = run_command(*arguments, "--input", tmp_path / "in", "--output", tmp_path / "r", *two, timeout_s=100)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "error" in line] == [done.stderr.splitlines()[-1]]
    assert "NOT_FOUND" in done.stderr


def test_tables_that_cannot_be_written_are_one_line_and_leave_nothing_hidden(tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", seconds=1)
    (tmp_path / "out" / "r-00000-of-00001.tfrecord").mkdir(parents=True)
    done = run_command(
        "--endpoint", "local", "--input", tmp_path / "in", "--output", tmp_path / "out" / "r", "--overwrite"
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"cannot write '{tmp_path}/out/r-00000-of-00001.tfrecord' (Is a directory)" in done.stderr.splitlines()[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"r-00000-of-00001.tfrecord", "r-checkpoint"}
