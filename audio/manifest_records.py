"""A manifest's lines to records: the columns of each data row as text, or why a row has none."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from audio.manifest_file import MAX_LINE, Lines, LineTooLong, ManifestError

Format = Literal["csv", "tsv", "jsonl"]

FORMATS: Final[dict[str, Format]] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""By extension; each may be followed by .gz."""

MAX_FIELD: Final = 1 << 20
"""Characters of the longest value of a CSV or TSV file: a quote that is never closed must not swallow all that follows."""

_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
_SHOWN: Final = 20
_DEEPEST: Final = 100
"""Levels of lists and objects within a JSON value."""


class Record(NamedTuple):
    """A data row's columns, in the order of the file."""

    row: int
    """The data row's number, from 1: rows that cannot be read count, blank lines do not."""
    line: int
    """The line of the file where it begins, from 1."""
    columns: dict[str, str]
    nulls: tuple[str, ...] = ()
    """Keys of an object whose value is null: to this row, columns that are not there."""

    def __repr__(self) -> str:
        return f"Record(row={self.row}, line={self.line}, columns={list(self.columns)})"


class Malformed(NamedTuple):
    """A data row that has no columns."""

    row: int
    line: int
    why: str
    """What is wrong and what is expected, without any value."""


class _WrongJson(Exception):
    pass


def shown(names: list[str] | tuple[str, ...]) -> str:
    """Names of columns for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(shortened, names[:_SHOWN])) + more


def shortened(text: str, most: int = 60) -> str:
    """What stands for a text in a message."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text)} characters)"


class Table:
    """The header and records of a CSV or TSV file.

    Quotes are taken strictly: a field whose closing quote is followed by anything but a delimiter is an error of its
    row, rather than some guess at its value. Raises ManifestError where there is no header.
    """

    def __init__(self, path: str, lines: Lines, kind: Literal["csv", "tsv"]) -> None:
        self._lines = lines
        if csv.field_size_limit() < MAX_FIELD:
            csv.field_size_limit(MAX_FIELD)
        self._reader = csv.reader(lines, delimiter=_DELIMITERS[kind], strict=True)
        self.names: tuple[str, ...] = tuple(self._header(path))

    def _header(self, path: str) -> list[str]:
        line, header = 1, None
        for line, header in self._fields():  # noqa: B007
            break
        if header is None:
            raise ManifestError(f"the manifest {path!r} is empty: expected a header with the columns' names, and rows")
        if isinstance(header, str):
            raise ManifestError(f"the manifest {path!r} has no header that can be read: line {line}: {header}")
        return header

    def records(self) -> Iterator[Record | Malformed]:
        """All data rows after the header. Raises ManifestError where the file cannot be read on."""
        for row, (line, fields) in enumerate(self._fields(), 1):
            if isinstance(fields, str):
                yield Malformed(row, line, fields)
            elif len(fields) != len(self.names):
                have, names = len(fields), len(self.names)
                yield Malformed(
                    row,
                    line,
                    f"the row has {have} {'field' if have == 1 else 'fields'}, the header {names}: expected as many; "
                    "quote values that hold the delimiter",
                )
            else:
                yield Record(row, line, dict(zip(self.names, fields, strict=True)))

    def _fields(self) -> Iterator[tuple[int, list[str] | str]]:
        """Each row's first line, and its fields or why there are none; blank lines left out."""
        while True:
            line = self._lines.number + 1
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except LineTooLong:
                yield line, _too_long(line, self._lines.number)
            except csv.Error as error:
                yield line, self._why(line, str(error))
            else:
                if fields and not (len(fields) == 1 and fields[0].isspace()):
                    yield line, fields

    def _why(self, line: int, error: str) -> str:
        if self._lines.ended:
            return (
                "a quoted value begins in this row that never ends, and swallows the rest of the file; close the quotes"
            )
        if "limit" in error:
            return (
                f"a value has more than {MAX_FIELD} characters; is a quote not closed? "
                f"Lines {line} to {self._lines.number} are taken for this one row"
            )
        return "text follows a closing quote; expected quotes within a quoted value to be doubled"


def objects(lines: Lines) -> Iterator[Record | Malformed]:
    """All rows of a file of JSON lines. Raises ManifestError where the file cannot be read on.

    Values are texts: strings themselves, numbers as they are written, `true` and `false`, objects and lists as compact
    JSON; a null is left out.
    """
    row = 0
    while True:
        number = lines.number + 1
        try:
            line = next(lines)
        except StopIteration:
            return
        except LineTooLong:
            row += 1
            yield Malformed(row, number, _too_long(number, lines.number))
            continue
        if line.isspace():
            continue
        row += 1
        try:
            columns = _columns(line)
        except _WrongJson as error:
            yield Malformed(row, number, str(error))
        else:
            nulls = tuple(name for name, value in columns.items() if value is None)
            there = {name: value for name, value in columns.items() if value is not None}
            yield Record(row, number, there, nulls)


def _too_long(first: int, line: int) -> str:
    where = "the line" if first == line else f"line {line}"
    return f"{where} has more than {MAX_LINE} characters; expected less, and line ends between rows"


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object's keys and values, in order, whether or not a key is there twice."""

    __slots__ = ()


def _no_number(name: str) -> Any:
    raise _WrongJson(f"the row is not valid JSON: {name} is not part of it; expected a number, a string, or null")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_no_number
)


def _columns(line: str) -> dict[str, str | None]:
    try:
        pairs = _DECODER.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        at = f"at character {error.pos + 1}"
        raise _WrongJson(f"the row is not valid JSON {at}: expected one object a line, such as {{...}}") from None
    except RecursionError:
        raise _WrongJson("the row is not JSON that can be read: its values are nested too deeply") from None
    if not isinstance(pairs, _Object):
        raise _WrongJson('the row is JSON, but not an object: expected one object a line, such as {"uri": "a.wav"}')
    columns: dict[str, str | None] = {}
    for name, value in pairs:
        if name in columns:
            raise _WrongJson(f"the row has the key {shortened(name)} twice: expected each once")
        if not name or not is_text(name):
            raise _WrongJson(
                f"the row has the key {shortened(name)}: expected a name, in valid Unicode without zero bytes"
            )
        try:
            columns[name] = value if value is None or type(value) is str else _as_text(value)
        except _WrongJson as error:
            raise _WrongJson(f"the value of {shortened(name)} {error}") from None
    return columns


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, _Number) else _compact(value, 1)


def _compact(value: Any, depth: int) -> str:
    if depth > _DEEPEST:
        raise _WrongJson(f"is nested more than {_DEEPEST} levels deep: expected less")
    match value:
        case _Number():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case _Object():
            if len({key for key, _ in value}) < len(value):
                raise _WrongJson("has an object with one key twice: expected each once")
            return (
                "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_compact(v, depth + 1)}" for k, v in value) + "}"
            )
        case _:
            return "[" + ",".join(_compact(inner, depth + 1) for inner in value) + "]"


def is_text(text: str) -> bool:
    """Whether a table can hold the text: it has no zero byte, and nothing that is not Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
