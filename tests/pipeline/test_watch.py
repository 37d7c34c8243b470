import io
import threading
from collections import Counter

import pytest
from rich.console import Console

from pipeline.watch import progress_line, watching
from transforms.progress import Progress


@pytest.mark.parametrize(
    ("counts", "elapsed_s", "line"),
    [
        ({"recordings": 1234, "embedded": 3456}, 8.0, "1,234 recordings, 3,456 clips embedded, 432 clips/s"),
        (
            {"embedded": 4, "failed": 7, "retries": 1},
            4.0,
            "0 recordings, 4 clips embedded, 7 failed, 1 retries, 1 clips/s",
        ),
        ({"recordings": 1}, 0.0, "1 recordings, 0 clips embedded, 0 clips/s"),
    ],
)
def test_the_line_says_what_was_done_and_how_fast(counts: dict[str, int], elapsed_s: float, line: str) -> None:
    assert progress_line(Counter(counts), elapsed_s) == line


class Terminal(io.StringIO):
    """Takes what is shown, and says when a text has been."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.shown = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self.shown.set()
        return written


def test_a_terminal_is_shown_what_was_counted_since_the_beginning() -> None:
    progress, terminal = Progress(), Terminal("2 recordings, 6 clips embedded, 3 clips/s")
    progress.add("embedded", 1000)
    times = iter([100.0])
    with watching(progress, Console(file=terminal, force_terminal=True, width=120), lambda: next(times, 102.0)):
        progress.add("recordings", 2)
        progress.add("embedded", 6)
        assert terminal.shown.wait(30)


def running() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def fail_while_watched(console: Console) -> None:
    with watching(Progress(), console):
        assert "progress" in running()
        raise ZeroDivisionError


def test_the_watch_ends_with_the_run_however_that_ends() -> None:
    output = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        fail_while_watched(Console(file=output))
    assert "progress" not in running()
    assert output.getvalue() == ""
