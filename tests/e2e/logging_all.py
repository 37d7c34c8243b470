"""The command as a program that logs all there is, and leaves the graph that it runs in a file.

`python -m tests.e2e.logging_all GRAPH_FILE OPTION...`: every logger is at DEBUG, those that are made later as well.
"""

from __future__ import annotations

import base64
import bz2
import logging
import re
import sys
import threading
from pathlib import Path
from typing import Any

_PICKLED = re.compile(rb"QlpoO[A-Za-z0-9+/]{20,}={0,2}")
"""Beam pickles functions, compresses them by bz2 and writes them in base64: this is how that begins."""


def write_graph(pipeline: Any, path: Path) -> None:
    """Writes what a runner is given: the graph's protobuf form, and beside it the pickles in it, uncompressed."""
    data = pipeline.to_runner_api().SerializeToString()
    path.write_bytes(data)
    for index, match in enumerate(_PICKLED.finditer(data)):
        path.with_name(f"{path.name}-pickle-{index}").write_bytes(bz2.decompress(base64.b64decode(match[0])))


def _log_everything(stop: threading.Event) -> None:
    while not stop.wait(0.1):
        for name in list(logging.root.manager.loggerDict):
            logging.getLogger(name).setLevel(logging.DEBUG)


def main() -> int:
    """Runs the command's own `main`; returns its exit status."""
    graph, *sys.argv[1:] = sys.argv[1:]
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    stop = threading.Event()
    threading.Thread(target=_log_everything, args=(stop,), daemon=True).start()

    import apache_beam

    from pipeline.__main__ import main as run

    run_pipeline = apache_beam.Pipeline.run

    def write_and_run(self: Any, *arguments: Any, **options: Any) -> Any:
        write_graph(self, Path(graph))
        return run_pipeline(self, *arguments, **options)

    apache_beam.Pipeline.run = write_and_run
    try:
        return run()
    finally:
        stop.set()
        logging.getLogger("tests").debug("the log works")


if __name__ == "__main__":
    sys.exit(main())
