"""Clips a second from Cloud Storage that takes 50 ms for each request, beside local disk and one object at a time.

A real storage server on loopback, behind a proxy that adds the 50 ms and counts; a local endpoint that takes 200 ms for
each request, 64 of which are in flight. The command runs twice, with few and with many recordings of 5 s (44.1 kHz,
16-bit): the difference is what clips take, without the start. The peer sends through the same client, with as many
requests in flight, but fetches and decodes one object after the other.

Run as `python -m benchmarks.fetch_ahead [--short]`; exits with 1 if too few clips a second are sent, or if an object takes
more than one GET.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from audio.clips import Clip, ClipSettings, open_clips
from audio.fetch import open_recording
from audio.recording import Recording
from benchmarks.command import CLIPS_PER_FILE, Usage, measure, write_files
from emulator.process import LocalEndpoint, start_local_endpoint
from endpoint.client import Client
from endpoint.results import Embedded, Outcome
from endpoint.settings import EndpointSettings
from tests.audio.gcs import StorageServer, storage_server
from tests.audio.storage_proxy import StorageProxy, storage_proxy

STORAGE_S = 0.05
SERVICE_S = 0.2
IN_FLIGHT = 64
EXPECTED_PER_S = 300
EXPECTED_SHARE = 0.6
"""Of what the machine reaches from disk, where that bounds it: the servers and whatever else runs take their CPU, too."""
OPTIONS = ("--requests_in_flight", str(IN_FLIGHT))
BUCKET = "recordings"
CLIPS_PER_REQUEST = 4
PATIENCE_S = 60.0


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about a minute instead of some minutes")
    options = parser.parse_args()
    few, many = (100, 1100) if options.short else (100, 3100)
    with (
        tempfile.TemporaryDirectory() as folder,
        start_local_endpoint(latency_ms=SERVICE_S * 1000) as local,
        storage_server(Path(folder) / "storage") as server,
        storage_proxy(server.address) as proxy,
    ):
        small, large = Path(folder) / "few", Path(folder) / "many"
        write_files(small, few)
        write_files(large, many)
        server.make_bucket(BUCKET)
        for recordings in (small, large):
            for path in recordings.iterdir():
                server.upload(BUCKET, f"{recordings.name}/{path.name}", path.read_bytes())
        proxy.delay_s = STORAGE_S
        where = {"STORAGE_EMULATOR_HOST": proxy.address}
        alone_per_s = one_at_a_time(server, proxy, local, 60 if options.short else 200)
        from_disk = [measure(path, local, OPTIONS) for path in (small, large)]
        proxy.lines.clear()
        proxy.connections = 0
        from_storage = [measure(f"gs://{BUCKET}/{path.name}", local, OPTIONS, where) for path in (small, large)]
        gets = Counter(line for line in proxy.lines if is_get(line))
    disk_per_s, stored_per_s = report(from_disk, from_storage, alone_per_s)
    most = max(gets.values())
    print(
        f"{len(gets)} objects of {few + many} were fetched, by at most {most} GET each, over {proxy.connections} "
        f"connections; up to {proxy.most_concurrent} requests at a time"
    )
    expected_per_s = min(EXPECTED_PER_S, EXPECTED_SHARE * disk_per_s)
    passed = [stored_per_s >= expected_per_s, len(gets) == few + many and most == 1]
    print(f"{'PASS' if passed[0] else 'FAIL'}: {stored_per_s:.0f} clips/s, expected at least {expected_per_s:.0f}")
    print(f"{'PASS' if passed[1] else 'FAIL'}: one GET for each object")
    return 0 if all(passed) else 1


def is_get(line: str) -> bool:
    """Whether a request fetches an object's bytes."""
    return re.match(r"GET /download/", line) is not None


def one_at_a_time(server: StorageServer, proxy: StorageProxy, local: LocalEndpoint, objects: int) -> float:
    """Clips a second where each object is fetched after the one before was decoded."""
    os.environ["STORAGE_EMULATOR_HOST"] = proxy.address
    waiting: list[Clip] = []
    all_answered = threading.Semaphore(0)

    def note(outcome: Outcome) -> None:
        assert all(isinstance(result, Embedded) for result in outcome.results), outcome
        for _ in outcome.results:
            all_answered.release()

    os.environ["STORAGE_EMULATOR_HOST"] = proxy.address
    names = server.names(BUCKET, "many/")[:objects]
    settings = EndpointSettings(name=local.endpoint_name, host=local.host, max_in_flight=IN_FLIGHT, is_proven=True)
    started_s = time.monotonic()
    with Client(settings) as client:
        for name in names:
            with open_recording(Recording(f"gs://{BUCKET}/{name}", "", 1)) as file:
                waiting += [clip for clip in open_clips(file, ClipSettings()) if isinstance(clip, Clip)]
            while len(waiting) >= CLIPS_PER_REQUEST or (waiting and name == names[-1]):
                client.submit([clip.samples for clip in waiting[:CLIPS_PER_REQUEST]], note)
                del waiting[:CLIPS_PER_REQUEST]
        for _ in range(CLIPS_PER_FILE * objects):
            assert all_answered.acquire(timeout=PATIENCE_S)
        taken_s = time.monotonic() - started_s
    return CLIPS_PER_FILE * objects / taken_s


def report(from_disk: list[Usage], from_storage: list[Usage], alone_per_s: float) -> tuple[float, float]:
    """Prints the figures and their ratios; clips a second from disk, and from storage."""
    print(f"{'50 ms a storage request, 200 ms a prediction':<46}{'clips/s':>9}{'CPU ms a clip':>15}")
    rates = []
    for name, (few, many) in (("from disk", from_disk), ("from storage", from_storage)):
        clips = many.clips - few.clips
        rates.append(clips / (many.wall_s - few.wall_s))
        cpu_ms = 1000 * (many.cpu_s - few.cpu_s) / clips
        print(f"{f'the command, {name}':<46}{rates[-1]:>9.0f}{cpu_ms:>15.2f}")
    print(f"{'one object at a time':<46}{alone_per_s:>9.0f}")
    disk_per_s, stored_per_s = rates
    print(
        f"ratios: {stored_per_s / disk_per_s:.2f} of disk, {stored_per_s / alone_per_s:.1f} times one object at a time"
    )
    return disk_per_s, stored_per_s


if __name__ == "__main__":
    sys.exit(main())
