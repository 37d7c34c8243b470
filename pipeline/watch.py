"""Says on standard error how far the run is, while Beam's local runner blocks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from transforms.progress import Progress

_TERMINAL_S = 0.5
_LOG_S = 30.0


def progress_line(counts: Counter[str], elapsed_s: float) -> str:
    """`1,234 recordings, 3,456 clips embedded, 7 failed, 432 clips/s`; with `written` instead, or as well, where that is done."""
    rate = (counts["embedded"] + counts["written"]) / elapsed_s if elapsed_s > 0 else 0.0
    done = [f"{counts[name]:,} clips {name}" for name in ("embedded", "written") if counts[name]] or [
        "0 clips embedded"
    ]
    failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
    retries = f", {counts['retries']:,} retries" if counts["retries"] else ""
    return f"{counts['recordings']:,} recordings, {', '.join(done)}{failed}{retries}, {rate:,.0f} clips/s"


@contextmanager
def watching(progress: Progress, console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """While the context is open: one changing line on a terminal, a line now and then elsewhere.

    Counts are those of this process since it was opened. Worker processes have their own, which are not seen here:
    then nothing is said.
    """
    before, started_s = progress.counts(), clock()
    over = threading.Event()

    def line() -> str | None:
        counts = progress.counts()
        counts.subtract(before)
        return progress_line(counts, clock() - started_s) if counts.total() else None

    def log() -> None:
        while not over.wait(_LOG_S):
            if said := line():
                console.print(said, highlight=False)

    def update() -> None:
        with console.status("starting") as status:
            while not over.wait(_TERMINAL_S):
                if said := line():
                    status.update(said)

    thread = threading.Thread(target=update if console.is_terminal else log, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
