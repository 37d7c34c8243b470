"""Storage, token services and the local endpoint around a run of the command, with the real google-auth in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
import soundfile

from emulator.process import LocalEndpoint, start_local_endpoint
from tests.audio.gcs import StorageServer, storage_server
from tests.cloud.google_proxy import GoogleCloud, google_cloud
from tests.cloud.token_server import Minted

ACCOUNT = "reader@local-project.iam.gserviceaccount.com"
RATE_HZ, CLIP, HOP = 16000, 32000, 1600


@dataclass
class World:
    """All that a run meets."""

    folder: Path
    storage: StorageServer
    cloud: GoogleCloud
    local: LocalEndpoint
    environment: Mapping[str, str]
    asked: list[str] = field(default_factory=list)
    """The tokens that the local endpoint asked about, once for each request that brought them."""

    def arguments(self, way: tuple[str, str], *more: object) -> tuple[object, ...]:
        instance_format, transport = way
        name = self.local.uri_endpoint if instance_format == "research" else self.local.garden_endpoint
        return (
            *("--endpoint", name),
            *("--endpoint_host", self.local.rest_host if transport == "rest" else self.local.host),
            *("--instance_format", instance_format, "--transport", transport, "--send", "uris"),
            *("--staging_location", "gs://staging/clips", "--clips_per_request", 4, "--hop_s", HOP / RATE_HZ),
            *("--output", self.folder / "rows", "--output_format", "parquet"),
            *more,
        )

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        lines = (self.folder / "arrivals").read_text().splitlines()
        return sorted(map(json.loads, lines), key=lambda arrival: int(arrival["number"]))

    def arrived(self) -> list[Minted]:
        """The tokens that arrived at the endpoint."""
        minted = {token.value: token for token in self.cloud.tokens.minted}
        return [minted[value] for value in dict.fromkeys(self.asked)]


@contextmanager
def world(
    folder: Path,
    *,
    lifetime_s: float = 3600,
    accounts: tuple[str, ...] = (),
    latency_ms: float = 0,
    faults: str | None = None,
    job_faults: str | None = None,
    on_asked: Callable[[GoogleCloud, str, int], None] = lambda *_: None,
) -> Iterator[World]:
    """Runs storage, token services and endpoint; `on_asked` is called when the endpoint asks about a token, before the answer."""
    for name in ("cloud", "storage"):
        (folder / name).mkdir()
    (folder / "runtime").mkdir(mode=0o700)
    with (
        storage_server(folder / "storage") as storage,
        google_cloud(folder / "cloud", lifetime_s=lifetime_s, accounts=accounts) as cloud,
    ):
        storage.make_bucket("staging")
        asked: list[str] = []
        answer = cloud.tokens.answer

        def listen(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
            url = urlsplit(path)
            if url.path == "/tokeninfo":
                asked.extend(parse_qs(url.query)["access_token"])
                on_asked(cloud, asked[-1], len(asked))
            return answer(method, path, headers, body)

        cloud.tokens.answer = listen  # type: ignore[method-assign]
        options = [f"--storage_host={storage.address}", f"--token_info_url={cloud.tokens.token_info_url}"]
        options += [] if faults is None else [f"--faults={faults}"]
        options += [] if job_faults is None else [f"--job_faults={job_faults}"]
        with start_local_endpoint(latency_ms, folder / "arrivals", options=options) as local:
            environment = {
                **cloud.environment,
                "STORAGE_EMULATOR_HOST": storage.address,
                "XDG_RUNTIME_DIR": str(folder / "runtime"),
            }
            yield World(folder, storage, cloud, local, environment, asked)
    assert not cloud.refused
    assert not cloud.tokens.unknown


def write_recording(path: Path, clips: int) -> npt.NDArray[np.float32]:
    """Noise of so many overlapping clips; its samples as they are decoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.2 * np.random.default_rng(1).standard_normal(CLIP + (clips - 1) * HOP)
    soundfile.write(path, noise.clip(-1, 1), RATE_HZ)
    return soundfile.read(path, dtype="float32")[0]  # type: ignore[no-any-return]
