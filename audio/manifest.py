"""A manifest: a table with one recording, or one annotated event of a recording, in each row."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from audio.listing import absolute_path
from audio.manifest_file import NOT_TEXT, Lines, ManifestError, open_lines
from audio.manifest_records import FORMATS, Format, Malformed, Record, Table, is_text, objects, shown
from audio.manifest_values import (
    END,
    START,
    TAKE_COLUMNS,
    UriTemplate,
    WrongValue,
    check_text,
    is_channel,
    missing_columns,
    raw_uri,
    resolved_uri,
    wanted,
)
from audio.recording import Take

__all__ = [
    "ManifestError",
    "ManifestHeader",
    "ManifestProblem",
    "ManifestRow",
    "ManifestSettings",
    "check_manifest",
    "read_manifest",
]

URI: Final = "uri"
"""The column of recordings' URIs, if no other is named."""


@dataclass(frozen=True)
class ManifestSettings:
    """Which manifest, and where its recordings' URIs are. Raises ValueError for what cannot be meant."""

    path: str
    """A local path, made absolute; or `gs://bucket/name`. The extension says the format, see FORMATS."""
    uri_column: str | None = None
    """The column that holds the URI; None for `uri`."""
    uri_template: str | None = None
    """Instead of such a column: a URI with columns' names in braces; `{{` and `}}` stand for braces."""
    channel: str = "mean"
    """What a row without a channel means: `mean`, `each`, or a channel's number from 0."""

    def __post_init__(self) -> None:
        if self.path.startswith("gs://"):
            if not re.fullmatch(r"gs://[^/]+/(?:.*[^/])?", self.path, re.DOTALL):
                raise ValueError(f"manifest is {self.path!r}: expected gs://bucket/name")
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", self.path) or not self.path:
            raise ValueError(f"manifest is {self.path!r}: expected a local path or gs://bucket/name")
        else:
            object.__setattr__(self, "path", absolute_path(self.path))  # workers may be in another folder
        if self._format is None:
            raise ValueError(
                f"manifest is {self.path!r}: expected a name that ends in {', '.join(FORMATS)}, or one of these and .gz"
            )
        if self.uri_column is not None and self.uri_template is not None:
            raise ValueError("uri_template is given, and uri_column too: expected one of them")
        if self.uri_column is not None and (not self.uri_column or self.uri_column in TAKE_COLUMNS):
            raise ValueError(
                f"uri_column is {self.uri_column!r}: expected the name of the column with the recordings' URIs"
            )
        if self.uri_template is not None:
            UriTemplate.parse(self.uri_template)
        if not is_channel(self.channel):
            raise ValueError(f"channel is {self.channel!r}: expected mean, each, or a channel's number from 0")

    @property
    def format(self) -> Format:
        """What the extension says."""
        assert self._format is not None
        return self._format

    @property
    def _format(self) -> Format | None:
        name = self.path.rpartition("/")[2].lower().removesuffix(".gz")
        return next((FORMATS[ending] for ending in FORMATS if name.endswith(ending)), None)

    @property
    def folder(self) -> str:
        """What relative URIs are relative to."""
        return self.path.rpartition("/")[0]

    @property
    def template(self) -> UriTemplate | None:
        """`uri_template`, parsed."""
        return None if self.uri_template is None else UriTemplate.parse(self.uri_template)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The columns that are this project's own: all others are metadata."""
        return TAKE_COLUMNS if self.uri_template is not None else (self.uri_column or URI, *TAKE_COLUMNS)


class ManifestHeader(NamedTuple):
    """What is known of a manifest before it is read."""

    columns: tuple[str, ...] | None
    """The metadata columns, in the file's order; None for JSON lines, where rows may differ."""


class ManifestRow(NamedTuple):
    """A row of which something is to be embedded."""

    row: int
    """The data row's number, from 1; rows with problems count, blank lines do not."""
    line: int
    """The line of the file where the row begins, from 1."""
    uri: str
    """`gs://bucket/name`, or a local path from the root; never a glob."""
    take: Take
    metadata: tuple[tuple[str, str], ...]
    """Names and values of all other columns, in the file's order, as they stand there."""
    digest: str
    """16 hex digits of all columns, as they stand there: only rows with equal digests (of one recording) merge."""

    def __repr__(self) -> str:
        return f"ManifestRow(row={self.row}, line={self.line}, uri={self.uri!r}, take={self.take!r})"


class ManifestProblem(NamedTuple):
    """A row of which nothing can be embedded."""

    row: int
    line: int
    uri: str
    """As far as it is known, or empty."""
    code: str
    """`missing_value`, `malformed_value`, `contradictory_values`, `malformed_row`."""
    message: str


def check_manifest(settings: ManifestSettings) -> ManifestHeader:
    """Reads a manifest's beginning, so that what is wrong with all of it is said before a run begins.

    Raises ManifestError.
    """
    with open_lines(settings.path) as lines:
        if settings.format == "jsonl":
            _check_first_object(settings, lines)
            return ManifestHeader(None)
        table = _table(settings, lines)
        if next(table.records(), None) is None:
            raise ManifestError(
                f"the manifest {settings.path!r} has a header, but no rows: expected one for each recording"
            )
        return ManifestHeader(tuple(name for name in table.names if name not in settings.own_columns))


def read_manifest(settings: ManifestSettings) -> Iterator[ManifestRow | ManifestProblem]:
    """Yields a manifest's rows while it is read, one by one.

    Raises ManifestError where it cannot be used at all, and where it cannot be read to its end: half a manifest must
    not be taken for a whole one.
    """
    template = settings.template
    with open_lines(settings.path) as lines:
        records = objects(lines) if settings.format == "jsonl" else _table(settings, lines).records()
        for record in records:
            if isinstance(record, Malformed):
                message = f"line {record.line}: {record.why}"
                yield ManifestProblem(record.row, record.line, "", "malformed_row", message)
            else:
                yield _row(record, settings, template)


def _row(record: Record, settings: ManifestSettings, template: UriTemplate | None) -> ManifestRow | ManifestProblem:
    row, line, columns, _ = record
    own = settings.own_columns
    uri = ""
    try:
        if template is None:
            uri = resolved_uri(raw_uri(columns, own[0]), settings.folder, f"column {own[0]!r} is")
        else:
            uri = resolved_uri(template.fill(columns), settings.folder, "uri_template gives")
        digest = _digest(columns)
        take = wanted(columns, settings.channel)
    except WrongValue as wrong:
        return ManifestProblem(row, line, wrong.uri or uri, wrong.code, f"line {line}: {wrong.message}")
    metadata = tuple((name, value) for name, value in columns.items() if name not in own)
    return ManifestRow(row, line, uri, take, metadata, digest)


def _digest(columns: dict[str, str]) -> str:
    # Lengths keep names and values apart; objects of JSON lines are equal in whatever order their keys are.
    text = "".join(f"{len(name)}:{name}{len(value)}:{value}" for name, value in sorted(columns.items()))
    if not is_text(text):
        for name, value in columns.items():
            check_text(name, value)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _table(settings: ManifestSettings, lines: Lines) -> Table:
    """The file as a table whose header is as it must be. Raises ManifestError."""
    assert settings.format != "jsonl"
    table = Table(settings.path, lines, settings.format)
    _check_names(settings, table.names)
    _check_columns(settings, table.names)
    return table


def _check_names(settings: ManifestSettings, names: tuple[str, ...]) -> None:
    manifest = f"the manifest {settings.path!r}"
    for place, name in enumerate(names, 1):
        if NOT_TEXT in name:
            raise ManifestError(f"{manifest} has zero bytes in its header; is it UTF-16 text? Save it as UTF-8")
        if not is_text(name):
            raise ManifestError(f"{manifest} has a header that is not valid UTF-8: save it as UTF-8")
        if not name.strip():
            raise ManifestError(
                f"{manifest} has a column without a name, number {place} of {len(names)}: name it, or leave it out "
                "(as pandas does with index=False)"
            )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ManifestError(f"{manifest} has the column {shown(twice)} more than once: expected each once")


def _check_columns(settings: ManifestSettings, names: tuple[str, ...]) -> None:
    manifest, there = (
        f"the manifest {settings.path!r}",
        f"its columns are {shown(names)}{_delimiter_hint(settings, names)}",
    )
    if settings.template is not None:
        if absent := missing_columns(names, settings.template.columns):
            raise ManifestError(f"{manifest} has no column {shown(absent)}, which uri_template names: {there}")
    elif absent := missing_columns(names, settings.own_columns[:1]):
        raise ManifestError(
            f"{manifest} has no column {shown(absent)}: {there}; name the column of the recordings' URIs with --uri_column, or "
            "build them from others with --uri_template"
        )
    if len(absent := missing_columns(names, (START, END))) == 1:
        raise ManifestError(
            f"{manifest} has no column {shown(absent)}: expected both {START!r} and {END!r}, or neither; {there}"
        )


def _delimiter_hint(settings: ManifestSettings, names: tuple[str, ...]) -> str:
    """What to say where a header seems to be separated by something else."""
    separators = {";": "semicolons", "\t": "tabs", ",": "commas"}
    if settings.format == "jsonl" or len(names) != 1:
        return ""
    used = next((said for separator, said in separators.items() if separator in names[0]), None)
    expected = (
        "commas, or tabs in a file that ends in .tsv"
        if settings.format == "csv"
        else "tabs, or commas in a file that ends in .csv"
    )
    return f" (separated by {used}? Expected {expected})" if used else ""


def _check_first_object(settings: ManifestSettings, lines: Lines) -> None:
    manifest = f"the manifest {settings.path!r}"
    first = next(objects(lines), None)
    if first is None:
        raise ManifestError(f"{manifest} is empty: expected one JSON object a line")
    if isinstance(first, Malformed):
        raise ManifestError(f"{manifest} does not begin with a JSON object: line {first.line}: {first.why}")
    _check_columns(settings, (*first.columns, *first.nulls))
