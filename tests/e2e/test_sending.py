"""The same recordings in each way of sending: the same rows, and nothing left behind.

What a row must hold is worked out here: recordings are decoded and resampled in one piece, and the stand-in embeds the
clips as the way of sending rounds them (not at all, to 7 decimals, or to 16 bits).
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr

from emulator.digests import clip_digest, clip_digest_16_bit
from emulator.process import LocalEndpoint, start_local_endpoint
from emulator.sounds import breathing, coughing
from emulator.standin import embed
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import storage_proxy
from tests.e2e.reference import clips_of
from tests.e2e.running import embeddings, failures, recordings, succeed
from tests.recordings import every, health_recordings, needs_shared_audio

RATE_HZ, CLIP = 16000, 32000
PROBE_REQUESTS, PROBE_CLIPS = 2, 4
RESAMPLING = 1e-5
"""What an embedding may differ by where the samples were resampled in another number of pieces."""

Samples = npt.NDArray[np.float32]
Clips = dict[tuple[str, str, float], Samples]
"""Samples, float32 (32000,), by the recording's name, the channel and the start in seconds."""


def in_16_bits(clip: Samples) -> npt.NDArray[np.int16]:
    return np.rint(clip * np.float32(32768)).clip(-32768, 32767).astype(np.int16)


class Way(NamedTuple):
    send: str
    instance_format: str
    transport: str

    @property
    def sends_wav(self) -> bool:
        return self.send == "uris" or self.instance_format == "model_garden"

    def as_sent(self, clip: Samples) -> Samples:
        """The samples that the model is given."""
        if self.sends_wav:
            return in_16_bits(clip) / np.float32(32768)
        if self.transport == "rest":
            return np.round(clip.astype(np.float64), 7).astype(np.float32)
        return clip

    def endpoint(self, local: LocalEndpoint) -> str:
        if self.instance_format == "model_garden":
            return local.garden_endpoint
        return local.uri_endpoint if self.send == "uris" else local.endpoint_name

    def options(self, local: LocalEndpoint) -> list[str]:
        host = local.rest_host if self.transport == "rest" else local.host
        return [
            *("--endpoint", self.endpoint(local), "--endpoint_host", host, "--send", self.send),
            *("--instance_format", self.instance_format, "--transport", self.transport),
        ]


WAYS = [Way(*way) for way in itertools.product(("audio", "uris"), ("research", "model_garden"), ("grpc", "rest"))]
AUDIO, AUDIO_REST, GARDEN_AUDIO, GARDEN_AUDIO_REST, URIS, URIS_REST, GARDEN_URIS, GARDEN_URIS_REST = WAYS

each_way = pytest.mark.parametrize("way", WAYS, ids="-".join)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("storage")) as running:
        for bucket in ("clinic", "hospital", "staging"):
            running.make_bucket(bucket)
        yield running


class Run(NamedTuple):
    summary: dict[str, Any]
    arrivals: list[dict[str, Any]]
    """Of the run itself: without the probe's."""
    rows: dict[str, dict[str, Any]]
    recordings: dict[str, dict[str, Any]]
    failures: list[dict[str, Any]]
    endpoint: str
    read: list[str]
    """`BUCKET/o/NAME` of each object that the endpoint has read, the probe's included."""

    @property
    def sizes(self) -> list[int]:
        """Instances in each request."""
        return [arrival["instances"] for arrival in self.arrivals]

    def read_from(self, bucket: str) -> list[str]:
        """Names of the objects that the endpoint has read there, sorted."""
        place = f"{bucket}/o/"
        return sorted(name.removeprefix(place) for name in self.read if name.startswith(place))


def run(
    storage: StorageServer,
    way: Way,
    prefix: Path,
    *arguments: object,
    endpoint: Sequence[str] = (),
    staging: str = "clips",
    leaves_nothing: bool = True,
) -> Run:
    """The command, sending in this way to an endpoint of its own with these options; staged clips must be gone after it."""
    log = prefix.with_name(f"{prefix.name}-{time.monotonic_ns()}-arrivals")
    with (
        storage_proxy(storage.address) as of_endpoint,
        start_local_endpoint(arrivals_log=log, options=[f"--storage_host={of_endpoint.address}", *endpoint]) as local,
    ):
        options = [*way.options(local), "--output", prefix, "--output_format", "parquet", *arguments]
        if way.send == "uris":
            options += ["--staging_location", f"gs://staging/{staging}"]
        summary = succeed(*options, STORAGE_EMULATOR_HOST=storage.address)
    assert summary["probe"] == {"requests": PROBE_REQUESTS, "difference": 0.0}
    arrivals = [json.loads(line) for line in log.read_text().splitlines()]
    assert {arrival["transport"] for arrival in arrivals} == {way.transport}
    assert {arrival["endpoint"] for arrival in arrivals} == {way.endpoint(local)}
    assert summary["requests"] == len(arrivals) - PROBE_REQUESTS
    if leaves_nothing:
        assert storage.names("staging", f"{staging}/") == []
    read = [re.fullmatch(r"GET /storage/v1/b/(.*)\?alt=media", line) for line in of_endpoint.lines]
    return Run(
        summary,
        arrivals[PROBE_REQUESTS:],
        embeddings(prefix),
        recordings(prefix),
        failures(prefix),
        way.endpoint(local),
        [match[1] for match in read if match],
    )


def place(row: Mapping[str, Any]) -> tuple[str, str, float]:
    """Where a row's clip is."""
    return Path(row["recording_uri"]).name, row["channel"], row["start_s"]


def assert_rows_are_of(
    clips: Clips, rows: Mapping[str, dict[str, Any]], as_sent: Callable[[Samples], Samples], exact: set[str]
) -> None:
    """There is a row for each clip, with the embedding of the samples sent; to the bit for recordings named in `exact`."""
    by_place = {place(row): row["embedding"] for row in rows.values()}
    assert by_place.keys() == clips.keys()
    for key, clip in clips.items():
        (expected,) = embed([as_sent(clip)])
        assert np.abs(by_place[key] - expected).max() <= (0 if key[0] in exact else RESAMPLING), key


def columns(done: Run) -> dict[str, dict[str, Any]]:
    """All columns but the embedding and `endpoint`, which must be the run's."""
    assert {row["endpoint"].partition("@")[0] for row in done.rows.values()} == {done.endpoint}
    return {
        clip_id: {name: value for name, value in row.items() if name not in ("endpoint", "embedding")}
        for clip_id, row in done.rows.items()
    }


def write_16_bit(path: Path, samples: npt.NDArray[np.floating], rate_hz: int = RATE_HZ) -> Path:
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


READY_MADE = {f"ready-{number}.wav" for number in range(3)}
"""16-bit WAV files of exactly one clip."""
EXACT = READY_MADE | {"nearly-ready.wav", "too-loud.wav", "ready-but-float.wav"}
"""Recordings of 16 kHz, which are not resampled."""
BEYOND_FULL_SCALE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(7)
    for name in sorted(READY_MADE):
        write_16_bit(path / name, coughing(RATE_HZ, 2.0, rng))
    write_16_bit(path / "nearly-ready.wav", coughing(RATE_HZ, 2.0625, rng))
    soundfile.write(path / "ready-but-float.wav", coughing(RATE_HZ, 2.0, rng), RATE_HZ, subtype="FLOAT")
    loud = 0.5 * rng.uniform(-1, 1, 3 * RATE_HZ)
    loud[: 2 * BEYOND_FULL_SCALE : 2] *= 2 / np.abs(loud[: 2 * BEYOND_FULL_SCALE : 2])
    soundfile.write(path / "too-loud.wav", loud, RATE_HZ, subtype="FLOAT")
    mono = breathing(48000, 4.7, rng)
    soundfile.write(path / "stereo.wav", np.stack([mono, 0.3 * mono[::-1]], axis=1), 48000, subtype="PCM_24")
    write_16_bit(path / "long.flac", coughing(44100, 7.0, rng), 44100)
    return path


@pytest.fixture(scope="module")
def clips(folder: Path) -> Clips:
    """All clips of the recordings, each channel's by themselves."""
    found: Clips = {}
    for path in folder.iterdir():
        frames, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        for channel, samples in enumerate(frames.T):
            audio = soxr.resample(np.ascontiguousarray(samples), rate_hz, RATE_HZ, quality="HQ")
            for start in range(0, len(audio), CLIP):
                piece = audio[start : start + CLIP]
                if start == 0 or len(piece) >= RATE_HZ / 2:
                    found[path.name, str(channel), start / RATE_HZ] = np.pad(piece, (0, CLIP - len(piece)))
    return found


@pytest.fixture(scope="module")
def study(storage: StorageServer, folder: Path) -> str:
    """The recordings in the storage server."""
    for path in folder.iterdir():
        storage.upload("clinic", f"Jane Doe/{path.name}", path.read_bytes())
    return "gs://clinic/Jane Doe"


@pytest.fixture(scope="module")
def baseline(storage: StorageServer, study: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(storage, AUDIO, tmp_path_factory.mktemp("baseline") / "r", "--input", study, "--channel", "each")


@each_way
def test_rows_are_the_same_however_clips_are_sent(
    storage: StorageServer, study: str, clips: Clips, baseline: Run, way: Way, tmp_path: Path
) -> None:
    done = run(storage, way, tmp_path / "r", "--input", study, "--channel", "each")
    assert_rows_are_of(clips, done.rows, way.as_sent, EXACT)
    assert columns(done) == columns(baseline)
    assert done.recordings == baseline.recordings
    assert done.failures == []
    assert done.summary["clipped_samples"] == (BEYOND_FULL_SCALE if way.sends_wav else 0)
    given = [digest for arrival in done.arrivals for digest in arrival["clips"]]
    assert len(given) == len(clips)
    assert set(given) >= {clip_digest(way.as_sent(clip)) for (name, *_), clip in clips.items() if name in EXACT}
    # Objects that are clips already are read where they are; all others from where they were staged.
    staged, originals = done.read_from("staging"), done.read_from("clinic")
    if way.send == "audio":
        assert done.summary["staged_clips"] == len(staged) + len(originals) == 0
        return
    assert originals == sorted(f"Jane Doe/{name}" for name in READY_MADE)
    assert done.summary["staged_clips"] == len(clips) - len(READY_MADE)
    assert len(staged) == done.summary["staged_clips"] + PROBE_CLIPS + 1  # the quiet one alone, and among them all
    assert len(set(staged)) == done.summary["staged_clips"] + PROBE_CLIPS
    # Their names are random and say nothing.
    folder = re.escape(f"clips/hear-staged-{done.summary['run_id']}/")
    assert all(re.fullmatch(rf"{folder}[0-9a-f]{{32}}\.wav", name) for name in staged)


def test_files_on_disk_are_all_staged(storage: StorageServer, folder: Path, clips: Clips, tmp_path: Path) -> None:
    done = run(storage, URIS, tmp_path / "r", "--input", folder, "--channel", "each")
    assert_rows_are_of(clips, done.rows, URIS.as_sent, EXACT)
    assert done.summary["staged_clips"] == len(clips)
    assert done.read_from("clinic") == []


def test_two_worker_processes_give_the_same_rows(
    storage: StorageServer, study: str, clips: Clips, baseline: Run, tmp_path: Path
) -> None:
    two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    done = run(storage, GARDEN_URIS, tmp_path / "r", "--input", study, "--channel", "each", *two)
    assert_rows_are_of(clips, done.rows, GARDEN_URIS.as_sent, EXACT)
    assert columns(done) == columns(baseline)


def test_staged_clips_are_kept_where_that_is_asked_for(
    storage: StorageServer, study: str, clips: Clips, tmp_path: Path
) -> None:
    arguments = ("--input", study, "--channel", "each")
    done = run(storage, URIS_REST, tmp_path / "r", *arguments, "--keep_staged", leaves_nothing=False)
    kept = storage.names("staging", f"clips/hear-staged-{done.summary['run_id']}/")
    try:
        assert kept == storage.names("staging")
        assert len(kept) == len(clips) - len(READY_MADE) + PROBE_CLIPS
        contents = [storage.content("staging", name) for name in kept]
        assert {kind for _, kind in contents} == {"audio/wav"}
        held = {wav_samples(data).tobytes() for data, _ in contents}
        assert len(held) == len(kept)
        assert held >= {in_16_bits(clip).tobytes() for (name, *_), clip in clips.items() if name in EXACT - READY_MADE}
        # The next run of the same checkpoint does not take them for a killed run's, and removes its own.
        run(storage, URIS_REST, tmp_path / "r", *arguments, leaves_nothing=False)
        assert storage.names("staging") == kept
    finally:
        for name in storage.names("staging"):
            storage.delete("staging", name)


def wav_samples(data: bytes) -> npt.NDArray[np.int16]:
    """The samples of a 16-bit mono WAV file of one clip at 16 kHz."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.format, file.subtype, file.channels, file.samplerate) == ("WAV", "PCM_16", 1, RATE_HZ)
        samples = file.read(dtype="int16")
    assert samples.shape == (CLIP,)
    return samples


HOP = 400


def overlapping(path: Path, count: int) -> Samples:
    """Writes a recording that has so many clips with `HOP_S`; returns them, (count, 32000)."""
    steps = np.random.default_rng(count).integers(-9000, 9000, CLIP + (count - 1) * HOP).astype(np.int16)
    path.parent.mkdir()
    write_16_bit(path, steps)
    return np.lib.stride_tricks.sliding_window_view(steps / np.float32(32768), CLIP)[::HOP]


HOP_S = ("--hop_s", HOP / RATE_HZ)


@pytest.mark.parametrize(
    ("way", "options", "expected"),
    [
        (GARDEN_AUDIO, (), [17] * 7 + [1]),
        (GARDEN_AUDIO_REST, ("--max_request_bytes", 10_000_000), [117, 3]),
    ],
)
def test_dedicated_endpoints_take_more_audio_in_a_request(
    storage: StorageServer, way: Way, options: tuple[object, ...], expected: list[int], tmp_path: Path
) -> None:
    overlapping(tmp_path / "in" / "a.wav", 120)
    arguments = ("--input", tmp_path / "in", *HOP_S, *options)
    done = run(storage, way, tmp_path / "r", *arguments, endpoint=["--max_request_bytes=10000000"])
    assert sorted(done.sizes, reverse=True) == expected
    assert len(done.rows) == 120


@pytest.mark.parametrize(
    ("way", "count", "group", "most_extra"),
    [
        (AUDIO, 40, 4, 2 * math.ceil(math.log2(4))),
        (AUDIO_REST, 40, 4, 2 * math.ceil(math.log2(4))),
        (URIS, 650, 640, 2 * math.ceil(math.log2(640))),
        (URIS_REST, 650, 640, 2 * math.ceil(math.log2(640))),
        (GARDEN_URIS, 40, 640, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, Way) else str(value),
)
def test_a_clip_that_is_always_rejected_costs_itself(
    storage: StorageServer, way: Way, count: int, group: int, most_extra: int, tmp_path: Path
) -> None:
    bad = 2  # in the run's very first request
    clips = overlapping(tmp_path / "in" / "a.wav", count)
    faults = f"--faults=reject_clips={clip_digest_16_bit(clips[bad])}"
    done = run(storage, way, tmp_path / "r", "--input", tmp_path / "in", *HOP_S, endpoint=[faults])
    (failure,) = done.failures
    assert (failure["stage"], failure["code"], failure["retryable"]) == ("endpoint", "rejected", False)
    assert failure["start_s"] == bad * HOP / RATE_HZ
    assert sorted(row["clip_index"] for row in done.rows.values()) == [k for k in range(count) if k != bad]
    assert len(done.arrivals) - math.ceil(count / group) <= most_extra
    assert max(done.sizes) == min(group, count)
    given = Counter(digest for arrival in done.arrivals for digest in arrival["clips"])
    assert given == {clip_digest(way.as_sent(clip)): 1 for k, clip in enumerate(clips) if k != bad}


@pytest.mark.parametrize(("way", "refused"), [(URIS, [60, 30, 15]), (GARDEN_AUDIO_REST, [17, 8])])
def test_requests_become_smaller_when_responses_would_be_too_large(
    storage: StorageServer, way: Way, refused: list[int], tmp_path: Path
) -> None:
    overlapping(tmp_path / "in" / "a.wav", 60)
    arguments = ("--input", tmp_path / "in", *HOP_S, "--requests_in_flight", 1)
    done = run(storage, way, tmp_path / "r", *arguments, endpoint=["--faults=too_large_above=7"])
    assert len(done.rows) == 60
    assert [arrival["instances"] for arrival in done.arrivals if arrival["fault"] == "too_large"] == refused
    assert set(done.sizes[len(refused) :]) <= set(range(1, refused[-1] // 2 + 1))


EACH_PAIR_OF_VALUES = [AUDIO, GARDEN_AUDIO_REST, URIS_REST, GARDEN_URIS]
"""Any two values of two options meet in one of these; the other four are tried with the synthesised recordings alone."""


@pytest.fixture(scope="module")
def hospital(storage: StorageServer) -> str:
    """The real recordings in the storage server."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda p: storage.upload("hospital", p.name, p.read_bytes()), real_recordings()))
    return "gs://hospital"


def real_recordings() -> list[Path]:
    """Every fifth of them, or all if REFERENCE is `all`."""
    return health_recordings(every(5))


@pytest.fixture(scope="module")
def real_clips() -> Clips:
    return {
        (path.name, "mean", start / RATE_HZ): samples
        for path in real_recordings()
        for start, _, samples in clips_of(path)
    }


@pytest.fixture(scope="module")
def real_columns(storage: StorageServer) -> dict[str, Any]:
    """What the first run's columns and recordings table were, for those after it."""
    return {}


@needs_shared_audio
@pytest.mark.parametrize("way", EACH_PAIR_OF_VALUES, ids="-".join)
def test_real_recordings_have_the_same_rows_however_clips_are_sent(
    storage: StorageServer,
    hospital: str,
    real_clips: Clips,
    real_columns: dict[str, Any],
    way: Way,
    tmp_path: Path,
) -> None:
    done = run(storage, way, tmp_path / "r", "--input", hospital)
    assert done.failures == []
    assert_rows_are_of(real_clips, done.rows, way.as_sent, exact=set())
    found = {"columns": columns(done), "recordings": done.recordings}
    assert found == (real_columns or found)
    real_columns.update(found)
    assert len(done.recordings) == len(real_recordings())
    assert done.summary["staged_clips"] == (len(real_clips) if way.send == "uris" else 0)
