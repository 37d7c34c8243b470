"""Runs with batch prediction jobs: the command, the real storage server behind a proxy, and the emulator's job service."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from google.cloud import aiplatform_v1

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.standin import embed
from endpoint.channel import open_loopback_channel
from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.storage import proxied_storage
from tests.e2e.running import embeddings, start_command, summary_of
from tests.e2e.served import cut

WITHIN_S = 100
INTERRUPTED = 130
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
SECONDS = {"a.wav": 11.0, "b.wav": 9.5, "c.wav": 4.0}
CLIPS = 6 + 5 + 2 + 2
Samples = dict[str, np.ndarray]
"""Of recordings of 16 kHz, int16, by the names of their files."""


def record(folder: Path, name: str, seconds: float, seed: int) -> np.ndarray:
    """Writes a recording of noise; its samples."""
    samples = np.random.default_rng(seed).integers(-16000, 16000, round(seconds * 16000), np.int16)
    soundfile.write(folder / name, samples, 16000, subtype="PCM_16")
    return samples


def record_some(folder: Path) -> Samples:
    """Writes four recordings of CLIPS clips, two of which have the same samples, and a file that is no recording."""
    made = {name: record(folder, name, seconds, seed) for seed, (name, seconds) in enumerate(SECONDS.items())}
    shutil.copy(folder / "c.wav", folder / "d.wav")
    (folder / "e.wav").write_bytes(b"RIFF" + b"no recording" * 10)
    return made | {"d.wav": made["c.wav"]}


def as_written(samples: np.ndarray) -> list[np.ndarray]:
    """The clips of a recording, one after the other, as a job gets them: float32 of six decimals."""
    clips = [cut(samples, start) for start in range(0, len(samples), 32000)]
    return [np.round(clip.astype(np.float64), 6).astype(np.float32) for clip in clips]


def digests(recordings: Samples) -> Counter[str]:
    """How often each clip of these recordings must arrive, if it arrives once for each place that it is in."""
    return Counter(clip_digest(clip) for samples in recordings.values() for clip in as_written(samples))


def places(predicted: Counter[str], recordings: Samples) -> int:
    """How many clips have samples that were predicted; those of equal samples share their answers."""
    return sum(count for digest, count in digests(recordings).items() if predicted[digest])


def assert_rows_of(rows: dict[str, dict[str, Any]], recordings: Samples, but: int = 0) -> None:
    """The rows must be those of all clips of the recordings, or of all `but` so many: embedded as their lines' numbers are."""
    expected = {
        (name, 2.0 * index): clip
        for name, samples in recordings.items()
        for index, clip in enumerate(as_written(samples))
    }
    found = {(Path(row["recording_uri"]).name, row["start_s"]): row for row in rows.values()}
    assert len(found) == len(rows) == len(expected) - but
    assert found.keys() <= expected.keys()
    for place, row in found.items():
        assert np.abs(row["embedding"] - embed([expected[place]])[0]).max() <= 1e-6, place


@dataclass
class Bucket:
    """The storage server, and the proxy through which commands reach it; the job service reaches it directly."""

    storage: StorageServer
    direct: StorageServer
    proxy: FaultProxy


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """Runs a storage server with the buckets `staging` and `study`."""
    with proxied_storage(folder) as (storage, proxy):
        host, port = proxy.upstream
        direct = StorageServer(f"http://{host}:{port}")
        for name in ("staging", "study"):
            direct.make_bucket(name)
        yield Bucket(storage, direct, proxy)


@dataclass
class JobService:
    """A job service and what has arrived there."""

    local: LocalEndpoint
    log: Path

    @property
    def created(self) -> list[dict[str, Any]]:
        """Calls to create a job."""
        return [line for line in self._lines if line.get("job_event") == "created"]

    @property
    def states(self) -> list[str]:
        """In which jobs have ended, in that order."""
        return [line["state"].removeprefix("JOB_STATE_") for line in self._lines if line.get("job_event") == "ended"]

    @property
    def predicted(self) -> Counter[str]:
        """Digests of the clips that the model was given by jobs that have ended."""
        return Counter(digest for line in self._lines for digest in line["clips"])

    def cancel(self) -> None:
        """Cancels the last job, as somebody may do who sees it in the console."""
        with open_loopback_channel(self.local.host) as channel:
            transports = aiplatform_v1.services.job_service.transports
            client = aiplatform_v1.JobServiceClient(transport=transports.JobServiceGrpcTransport(channel=channel))
            client.cancel_batch_prediction_job(name=self.created[-1]["job"])

    @property
    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Since:
    """What has arrived at a job service since this was made."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._before = len(service.created), service.predicted

    @property
    def jobs(self) -> int:
        """Jobs that were asked for."""
        return len(self._service.created) - self._before[0]

    @property
    def predicted(self) -> Counter[str]:
        return self._service.predicted - self._before[1]


@contextmanager
def job_service(at: Bucket, log: Path, *options: str) -> Iterator[JobService]:
    """Runs the emulator with these options, such as `--job_faults=...`."""
    log.touch()
    with start_local_endpoint(arrivals_log=log, options=[f"--storage_host={at.direct.address}", *options]) as local:
        yield JobService(local, log)


class Ended(tuple[int, str]):
    """How a command has ended."""

    __slots__ = ()

    @property
    def status(self) -> int:
        return self[0]

    @property
    def said(self) -> str:
        """On its standard error."""
        return self[1]

    @property
    def last(self) -> str:
        return self.said.splitlines()[-1]


@dataclass
class Study:
    """A command that is given again and again: its input, its output, and where it sends a batch."""

    at: Bucket
    folder: Path
    prefix: Path
    arguments: tuple[object, ...] = ()
    """Further ones, always given."""
    input: tuple[object, ...] = ()
    """Instead of the folder."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def staging(self) -> str:
        """Its folder in the bucket `staging`."""
        return f"{self.prefix.parent.name}/{self.prefix.name}"

    @property
    def staged(self) -> list[str]:
        return self.at.direct.names("staging", f"{self.staging}/")

    def start(self, service: JobService, *more: object, sends: str = "batch") -> subprocess.Popen[str]:
        """Starts the command in a session of its own, as a terminal's job would be."""
        given: list[object] = ["--endpoint_host", service.local.host, "--output", self.prefix]
        given += self.input or ("--input", self.folder)
        if sends == "batch":
            given += [
                "--batch_model",
                service.local.model,
                "--send",
                "batch",
                "--staging_location",
                f"gs://staging/{self.staging}",
            ]
        else:
            given += ["--endpoint", service.local.endpoint_name]
        given += ["--output_format", "parquet", "--decoder_processes", 0, *self.arguments, *more]
        process = start_command(*given, own_session=True, STORAGE_EMULATOR_HOST=self.at.storage.address)
        self.started.append(process)
        return process

    def run(self, service: JobService, *more: object, sends: str = "batch") -> Ended:
        return ended(self.start(service, *more, sends=sends))

    def succeed(self, service: JobService, *more: object, sends: str = "batch") -> dict[str, Any]:
        """Runs the command, which must end well and leave nothing in the bucket; its summary."""
        done = self.run(service, *more, sends=sends)
        assert done.status == 0, done.said
        assert "Traceback" not in done.said
        assert self.staged == []
        return self.summary

    def killed(
        self,
        service: JobService,
        match: str,
        *more: object,
        by: signal.Signals = signal.SIGKILL,
        skip: int = 0,
        after: bool = False,
        only_if: Callable[[], bool] = lambda: True,
    ) -> Ended:
        """Runs the command, which gets a signal when it asks the storage server for what matches, the first times left out.

        Without `after` that is before the request is passed on.
        """
        process: subprocess.Popen[str]
        passed = 0

        def hit() -> None:
            nonlocal passed
            passed += only_if()
            if passed == skip + 1:
                passed += 1
                process.send_signal(by)
                if by is signal.SIGKILL:
                    process.wait()

        fault = self.at.proxy.inject(match, times=-1, after=after, call=hit)
        process = self.start(service, *more)
        done = ended(process)
        fault.times = fault.hits
        assert passed > skip, (fault, done)
        assert done.status == (-signal.SIGKILL if by is signal.SIGKILL else INTERRUPTED), done
        return done

    @property
    def summary(self) -> dict[str, Any]:
        return summary_of(self.prefix)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return embeddings(self.prefix)

    @property
    def noted(self) -> dict[str, set[str]]:
        """What each run has noted in the checkpoint on disk about its job."""
        notes = Path(f"{self.prefix}-checkpoint").glob("*/*.json")
        found: dict[str, set[str]] = {}
        for path in notes:
            found.setdefault(path.parent.name, set()).add(path.stem)
        return found


def ended(process: subprocess.Popen[str]) -> Ended:
    """Waits for a command."""
    try:
        _, said = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
    return Ended((process.returncode, said))


def wait_to_be_told(process: subprocess.Popen[str], text: str) -> None:
    """Reads what a command says until a line has this text, which it must."""
    assert process.stderr is not None
    said: list[str] = []
    while not (said and text in said[-1]):
        said.append(process.stderr.readline())
        assert said[-1], said
