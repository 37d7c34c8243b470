"""How much of a quota in requests per minute the command uses, and whether it ever breaks it.

The real command runs over recordings, one clip a request, against local endpoints; everything is counted from the endpoint's
raw arrivals log. With `--max_requests_per_minute` no 60 s window may hold more arrivals than the limit, retries and the
probe included, and at least 97 % of it must be used; with a quota that the command does not know, at least 80 % of what
the endpoint allows, with fewer than 5 % of the requests refused. Beside it: 32 threads that retry as google-api-core's
`Retry` does.

Run as `python -m benchmarks.quota [--short]`; exits with 1 if a bound is missed. The full run takes about half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from google.api_core import exceptions, retry

from benchmarks.command import CLIPS_PER_FILE, measure, write_files
from emulator.process import start_local_endpoint
from endpoint.codec import make_codec
from endpoint.grpc_transport import METHOD

LEAST_USED, LEAST_USED_UNKNOWN, MOST_REFUSED = 0.97, 0.80, 0.05
LATENCY_MS = 100
WINDOW_S = 60.0
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@dataclass(frozen=True)
class Found:
    """What an arrivals log says."""

    arrivals: int
    seconds: float
    """From the first arrival to the last."""
    refused: int
    most_in_window: int
    """Arrivals in the fullest 60 s window."""
    accepted: int

    @property
    def refused_share(self) -> float:
        """Of all arrivals."""
        return self.refused / self.arrivals

    def used_share(self, per_minute: float) -> float:
        """Accepted requests, of what `per_minute` allows in that time."""
        return (self.accepted - 1) / (self.seconds / 60) / per_minute


def read(log: Path) -> Found:
    """Counts an arrivals log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    times = sorted(line["t_s"] for line in lines)
    most = first = 0
    for last, time_s in enumerate(times):
        while time_s - times[first] >= WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    refused = sum(line["status"] == "RESOURCE_EXHAUSTED" for line in lines)
    return Found(len(times), times[-1] - times[0], refused, most, len(times) - refused)


def main() -> int:
    """Runs the benchmark; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about five minutes")
    options = parser.parse_args()
    seconds = 75 if options.short else 310
    limits = (
        [(6000, TWO_PROCESSES)] if options.short else [(n, more) for n in (600, 6000) for more in ((), TWO_PROCESSES)]
    )
    passed = []
    print(f"{'':<46}{'requests':>9}{'seconds':>9}{'used':>8}{'refused':>9}{'fullest 60 s':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (limit, more) in enumerate(limits):
            run = Path(folder) / f"limit-{number}"
            found = command(run, limit * seconds // 60, ["--max_requests_per_minute", str(limit), *more])
            used = found.used_share(limit)
            tell(f"limit {limit}, {'two processes' if more else 'one process'}", found, used)
            passed.append(used >= LEAST_USED and found.most_in_window <= limit)
        quota = 6000
        found = command(Path(folder) / "unknown", quota * seconds // 60, [], quota=quota)
        used = found.used_share(quota)
        tell(f"quota {quota} that is not known", found, used)
        passed.append(used >= LEAST_USED_UNKNOWN and found.refused_share < MOST_REFUSED)
        peer = retrying_threads(Path(folder) / "peer", quota, seconds)
        tell("the same, 32 threads with google-api-core's Retry", peer, peer.used_share(quota))
    print(f"ratio: {peer.refused / max(1, found.refused):.0f} times fewer refused requests than with Retry")
    print(f"{'PASS' if all(passed) else 'FAIL'}: bounds {LEAST_USED:.0%}, {LEAST_USED_UNKNOWN:.0%}, {MOST_REFUSED:.0%}")
    return 0 if all(passed) else 1


def tell(what: str, found: Found, used: float) -> None:
    """Prints a line of the table."""
    print(
        f"{what:<46}{found.arrivals:>9}{found.seconds:>9.0f}{used:>8.1%}{found.refused_share:>9.2%}{found.most_in_window:>14}",
        flush=True,
    )


def command(folder: Path, clips: int, options: Sequence[str], quota: int | None = None) -> Found:
    """Runs the command over so many clips, one a request."""
    folder.mkdir()
    log = folder / "arrivals.jsonl"
    write_files(folder / "recordings", -(-clips // CLIPS_PER_FILE))
    enforced = [] if quota is None else [f"--quota_per_minute={quota}"]
    with start_local_endpoint(latency_ms=LATENCY_MS, arrivals_log=log, options=enforced) as local, ExitStack() as stack:
        # A pace of its own: what other runs have learnt about an endpoint at this port is of no use.
        runtime = stack.enter_context(tempfile.TemporaryDirectory())
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = runtime
        try:
            measure(folder / "recordings", local, ["--clips_per_request=1", *options])
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before
    return read(log)


def retrying_threads(folder: Path, quota: int, seconds: float) -> Found:
    """32 threads that send one clip after the other, and leave waiting to google-api-core."""
    folder.mkdir()
    log = folder / "arrivals.jsonl"
    with start_local_endpoint(LATENCY_MS, log, options=[f"--quota_per_minute={quota}"]) as local:
        name = local.endpoint_name
        payload = make_codec("grpc", "research", "audio", name).prepare([np.zeros(32000, np.float32)])
        request = payload.request([0], lambda _: "")
        until_s = time.monotonic() + seconds
        with grpc.insecure_channel(local.host, options=[("grpc.enable_http_proxy", 0)]) as channel:
            predict = channel.unary_unary(METHOD)

            retrying = retry.Retry(predicate=retry.if_exception_type(exceptions.ResourceExhausted), timeout=None)

            def send() -> None:
                try:
                    predict(request, metadata=[("x-goog-request-params", f"endpoint={name}")])
                except grpc.RpcError as error:
                    raise exceptions.from_grpc_error(error) from None

            def work() -> None:
                while time.monotonic() < until_s:
                    retrying(send)()

            threads = [threading.Thread(target=work) for _ in range(32)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return read(log)


if __name__ == "__main__":
    sys.exit(main())
