"""Submits batches to a client and waits for what becomes of them."""

from __future__ import annotations

import threading

import numpy as np

from endpoint.client import Client
from endpoint.results import Outcome

PATIENCE_S = 20.0


def embed(client: Client, *batches: list[np.ndarray]) -> list[Outcome]:
    """The outcomes of these batches, in order."""
    outcomes: dict[int, Outcome] = {}
    finished = threading.Semaphore(0)

    def submit(position: int, batch: list[np.ndarray]) -> None:
        def take(outcome: Outcome) -> None:
            outcomes[position] = outcome
            finished.release()

        client.submit(batch, take)

    for position, batch in enumerate(batches):
        submit(position, batch)
    for _ in batches:
        assert finished.acquire(timeout=PATIENCE_S)
    return [outcomes[position] for position in range(len(batches))]
