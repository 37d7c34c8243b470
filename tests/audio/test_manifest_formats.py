"""Manifests as files: CSV, TSV and JSON lines as others write them, damaged ones, and ones of any length."""

import csv
import gzip
import io
import itertools
import json
import math
import re
import tracemalloc
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audio.manifest_file
import audio.manifest_records
from audio.manifest import (
    ManifestError,
    ManifestHeader,
    ManifestProblem,
    ManifestRow,
    ManifestSettings,
    check_manifest,
    read_manifest,
)
from tests.audio.manifests import bad, good, read, write

CSV_NAMES = ("m.csv", "m.csv.gz", "m.tsv", "m.tab.gz")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.text(
    "\"',;\t\r\n \ufeff\u2028\x85é🤧a\\", max_size=8
)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    str.strip
)
SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def check(path: Path, **given: str) -> ManifestHeader:
    return check_manifest(ManifestSettings(str(path), **given))


def refusal(path: Path, **given: str) -> str:
    """What is said of a manifest that is refused before a run."""
    with pytest.raises(ManifestError) as caught:
        check(path, **given)
    message = str(caught.value)
    assert message.startswith(f"the manifest {str(path)!r} ")
    assert "\n" not in message
    return message


# Round trips, and a second reader


@SLOW
@given(st.data())
@pytest.mark.parametrize("name", ["m.csv", "m.tab.gz"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tables_are_read_as_they_were_written(tmp_path: Path, name: str, quoting: int, data: st.DataObject) -> None:
    names = data.draw(
        st.lists(NAME.filter(lambda n: n not in ("uri", "start_s", "end_s", "channel")), unique=True, max_size=3)
    )
    names.insert(data.draw(st.integers(0, len(names))), "uri")
    rows = data.draw(st.lists(st.tuples(*[TEXT if n != "uri" else st.just("a.wav") for n in names]), max_size=4))
    # Python's writer quotes line ends only if they are its own.
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\r"] if quoting == csv.QUOTE_ALL else ["\r\n"]))
    text = io.StringIO()
    delimiter = "," if ".csv" in name else "\t"
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows([names, *rows])
    mark = "\ufeff" if names[0].startswith("\ufeff") else data.draw(st.sampled_from(["", "\ufeff"]))
    written = mark + text.getvalue()
    path = write(tmp_path / name, written if data.draw(st.booleans()) else written.removesuffix(line_end))
    expected = [tuple((n, v) for n, v in zip(names, row, strict=True) if n != "uri") for row in rows]
    assert [row.metadata for row in good(path)] == expected
    if rows:
        assert check(path) == ManifestHeader(tuple(n for n in names if n != "uri"))


@SLOW
@given(
    st.lists(
        st.dictionaries(
            NAME.filter(lambda n: n not in ("uri", "start_s", "end_s", "channel")), st.none() | TEXT, max_size=4
        ),
        max_size=4,
    ),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n \n"]),
    st.sampled_from(["m.jsonl", "m.ndjson.gz"]),
)
def test_json_lines_are_read_as_they_were_written(
    tmp_path: Path, rows: list[dict[str, str | None]], ascii_only: bool, line_end: str, name: str
) -> None:
    text = line_end.join(json.dumps({"uri": "a.wav", **row}, ensure_ascii=ascii_only) for row in rows)
    path = write(tmp_path / name, text)
    expected = [tuple((key, value) for key, value in row.items() if value is not None) for row in rows]
    assert [row.metadata for row in good(path)] == expected
    assert [row.row for row in good(path)] == list(range(1, len(rows) + 1))


@SLOW
@given(
    st.recursive(
        st.booleans() | st.integers() | st.none() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
    )
)
def test_nested_values_are_compact_json(tmp_path: Path, value: object) -> None:
    (row,) = good(write(tmp_path / "m.jsonl", json.dumps({"uri": "a.wav", "x": value}, indent=None)))
    metadata = dict(row.metadata)
    if isinstance(value, str):
        assert metadata == {"x": value}
    elif value is None:
        assert metadata == {}
    else:
        assert metadata == {"x": json.dumps(value, ensure_ascii=False, separators=(",", ":"))}


def test_pandas_reads_the_same(tmp_path: Path) -> None:
    text = (
        'id,uri,"a ""quoted"" name",note,start_s,end_s\r\n'
        '00123,a.wav,x,"two\nlines, and a comma",0.50,1\r\n'
        "\r\n"
        '7,"b ""1"".wav",,NA,,\r\n'
        "   \r\n"
        "-0,🤧.wav, spaced ,'single',1e1,20\r\n"
    )
    path = write(tmp_path / "m.csv", text)
    frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    rows = good(path)
    assert [row.uri for row in rows] == [f"{tmp_path}/{uri}" for uri in frame["uri"]]
    assert [row.row for row in rows] == list(frame.index + 1)
    assert [row.line for row in rows] == [2, 5, 7]
    for row, (_, expected) in zip(rows, frame.drop(columns=["uri", "start_s", "end_s"]).iterrows(), strict=True):
        assert dict(row.metadata) == expected.to_dict()
    assert [None if not text else float(text) * 16_000 for text in frame["end_s"]] == [row.take.stop for row in rows]


@pytest.mark.parametrize("name", [*CSV_NAMES, "m.jsonl"])
def test_what_pandas_writes(tmp_path: Path, name: str) -> None:
    frame = pandas.DataFrame(
        {"uri": ["a.wav", "b.wav"], "note": ['say "ah"', "tab\tcomma,\nline"], "age": [1.5, math.nan]}
    )
    if "json" in name:
        frame.to_json(tmp_path / name, orient="records", lines=True)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="," if ".csv" in name else "\t")
    first, second = good(tmp_path / name)
    assert first.metadata == (("note", 'say "ah"'), ("age", "1.5"))
    assert dict(second.metadata)["note"] == "tab\tcomma,\nline"
    assert dict(second.metadata).get("age", "") == ""


# JSON lines


def test_json_values_become_text(tmp_path: Path) -> None:
    line = (
        '{"uri":"a.wav","a":1.50,"b":-0,"c":1E+2,"d":123456789012345678901234567890.10,"e":true,"f":false,"g":null,"h":"",'
        '"i":[1.50, {"k" : "\\u00e9"}],"start_s":0.50,"end_s":"1","channel":0,"j":"\\ud83e\\udd27"}'
    )
    (row,) = good(write(tmp_path / "m.jsonl", line))
    assert row.metadata == (
        ("a", "1.50"),
        ("b", "-0"),
        ("c", "1E+2"),
        ("d", "123456789012345678901234567890.10"),
        ("e", "true"),
        ("f", "false"),
        ("h", ""),
        ("i", '[1.50,{"k":"é"}]'),
        ("j", "🤧"),
    )
    assert (row.take.channel, row.take.start, row.take.stop) == ("0", 8_000, 16_000)
    assert all(type(value) is str for _, value in row.metadata)


def test_keys_may_differ_from_line_to_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl", '{"uri":"a","x":1}\n{"end_s":2,"y":"2","uri":"b","start_s":1}\n{"uri":null,"x":3}\n'
    )
    first, second, third = read(path)
    assert isinstance(first, ManifestRow)
    assert isinstance(second, ManifestRow)
    assert (first.metadata, second.metadata) == ((("x", "1"),), (("y", "2"),))
    assert isinstance(third, ManifestProblem)
    assert (third.code, third.line) == ("missing_value", 3)
    assert check(path) == ManifestHeader(None)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('{"uri": "a", PRIVATE}', "malformed_row", "not valid JSON at character 14: expected one object a line"),
        ('{"uri": "a"', "malformed_row", "not valid JSON at character 12"),
        ('{"uri": "a"} {"uri": "PRIVATE"}', "malformed_row", "not valid JSON at character 14"),
        ("{'uri': 'PRIVATE'}", "malformed_row", "not valid JSON"),
        ('["PRIVATE"]', "malformed_row", "not an object: expected one object a line"),
        ('"PRIVATE"', "malformed_row", "not an object"),
        ("7", "malformed_row", "not an object"),
        ("null", "malformed_row", "not an object"),
        ('{"uri": "a", "x": NaN}', "malformed_row", "NaN is not part of it"),
        ('{"uri": "a", "x": [-Infinity]}', "malformed_row", "-Infinity is not part of it"),
        ('{"uri": "a", "x": 1, "x": 1}', "malformed_row", "the key 'x' twice"),
        ('{"uri": "a", "x": null, "x": 1}', "malformed_row", "the key 'x' twice"),
        (
            '{"uri": "a", "x": {"PRIVATE": 1, "PRIVATE": 2}}',
            "malformed_row",
            "value of 'x' has an object with one key twice",
        ),
        ('{"uri": "a", "": 1}', "malformed_row", "the key ''"),
        ('{"uri": "a", "\\u0000": 1}', "malformed_row", "the key '\\x00': expected a name"),
        ('{"uri": "a", "x": ' + "[" * 100_000, "malformed_row", "nested too deeply"),
        ('{"uri": "a", "x": ' + "[" * 99 + "1" + "]" * 99 + "}", None, ""),
        (
            '{"uri": "a", "x": ' + "[" * 101 + "]" * 101 + "}",
            "malformed_row",
            "value of 'x' is nested more than 100 levels",
        ),
        ('{"uri": "a", "x": "PRIVATE\\u0000"}', "malformed_value", "column 'x' holds a zero byte"),
        (
            '{"uri": "a", "x": "PRIVATE\\ud800"}',
            "malformed_value",
            "column 'x' holds a zero byte or is not valid Unicode",
        ),
        ('{"uri": "a", "x": "PRIVATE\t"}', "malformed_row", "not valid JSON"),
        ('{"uri": "a", "start_s": true, "end_s": 2}', "malformed_value", "column 'start_s' is 'true'"),
        ('{"uri": "a", "start_s": [1], "end_s": 2}', "malformed_value", "column 'start_s' is '[1]'"),
        ('{"uri": "a", "start_s": 1}', "missing_value", "column 'end_s' is empty"),
        ('{"uri": "a", "start_s": 1, "end_s": null}', "missing_value", "column 'end_s' is empty"),
        ('{"x": "PRIVATE"}', "missing_value", "column 'uri' is empty"),
    ],
)
def test_lines_that_cannot_be_meant(tmp_path: Path, line: str, code: str | None, said: str) -> None:
    before, found, after = read(write(tmp_path / "m.jsonl", f'{{"uri":"x"}}\n\n{line}\n{{"uri":"y"}}\n'))
    assert isinstance(before, ManifestRow)
    assert isinstance(after, ManifestRow)
    assert (after.row, after.line) == (3, 4)
    if code is None:
        assert isinstance(found, ManifestRow)
    else:
        assert isinstance(found, ManifestProblem)
        assert (found.row, found.line, found.code) == (2, 3, code)
        assert found.message.startswith("line 3: ")
        assert said in found.message
        assert "PRIVATE" not in found.message


def test_bytes_of_another_encoding_in_json_lines(tmp_path: Path) -> None:
    (found,) = bad(write(tmp_path / "m.jsonl", b'{"uri":"a.wav","x":"caf\xe9"}\n{"uri":"b.wav"}'))
    assert (found.code, found.uri) == ("malformed_value", f"{tmp_path}/a.wav")
    assert "column 'x'" in found.message


# Rows of tables that cannot be meant


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.wav", "the row has 1 field, the header 2: expected as many"),
        ("a.wav,PRIVATE,PRIVATE", "the row has 3 fields, the header 2"),
        ("a.wav,PRIVATE,", "the row has 3 fields"),
        ('a.wav,"PRIVATE"PRIVATE', "text follows a closing quote"),
        ('a.wav,"PRIVATE" ', "text follows a closing quote"),
        ('a.wav,"say \\"PRIVATE\\""', "text follows a closing quote"),
    ],
)
@pytest.mark.parametrize("name", CSV_NAMES)
def test_rows_that_cannot_be_meant(tmp_path: Path, row: str, said: str, name: str) -> None:
    text = f"uri,x\nb.wav,\n{row}\nc.wav,\n"
    before, found, after = read(write(tmp_path / name, text if ".csv" in name else text.replace(",", "\t")))
    assert isinstance(before, ManifestRow)
    assert isinstance(after, ManifestRow)
    assert (after.row, after.line) == (3, 4)
    assert isinstance(found, ManifestProblem)
    assert (found.row, found.line, found.uri, found.code) == (2, 3, "", "malformed_row")
    assert found.message.startswith(f"line 3: {said}")
    assert "PRIVATE" not in found.message


def test_quotes_within_a_value_that_is_not_quoted_are_text(tmp_path: Path) -> None:
    (row,) = good(write(tmp_path / "m.csv", 'uri,x\na.wav,5" floppy ""\n'))
    assert row.metadata == (("x", '5" floppy ""'),)


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", 'uri,x\na.wav,"1\n2"\nb.wav,"PRIVATE\nc.wav,3\nd.wav,4\n')
    fine, found = read(path)
    assert (fine.row, fine.line) == (1, 2)
    assert isinstance(found, ManifestProblem)
    assert (found.row, found.line, found.code) == (2, 4, "malformed_row")
    assert re.match("line 4: a quoted value begins in this row that never ends, and swallows the rest", found.message)
    assert "PRIVATE" not in found.message


def test_a_quote_that_is_not_closed_for_long(tmp_path: Path) -> None:
    rows = [f"{number}.wav,x" for number in range(130_000)]
    rows[9] = '9.wav,"x'
    path = write(tmp_path / "m.csv", "\n".join(["uri,x", *rows]))
    (found,) = bad(path)
    assert (found.row, found.line, found.code) == (10, 11, "malformed_row")
    last = int(re.search(r"Lines 11 to (\d+) are taken for this one row", found.message).group(1))  # type: ignore[union-attr]
    assert "more than 1048576 characters" in found.message
    lost = "\n".join(rows[9 : last - 1])
    assert 1 << 20 <= len(lost) < (1 << 20) + 50
    assert len(read(path)) == 130_000 - (last - 11)


def test_a_long_value_is_no_problem_and_a_too_long_one_is_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"uri,x\na.wav,{'x' * (1 << 20)}\nb.wav,{'x' * ((1 << 20) + 1)}\nc.wav,\n")
    first, second, third = read(path)
    assert isinstance(first, ManifestRow)
    assert isinstance(third, ManifestRow)
    assert isinstance(second, ManifestProblem)
    assert (second.line, second.code) == (3, "malformed_row")


@pytest.mark.parametrize(("name", "row"), [("m.csv", '"a\nb.wav",{}'), ("m.jsonl", '{{"uri":"a.wav","x":"{}"}}')])
def test_a_line_of_any_length_is_not_held(tmp_path: Path, name: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.manifest_file, "MAX_LINE", 1_000)
    monkeypatch.setattr(audio.manifest_records, "MAX_LINE", 1_000)
    header = "uri,x\n" if name == "m.csv" else ""
    path = write(tmp_path / name, header + "\n".join(row.format("x" * n) for n in (10, 5_000, 10)))
    first, second, third = read(path)
    assert isinstance(first, ManifestRow)
    assert isinstance(third, ManifestRow)
    assert isinstance(second, ManifestProblem)
    assert (second.code, second.row) == ("malformed_row", 2)
    assert "has more than 1000 characters" in second.message


# What is refused before a run


@pytest.mark.parametrize("name", CSV_NAMES)
@pytest.mark.parametrize("content", ["", "\ufeff", "\n\n  \n"])
def test_empty_tables(tmp_path: Path, name: str, content: str) -> None:
    assert "is empty: expected a header" in refusal(write(tmp_path / name, content))
    with pytest.raises(ManifestError, match="is empty"):
        read(tmp_path / name)


def test_a_file_of_no_bytes_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "m.csv.gz")


def test_a_header_without_rows(tmp_path: Path) -> None:
    assert "has a header, but no rows" in refusal(write(tmp_path / "m.csv", "uri,x\n\n"))
    assert read(tmp_path / "m.csv") == []


@pytest.mark.parametrize(
    ("header", "given", "said"),
    [
        (
            "file,label",
            {},
            "has no column 'uri': its columns are 'file', 'label'; name the column of the recordings' URIs with",
        ),
        ("URI,label", {}, "has no column 'uri': its columns are 'URI', 'label'"),
        (" uri,label", {}, "its columns are ' uri', 'label'"),
        ("uri,label", {"uri_column": "file"}, "has no column 'file': its columns are 'uri', 'label'"),
        ("uri,id", {"uri_template": "{site}/{id}/{day}"}, "has no column 'site', 'day', which uri_template names"),
        ("uri;start_s;label", {}, "separated by semicolons? Expected commas, or tabs in a file that ends in .tsv"),
        ("uri\tlabel", {}, "separated by tabs?"),
        ("uri,a,a,b,b", {}, "has the column 'a', 'b' more than once"),
        ("uri,uri", {}, "has the column 'uri' more than once"),
        (
            ",uri",
            {},
            "has a column without a name, number 1 of 2: name it, or leave it out (as pandas does with index=False)",
        ),
        ("uri,a, ", {}, "without a name, number 3 of 3"),
        ("uri,start_s", {}, "has no column 'end_s': expected both 'start_s' and 'end_s', or neither"),
        ("end_s,uri", {}, "has no column 'start_s'"),
        ('uri,"a', {}, "has no header that can be read: line 1: a quoted value begins in this row that never ends"),
        (",".join(f"c{n}" for n in range(100)), {}, "'c19' and 80 more"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, header: str, given: dict[str, str], said: str) -> None:
    path = write(tmp_path / "m.csv", f"{header}\na.wav,b\n")
    assert said in refusal(path, **given)
    with pytest.raises(ManifestError):
        read(path, **given)


def test_commas_in_a_tsv(tmp_path: Path) -> None:
    assert "separated by commas? Expected tabs, or commas in a file that ends in .csv" in refusal(
        write(tmp_path / "m.tsv", "uri,label\na.wav,x\n")
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("uri,x\na.wav,é\n".encode("utf-16"), "is UTF-16 text: expected UTF-8"),
        ("uri,x\na.wav,é\n".encode("utf-16-le"), "has zero bytes in its header; is it UTF-16 text? Save it as UTF-8"),
        ("uri,x\na.wav,é\n".encode("utf-16-be"), "has zero bytes in its header"),
        ("uri,année\na.wav,1\n".encode("latin-1"), "has a header that is not valid UTF-8: save it as UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz"])
def test_other_encodings(tmp_path: Path, data: bytes, said: str, name: str) -> None:
    assert said in refusal(write(tmp_path / name, data))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty: expected one JSON object a line"),
        ("\n \n", "is empty"),
        ('\n[{"uri": "a"}]', "does not begin with a JSON object: line 2: the row is JSON, but not an object"),
        ("uri,x\na.wav,1\n", "does not begin with a JSON object: line 1: the row is not valid JSON at character 1"),
        ('{\n  "uri": "a"\n}', "line 1: the row is not valid JSON"),
        ('{"file": "a", "x": 1}', "has no column 'uri': its columns are 'file', 'x'; name the column"),
        ('{"uri": "a", "start_s": 1}', "has no column 'end_s': expected both"),
        ("{}", "has no column 'uri'"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(write(tmp_path / "m.jsonl", content))


def test_a_first_object_whose_values_are_null_has_their_columns(tmp_path: Path) -> None:
    assert check(write(tmp_path / "m.jsonl", '{"uri": null, "start_s": 1, "end_s": null}')) == ManifestHeader(None)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "none.csv").endswith("cannot be read: there is no such file")
    assert "cannot be read: this is a folder, not a regular file" in refusal(tmp_path / "folder.csv")


# Files that break


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz"])
@pytest.mark.parametrize("damage", ["cut off", "flipped", "trailing"])
def test_a_damaged_gzip_ends_the_run_and_says_where(tmp_path: Path, name: str, damage: str) -> None:
    line = "{}.wav,{}\n" if "csv" in name else '{{"uri":"{}.wav","x":"{}"}}\n'
    text = "uri,x\n" * ("csv" in name) + "".join(line.format(n, hash((n, "x"))) for n in range(50_000))
    data = bytearray(gzip.compress(text.encode()))
    if damage == "cut off":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[-8] ^= 1  # the checksum
    else:
        data += b"PRIVATE"
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)
    rows: list[object] = []
    with pytest.raises(ManifestError) as caught:
        rows.extend(read_manifest(ManifestSettings(str(tmp_path / name))))
    count = len(rows)
    assert 10_000 < count <= 50_000
    said = re.search(r"cannot be read beyond line (\d+): its gzip data are damaged or cut off", str(caught.value))
    assert said
    assert int(said[1]) - ("csv" in name) in (count, count + 1)  # perhaps it broke within a row


def test_a_disk_that_fails_ends_the_run_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.RawIOBase):
        left = iter([b"ur", b"uri\na.wav\nb.w"])

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            data = next(self.left, None)
            if data is None:
                raise OSError(5, "Input/output error")
            buffer[: len(data)] = data
            return len(data)

    monkeypatch.setattr(audio.manifest_file, "open_recording", lambda _: Failing())
    path = write(tmp_path / "m.csv", "uri\n")
    rows = read_manifest(ManifestSettings(str(path)))
    assert isinstance(next(rows), ManifestRow)
    with pytest.raises(ManifestError, match="cannot be read beyond line 2: Input/output error"):
        next(rows)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_gzip_is_known_by_its_bytes(tmp_path: Path, layers: int) -> None:
    data = b"uri\na.wav\n"
    for _ in range(layers):
        data = gzip.compress(data)
    for name in ("m.csv", "m.csv.gz"):
        (tmp_path / name).write_bytes(data)
        assert check(tmp_path / name) == ManifestHeader(())
        assert len(good(tmp_path / name)) == 1


def test_gzip_in_several_parts(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(b"uri\na.wa") + gzip.compress(b"v\nb.wav"))
    assert [row.uri for row in good(tmp_path / "m.csv.gz")] == [f"{tmp_path}/a.wav", f"{tmp_path}/b.wav"]


# Any length


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.jsonl"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, name: str) -> None:
    line = "{}.wav,note {}\n" if "csv" in name else '{{"uri":"{}.wav","x":"note {}"}}\n'
    path = write(tmp_path / name, "uri,x\n" * ("csv" in name) + "".join(line.format(n, n) for n in range(60_000)))
    rows = read_manifest(ManifestSettings(str(path)))
    next(rows)
    tracemalloc.start()
    try:
        for _ in itertools.islice(rows, 5_000):
            pass
        tracemalloc.reset_peak()
        for _ in rows:
            pass
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
