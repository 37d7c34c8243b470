"""Errors that are said in one line by whoever launched the run: their stack traces are kept off logs and terminals."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Final, TextIO

KNOWN_ERROR: Final = re.compile(
    r"(?:^|\\n|\n)(?:audio\.listing\.\w+|audio\.manifest\w*\.\w+|audio\.decoder\w*\.Decoders(?:Closed|Unusable)|audio\.tensorflow_resampler\.\w+"
    r"|endpoint\.errors\.\w+"
    r"|rows\.checkpoint\.DamagedRecord|rows\.writer\.\w+|rows\.store\.\w+"
    r"|transforms\.bigquery_jobs\.\w+|transforms\.files\.\w+|transforms\.staged_objects\.\w+"
    r"|transforms\.choose_rows\.LostClip): (?P<message>.+?)(?: \[while running .*)?(?:\\n.*)?(?:$|\n)"
)
"""In a stack trace, or in one whose line ends are written as `\\n`, as worker processes log it."""

INTERRUPT: Final = re.compile(r"(?:^|\\n|\n|: )(?:builtins\.)?KeyboardInterrupt(?:$|:|\\n|\n| \[while running)")

LOAD_ERROR: Final = re.compile(r"\[while running \\*'Write to BigQuery/Load (?P<kind>\w+)/|bigquery_file_loads\.py")
"""Beam's own steps that load rows into BigQuery fail with what its clients raise, some of it without the step's name."""

_NOISE: Final = "No semi_persistent_directory found"
"""Each of Beam's local worker processes says so, of a folder that only containers have."""

_WORKER: Final = "HEAR_PIPELINE_WORKER"


def is_known(text: str) -> bool:
    """Whether `text` is about what is, or need not be, said in one line."""
    return bool(KNOWN_ERROR.search(text) or LOAD_ERROR.search(text) or INTERRUPT.search(text) or _NOISE in text)


class QuietLog(logging.Filter):
    """Drops records about known errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            kind = type(record.exc_info[1])
            text += f"\n{kind.__module__}.{kind.__qualname__}: {record.exc_info[1]}\n"
            text += "".join(traceback.format_tb(record.exc_info[2]))
        return not is_known(text)


class _QuietText:
    """A text stream that drops known errors' traces, which Beam's workers print in one piece."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if is_known(text) else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _show_unless_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A terminal sends Ctrl-C to workers too; the command says what there is to say."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def mark_workers() -> None:
    """Lets worker processes that are started from now on know that they are this command's."""
    os.environ[_WORKER] = "1"


def quiet_worker() -> None:
    """Keeps traces of known errors off the terminal, in a worker process that the command started itself."""
    if os.environ.get(_WORKER) and not isinstance(sys.stderr, _QuietText):
        sys.stderr = _QuietText(sys.stderr)
        sys.excepthook = _show_unless_interrupted
