"""Budgets counted where it matters: in the local endpoint's log of what arrived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emulator.digests import clip_digest
from emulator.process import LocalEndpoint, start_local_endpoint
from endpoint.client import Client
from endpoint.errors import BudgetSpent
from endpoint.rate import LocalRate
from endpoint.request_budget import SharedBudget
from endpoint.results import Embedded, Refused
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from tests.endpoint.outcomes import PATIENCE_S, embed

REPOSITORY = Path(__file__).resolve().parents[2]
FAULTS = "--faults=seed=5,429=0.1,503=0.1,reset=0.05,short=0.05"
SENDER = """
import itertools, sys, threading
import numpy as np
from endpoint.client import Client
from endpoint.errors import BudgetSpent
from endpoint.settings import EndpointSettings

name, host, transport, limit, run_id = sys.argv[1:]
settings = EndpointSettings(
    name, host, transport=transport, max_requests=int(limit), run_id=run_id, max_in_flight=4, is_proven=True
)
rng = np.random.default_rng(1)
outcomes, done = [], threading.Semaphore(0)

def take(outcome):
    outcomes.append(outcome)
    done.release()

with Client(settings) as client:
    for submitted in itertools.count():
        try:
            client.submit([rng.normal(0, 0.1, 32000).astype(np.float32)], take)
        except BudgetSpent:
            break
    for _ in range(submitted):
        done.acquire()
print(sum(outcome.requests for outcome in outcomes))
"""


def arrivals(log: Path) -> int:
    return len(log.read_text().splitlines())


def settings_for(local: LocalEndpoint, transport: str, max_requests: int, run_id: str) -> EndpointSettings:
    host = local.rest_host if transport == "rest" else local.host
    return EndpointSettings(
        local.endpoint_name,
        host,
        transport=transport,
        max_requests=max_requests,
        run_id=run_id,
        is_proven=True,  # type: ignore[arg-type]
    )


def noise(count: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.1, 32000).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_two_processes_send_exactly_as_many_requests_as_they_may(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with start_local_endpoint(arrivals_log=log, options=[FAULTS]) as local:
        settings = settings_for(local, transport, 60, f"two processes over {transport}")
        SharedBudget.of(settings).begin()
        command = [sys.executable, "-c", SENDER, settings.name, settings.host, transport, "60", settings.run_id]
        processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        counts = [int(process.communicate(timeout=3 * PATIENCE_S)[0]) for process in processes]
    assert sum(counts) == 60
    assert SharedBudget.of(settings).left() == 0
    assert arrivals(log) == 60


@pytest.mark.parametrize("limit", [5, 8, 12])
def test_splits_and_retries_stay_within_it_and_what_is_left_is_no_failure(tmp_path: Path, limit: int) -> None:
    log = tmp_path / "arrivals.jsonl"
    clips = noise(24)
    bad = clip_digest(clips[6])
    faults = f"--faults=seed=3,503=0.1,reject_clips={bad}"
    with start_local_endpoint(arrivals_log=log, options=[faults]) as local:
        settings = settings_for(local, "grpc", limit, f"splits, {limit}")
        SharedBudget.of(settings).begin()
        with Client(settings, rate=LocalRate(), backoff=Backoff(base_s=0.001, cap_s=0.01)) as client:
            outcomes = embed(client, *(clips[start : start + 4] for start in range(0, 24, 4)))
    results = [result for outcome in outcomes for result in outcome.results]
    assert arrivals(log) == min(limit, sum(outcome.requests for outcome in outcomes)) <= limit
    for number, result in enumerate(results):
        assert result is None or isinstance(result, Refused if number == 6 else Embedded)
    for outcome in outcomes:
        assert (outcome.error is not None) == (None in outcome.results)
        assert outcome.error is None or isinstance(outcome.error, BudgetSpent)
    # Five requests, five for the four clips with a bad one, and two at most that are repeated.
    assert (None in results) == (limit < 10)
