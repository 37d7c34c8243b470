"""What a run leaves behind holds no token and no audio, even where services repeat both in their errors and all is logged."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rows.checkpoint import FileBuilder
from rows.model import FailureRow
from tests.cloud.secrets import find_secrets
from tests.cloud.token_server import CLIENT_SECRET, PREFIX, REFRESH_TOKEN
from tests.e2e.clouds import ACCOUNT, World, world, write_recording
from tests.e2e.logging_all import write_graph
from tests.e2e.running import REPOSITORY, failures, summary_of

Samples = npt.NDArray[np.float32]

FAULTS = "seed=3,echo=0.2,503=0.05,reset=0.02,short=0.02,nan=0.02,reject_every=17"
PLACES = ("log", "out", "tmp", "runtime", "graph")


class Way(NamedTuple):
    send: str
    instance_format: str
    transport: str


WAYS = [Way("audio", "research", "grpc"), Way("uris", "research", "grpc"), Way("uris", "model_garden", "rest")]


def start(around: World, way: Way, *more: object) -> subprocess.Popen[bytes]:
    """The command, with all that it says and leaves in folders of its own."""
    folder = around.folder
    for place in PLACES:
        (folder / place).mkdir(mode=0o700, exist_ok=True)
    arguments = [*around.arguments((way.instance_format, way.transport)), "--output", folder / "out" / "rows"]
    if way.send == "batch":
        arguments = ["--batch_model", around.local.model, "--endpoint_host", around.local.host, "--send", "batch"]
        arguments += ["--staging_location", "gs://staging/clips", "--hop_s", "0.1", "--output", folder / "out" / "rows"]
    elif way.send == "audio":
        audio = ["--endpoint", around.local.endpoint_name, "--endpoint_host", around.local.host]
        arguments = [*audio, "--hop_s", "0.1", "--output", folder / "out" / "rows"]
    else:
        arguments += ["--bucket_service_account", ACCOUNT]
    attempts = () if way.send == "batch" else ("--max_attempts", "2")
    arguments += ["--input", folder / "in", *attempts, *more]
    with (folder / "log" / "output.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.logging_all", folder / "graph" / "pipeline.pb", *map(str, arguments)],
            cwd=REPOSITORY,
            env={
                **os.environ,
                **around.environment,
                "TMPDIR": str(folder / "tmp"),
                "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google",
                "GRPC_VERBOSITY": "DEBUG",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def found(around: World, samples: Samples) -> list[str]:
    tokens = [*around.cloud.tokens.values, REFRESH_TOKEN, CLIENT_SECRET]
    return find_secrets([around.folder / place for place in PLACES], tokens=tokens, samples=[samples])


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_nothing_that_a_run_leaves_holds_a_token_or_audio(way: Way, tmp_path: Path) -> None:
    troubles: dict[int, Callable[[World], Any]] = {
        8: lambda around: around.cloud.tokens.revoke_all("exchange"),
        16: lambda around: around.cloud.tokens.fail_next(2, 500),  # which repeats a token
        17: lambda around: around.cloud.tokens.revoke_all(),
    }

    def trouble(_cloud: object, _token: str, count: int) -> None:
        if count in troubles:
            troubles[count](around)

    with world(tmp_path, accounts=(ACCOUNT,), faults=FAULTS, on_asked=trouble) as around:
        samples = write_recording(tmp_path / "in" / "noise.wav", 100)
        status = start(around, way, "--output_format", "parquet").wait(120)
        log = (tmp_path / "log" / "output.txt").read_text()
        assert status == 0, log[-3000:]
        summary = summary_of(tmp_path / "out" / "rows")
        assert found(around, samples) == []
        arrivals = around.arrivals
        minted = len(around.cloud.tokens.values)
    # There was something to be found: echoes came, clips failed, tokens were given out, and much was logged.
    assert sum(arrival["fault"] == "echo" for arrival in arrivals) >= 3
    assert 0 < summary["failed"] == len(failures(tmp_path / "out" / "rows"))
    assert minted >= 6 if way.send == "uris" else minted == 0
    assert log.count("DEBUG:") > 50
    assert "the log works" in log
    assert list((tmp_path / "graph").glob("*-pickle-*"))
    assert list((tmp_path / "runtime").rglob("rate-*"))
    assert list((tmp_path / "out").rglob("*.rows"))


def test_nothing_that_a_batch_leaves_holds_audio(tmp_path: Path) -> None:
    # Errors of rows repeat the beginning of their samples.
    faults = "seed=3,invalid=0.1,unavailable=0.1,lost=0.1,die_after=0.9"
    with world(tmp_path, job_faults=faults) as around:
        samples = write_recording(tmp_path / "in" / "noise.wav", 60)
        status = start(around, Way("batch", "research", "grpc"), "--output_format", "parquet").wait(120)
        log = (tmp_path / "log" / "output.txt").read_text()
        assert status == 1, log[-3000:]
        assert "ended as failed: INTERNAL: The job has died after" in log
        assert around.storage.names("staging") == []
    assert found(around, samples) == []
    codes = {failure["code"] for failure in failures(tmp_path / "out" / "rows")}
    assert codes == {"rejected", "unavailable", "no_result"}
    assert log.count("DEBUG:") > 50
    assert "the log works" in log


def test_a_run_that_is_killed_or_ends_early_leaves_none_either(tmp_path: Path) -> None:
    with world(tmp_path, accounts=(ACCOUNT,), latency_ms=100, faults="echo=0.1") as around:
        samples = write_recording(tmp_path / "in" / "noise.wav", 400)
        process = start(around, WAYS[1], "--requests_in_flight", 2)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(around.asked) < 20:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(around.asked) >= 20
        assert found(around, samples) == []
        # The next one finds nobody signed in.
        around.cloud.tokens.is_signed_in = False
        assert start(around, WAYS[1]).wait(60) == 1
        assert found(around, samples) == []


TOKEN = f"{PREFIX}planted-0123456789abcdefghijklmnopqrstuvwxyz0123456789"


def plant_in_log(folder: Path, text: str, _: Samples) -> None:
    with (folder / "log" / "output.txt").open("a") as log:
        log.write(f"DEBUG:some.library:{{'body': \"{text}\"}}\n")


def plant_in_failures(folder: Path, text: str, _: Samples) -> None:
    with (folder / "out" / "rows-failures-00000-of-00001.jsonl").open("a") as rows:
        rows.write(json.dumps({"message": f"The endpoint said: {text}"}) + "\n")


def plant_in_summary(folder: Path, text: str, _: Samples) -> None:
    (folder / "out" / "rows-summary.json").write_text(json.dumps({"probe": {"answer": text}}, indent=2))


def plant_in_table(folder: Path, text: str, _: Samples) -> None:
    pq.write_table(
        pa.table({"endpoint": [text] * 8}), folder / "out" / "rows-00000-of-00001.parquet", compression="zstd"
    )


def plant_in_checkpoint(folder: Path, text: str, _: Samples) -> None:
    builder = FileBuilder("run")
    builder.add("segment", FailureRow("a.wav", "1", None, None, None, "endpoint", "rejected", text, False, 1))
    path = folder / "out" / "rows-checkpoint" / "run" / "packet"
    path.mkdir(parents=True)
    (path / "id-00000.rows").write_bytes(builder.data())


def plant_in_temporary_file(folder: Path, text: str, samples: Samples) -> None:
    (folder / "tmp" / "tmpabc").write_bytes(samples.tobytes() if text != TOKEN else TOKEN.encode())


def plant_in_rate_file(folder: Path, text: str, samples: Samples) -> None:
    data = samples.astype("<f8").tobytes() if text != TOKEN else TOKEN.encode()
    (folder / "runtime" / "rate-0").write_bytes(struct.pack("<9sd", b"HEARRATE1", 1.0) + data)


class _Holds(beam.DoFn):  # type: ignore[misc]
    def __init__(self, secret: object) -> None:
        self.secret = secret


def plant_in_graph(folder: Path, text: str, samples: Samples) -> None:
    pipeline = beam.Pipeline()
    pipeline | beam.Create([None]) | beam.ParDo(_Holds(TOKEN if text == TOKEN else samples))
    write_graph(pipeline, folder / "graph" / "pipeline.pb")


PLANTS: Sequence[Callable[[Path, str, Samples], None]] = (
    plant_in_log,
    plant_in_failures,
    plant_in_summary,
    plant_in_table,
    plant_in_checkpoint,
    plant_in_temporary_file,
    plant_in_rate_file,
    plant_in_graph,
)


@pytest.mark.parametrize("secret", ["token", "samples"])
@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_found(plant: Callable[[Path, str, Samples], None], secret: str, tmp_path: Path) -> None:
    for place in PLACES:
        (tmp_path / place).mkdir()
    samples = write_recording(tmp_path / "in" / "noise.wav", 1)
    places = [tmp_path / place for place in PLACES]
    assert find_secrets(places, tokens=[TOKEN], samples=[samples]) == []
    plant(tmp_path, TOKEN if secret == "token" else str(samples.tolist()), samples)
    hits = find_secrets(places, tokens=[TOKEN], samples=[samples])
    assert any(("token 0" if secret == "token" else "samples 0") in hit for hit in hits)
