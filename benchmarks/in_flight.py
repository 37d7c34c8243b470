"""Requests a second with 32 in flight against an endpoint that takes 200 ms for each, beside one request at a time.

The ceiling is 32 / 0.2 s = 160 requests a second. The endpoint is the local one of this project, a process of its own.

Run as `python -m benchmarks.in_flight [--short]`; exits with 1 if less of the ceiling is reached than is expected.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

import numpy as np

from emulator.process import start_local_endpoint
from endpoint.client import Client
from endpoint.results import Embedded, Outcome
from endpoint.settings import EndpointSettings

SERVICE_S = 0.2
IN_FLIGHT = 32
EXPECTED_SHARE = 0.85
PATIENCE_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some seconds instead of half a minute")
    options = parser.parse_args()
    seconds = 5 if options.short else 25
    with start_local_endpoint(latency_ms=SERVICE_S * 1000) as local:
        alone, alone_cpu_ms = requests_per_s(local.host, local.endpoint_name, 1, 10 if options.short else 25)
        ceiling = IN_FLIGHT / SERVICE_S
        rate, cpu_ms = requests_per_s(local.host, local.endpoint_name, IN_FLIGHT, round(ceiling * seconds))
    share = rate / ceiling
    print(f"{'200 ms service time, 4 clips a request':<42}{'requests/s':>12}{'of ceiling':>12}{'CPU ms each':>13}")
    print(f"{'one at a time':<42}{alone:>12.1f}{alone * SERVICE_S:>12.0%}{alone_cpu_ms:>13.2f}")
    print(f"{f'{IN_FLIGHT} in flight':<42}{rate:>12.1f}{share:>12.0%}{cpu_ms:>13.2f}")
    passed = share >= EXPECTED_SHARE
    print(f"{'PASS' if passed else 'FAIL'}: {share:.0%} of {ceiling:.0f}, expected at least {EXPECTED_SHARE:.0%}")
    return 0 if passed else 1


def requests_per_s(host: str, endpoint: str, in_flight: int, requests: int) -> tuple[float, float]:
    """Requests a second by the clock, and this process's CPU ms for each, once the window has been filled twice.

    Those before that include the canary and the connection, and come in one burst that the server must first spread.
    """
    clips = [np.random.default_rng(seed).normal(0, 0.1, 32000).astype(np.float32) for seed in range(4)]
    answers: list[tuple[float, float]] = []
    finished = threading.Event()
    warming_up = 1 + 2 * in_flight

    def note(outcome: Outcome) -> None:
        assert all(isinstance(result, Embedded) for result in outcome.results), outcome
        answers.append((time.monotonic(), time.process_time()))
        if len(answers) == warming_up + requests:
            finished.set()

    with Client(EndpointSettings(name=endpoint, host=host, max_in_flight=in_flight)) as client:
        for _ in range(warming_up + requests):
            client.submit(clips, note)
        assert finished.wait(PATIENCE_S)
    (started_s, cpu_started_s), (ended_s, cpu_ended_s) = answers[warming_up - 1], answers[-1]
    return requests / (ended_s - started_s), (cpu_ended_s - cpu_started_s) / requests * 1000


if __name__ == "__main__":
    sys.exit(main())
