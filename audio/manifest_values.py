"""What the columns of a manifest's row mean: which recording, and what is wanted of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Final, NamedTuple

from audio.listing import absolute_path
from audio.manifest_records import is_text, shortened
from audio.mix import CHANNEL_PATTERN
from audio.recording import Take

START, END, CHANNEL = "start_s", "end_s", "channel"
TAKE_COLUMNS: Final = (START, END, CHANNEL)
"""The columns that say what is wanted of a recording."""

LATEST_S: Final = 10_000_000
"""The latest time that is taken for one: longer than any recording."""

_SAMPLE_RATE_HZ: Final = 16_000
_GS: Final = "gs://"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,60}\.?[0-9]{0,60}|\.[0-9]{1,60})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_EXACT: Final = Context(prec=200)
"""Enough digits for any number that matches, times the sample rate."""
_TEMPLATE: Final = re.compile(r"(\{\{|\}\})|\{([^{}]+)\}|([^{}]+)|(.)", re.DOTALL)


class WrongValue(Exception):
    """A row of which nothing can be embedded: `code` is a word for tables, `uri` what is known of the recording's."""

    def __init__(self, code: str, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.uri = uri


class UriTemplate(NamedTuple):
    """A URI with columns' values in it: `gs://bucket/{uuid}.webm`; `{{` and `}}` stand for braces."""

    parts: tuple[tuple[str, bool], ...]
    """Texts, and whether each is the name of a column."""

    @classmethod
    def parse(cls, text: str) -> UriTemplate:
        """The template that `text` writes. Raises ValueError with what is wrong about it."""
        parts = []
        for brace, name, literal, stray in _TEMPLATE.findall(text):
            if stray:
                raise ValueError(
                    f"uri_template is {text!r}: it has a single {stray!r}; expected columns as {{name}}, and {stray * 2} for a brace"
                )
            parts.append((name, True) if name else (literal or brace[0], False))
        template = cls(tuple(parts))
        if not template.columns:
            raise ValueError(
                f"uri_template is {text!r}: it names no column; expected for example 'gs://bucket/{{uuid}}.webm'"
            )
        literal = "" if parts[0][1] else parts[0][0]
        if _SCHEME.match(literal) and not literal.startswith(_GS):
            raise ValueError(f"uri_template is {text!r}: expected a local path, or gs://bucket/name")
        return template

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns, each once."""
        return tuple(dict.fromkeys(text for text, is_column in self.parts if is_column))

    def fill(self, columns: Mapping[str, str]) -> str:
        """The URI of a row. Raises WrongValue where a value is missing or cannot be part of a URI."""
        return "".join(_present(columns, text) if is_column else text for text, is_column in self.parts)


def _present(columns: Mapping[str, str], name: str) -> str:
    value = columns.get(name, "")
    if not value or value.isspace():
        raise WrongValue("missing_value", f"column {shortened(name)} is empty: expected a part of the recording's URI")
    check_text(name, value)
    return value


def check_text(name: str, value: str) -> None:
    """Raises WrongValue where a value is not text that tables can hold; the message does not show it."""
    if not is_text(value):
        raise WrongValue(
            "malformed_value",
            f"the value of column {shortened(name)} holds a zero byte or is not valid Unicode: expected UTF-8 text",
        )


def raw_uri(columns: Mapping[str, str], name: str) -> str:
    """What stands in the column of URIs. Raises WrongValue where there is nothing."""
    value = columns.get(name, "")
    if not value or value.isspace():
        raise WrongValue(
            "missing_value", f"column {shortened(name)} is empty: expected a recording's path or gs://bucket/name"
        )
    if not is_text(value):
        printable = value.encode(errors="backslashreplace").decode()
        raise WrongValue(
            "malformed_value",
            f"column {shortened(name)} is {shortened(printable)}: it holds a zero byte or is not valid Unicode; "
            "expected UTF-8 text",
            printable.replace("\0", "\\x00"),
        )
    return value


def resolved_uri(raw: str, folder: str, said_by: str) -> str:
    """The absolute local path, or `gs://bucket/name`, that `raw` means in a manifest in `folder`.

    `.` and `..` have their usual meaning in relative URIs and local paths; a `gs://...` is taken as it is. `said_by`
    is for messages. Raises WrongValue for what is neither.
    """
    if raw.startswith(_GS):
        bucket, _, name = raw[len(_GS) :].partition("/")
        if not bucket or not name:
            raise WrongValue("malformed_value", f"{said_by} {shortened(raw)}: expected gs://bucket/name", raw)
        return raw
    if _SCHEME.match(raw):
        raise WrongValue(
            "malformed_value", f"{said_by} {shortened(raw)}: expected a local path, or gs://bucket/name", raw
        )
    if raw.startswith("/"):
        return absolute_path(raw)
    if folder.startswith(_GS):
        return _below(folder, raw, said_by)
    return absolute_path(f"{folder}/{raw}")


def _below(folder: str, relative: str, said_by: str) -> str:
    bucket, _, prefix = folder[len(_GS) :].partition("/")
    parts = prefix.split("/") if prefix else []
    for part in relative.split("/"):
        if part == "..":
            if not parts:
                raise WrongValue(
                    "malformed_value",
                    f"{said_by} {shortened(relative)}: it leads out of the manifest's bucket",
                    relative,
                )
            parts.pop()
        elif part != ".":
            parts.append(part)
    if not any(parts):
        raise WrongValue(
            "malformed_value", f"{said_by} {shortened(relative)}: expected the name of an object", relative
        )
    return f"{_GS}{bucket}/{'/'.join(parts)}"


def wanted(columns: Mapping[str, str], default_channel: str) -> Take:
    """What a row wants of its recording. Raises WrongValue."""
    channel = columns.get(CHANNEL, "").strip() or default_channel
    if not is_channel(channel):
        raise WrongValue(
            "malformed_value",
            f"column {CHANNEL!r} is {shortened(columns[CHANNEL])}: expected mean, each, or a channel's number from 0",
        )
    start, end = (columns.get(name, "").strip() for name in (START, END))
    if not start and not end:
        return Take(channel)
    for empty, value, other, given in ((START, start, END, end), (END, end, START, start)):
        if not value:
            raise WrongValue(
                "missing_value",
                f"column {empty!r} is empty, but {other!r} is {shortened(given)}: expected both for an event, or neither",
            )
    first, last = _samples(START, start), _samples(END, end)
    if first >= last:
        raise WrongValue(
            "contradictory_values",
            f"column {START!r} is {shortened(start)} and {END!r} is {shortened(end)}: expected the end to be later by "
            "one sample of 16 kHz at least",
        )
    return Take(channel, first, last)


def is_channel(text: str) -> bool:
    """Whether the text is `mean`, `each`, or a channel's number."""
    return re.fullmatch(CHANNEL_PATTERN, text) is not None


def _samples(name: str, text: str) -> int:
    """The 16 kHz sample nearest to a time in seconds; exactly between two, the even one."""
    expected = "expected seconds from the recording's start as one number, such as 80.5"
    if not _NUMBER.fullmatch(text):
        raise WrongValue("malformed_value", f"column {name!r} is {shortened(text)}: {expected}")
    seconds = Decimal(text)
    if seconds < 0:
        raise WrongValue("malformed_value", f"column {name!r} is {shortened(text)}: expected 0 or more")
    if seconds > LATEST_S:
        raise WrongValue("malformed_value", f"column {name!r} is {shortened(text)}: expected {LATEST_S} at most")
    return round(_EXACT.multiply(seconds, _SAMPLE_RATE_HZ))


def missing_columns(columns: Iterable[str], needed: Iterable[str]) -> list[str]:
    """Which of `needed` are not among `columns`, in their order."""
    there = set(columns)
    return [name for name in needed if name not in there]
