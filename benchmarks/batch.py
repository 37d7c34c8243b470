"""A run with a batch prediction job: memory and CPU of the command with few clips and with twenty times as many.

The job is the local endpoint's, over a real storage server on this machine; neither is in the figures.

Run as `python -m benchmarks.batch [--short]`; exits with 1 if memory grows by more than is allowed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.command import CLIPS_PER_FILE, Usage, measure, write_files
from emulator.process import LocalEndpoint, start_local_endpoint
from tests.audio.gcs import StorageServer, storage_server

ALLOWED_MB = 50
TIMES = 20


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fifth of the clips")
    few = 200 if parser.parse_args().short else 1000
    usages: list[Usage] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "storage").mkdir()
        with storage_server(root / "storage") as storage:
            storage.make_bucket("staging")
            with start_local_endpoint(options=[f"--storage_host={storage.address}"]) as local:
                for clips in (few, TIMES * few):
                    write_files(root / str(clips), clips // CLIPS_PER_FILE)
                    usages.append(send(root / str(clips), local, storage))
    print(f"{'clips':>9}{'peak MB':>10}{'largest':>10}{'CPU s':>8}{'wall s':>8}")
    for usage in usages:
        print(
            f"{usage.clips:>9,}{usage.together_mb:>10.0f}{usage.peak_mb:>10.0f}{usage.cpu_s:>8.1f}{usage.wall_s:>8.1f}"
        )
    small, large = usages
    further_ms = 1000 * (large.cpu_s - small.cpu_s) / (large.clips - small.clips)
    print(f"CPU of a further clip: {further_ms:.2f} ms")
    more_mb = large.together_mb - small.together_mb
    passed = more_mb <= ALLOWED_MB
    print(
        f"{'PASS' if passed else 'FAIL'}: {TIMES} times the clips: {more_mb:+.0f} MB "
        f"({large.together_mb / small.together_mb:.2f} times), allowed {ALLOWED_MB} MB"
    )
    return 0 if passed else 1


def send(inputs: Path, local: LocalEndpoint, storage: StorageServer) -> Usage:
    """Has a job embed what is in a folder; nothing may be left in the bucket."""
    options = ["--send", "batch", "--staging_location", "gs://staging/clips", "--output_format", "parquet"]
    where = ["--batch_model", local.model, "--endpoint_host", local.host]
    usage = measure(inputs, local, options, {"STORAGE_EMULATOR_HOST": storage.address}, where=where)
    if left := storage.names("staging"):
        raise SystemExit(f"{len(left)} objects are left in the bucket")
    return usage


if __name__ == "__main__":
    sys.exit(main())
