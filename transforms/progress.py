"""How far this process is: counts for whoever watches a run that blocks, as Beam's local runner does."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final


class Progress:
    """Counts by name; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, by: int) -> None:
        """Counts `by` more of `name`."""
        with self._lock:
            self._counts[name] += by

    def counts(self) -> Counter[str]:
        """The counts so far."""
        with self._lock:
            return self._counts.copy()


NAMESPACE: Final = "embed"
"""Of the metrics that say how far a job on Dataflow is."""

PROGRESS: Final = Progress()
"""Of this process: all its bundles count here, whatever their thread."""
