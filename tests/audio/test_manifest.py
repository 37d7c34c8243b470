"""What the rows of a manifest mean, and what is said of those that mean nothing."""

import hashlib
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audio.listing import list_input
from audio.manifest import ManifestHeader, ManifestProblem, ManifestRow, ManifestSettings, check_manifest, read_manifest
from audio.recording import Take
from tests.audio.manifests import bad, good, read, write


def csv_rows(folder: Path, *rows: str, **given: str) -> list[ManifestRow | ManifestProblem]:
    return read(write(folder / "m.csv", "\n".join(["uri,start_s,end_s,channel,label", *rows]) + "\n"), **given)


def problem(folder: Path, row: str, **given: str) -> ManifestProblem:
    """The problem of a row between two others, which are fine."""
    fine = "a.wav,,,,PRIVATE"
    before, found, after = csv_rows(folder, fine, row, fine, **given)
    assert isinstance(before, ManifestRow)
    assert isinstance(after, ManifestRow)
    assert (before.row, before.line, after.row, after.line) == (1, 2, 3, 4)
    assert isinstance(found, ManifestProblem)
    assert (found.row, found.line) == (2, 3)
    assert found.message.startswith("line 3: ")
    assert "expected" in found.message
    assert "PRIVATE" not in found.message
    return found


# Recordings


@pytest.mark.parametrize(
    ("raw", "uri"),
    [
        ("a.wav", "{folder}/a.wav"),
        ("./sub//x/../a b.wav", "{folder}/sub/a b.wav"),
        ("../a.wav", "{parent}/a.wav"),
        ("/data/./a.wav", "/data/a.wav"),
        ("[1]*?.wav", "{folder}/[1]*?.wav"),
        ("~/a.wav", "{folder}/~/a.wav"),
        ("$HOME/a.wav", "{folder}/$HOME/a.wav"),
        ("a%20b.wav", "{folder}/a%20b.wav"),
        (" a.wav ", "{folder}/ a.wav "),
        ("C:a.wav", "{folder}/C:a.wav"),
        ("кашель 🤧.wav", "{folder}/кашель 🤧.wav"),
        ("gs://bucket/a//../b*.wav", "gs://bucket/a//../b*.wav"),
    ],
)
def test_uris_in_a_local_manifest(tmp_path: Path, raw: str, uri: str) -> None:
    (row,) = good(write(tmp_path / "m.csv", f"uri\n{raw}\n"))
    assert row.uri == uri.format(folder=tmp_path, parent=tmp_path.parent)


def test_a_file_has_the_uri_that_listing_it_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    (tmp_path / "deep" / "a.wav").write_bytes(b"abc")
    write(tmp_path / "m.csv", "uri\nlink/../a.wav\ndeep//./a.wav\n")
    monkeypatch.chdir(tmp_path)
    listed = {item.uri for item in list_input("deep/a.wav")}
    assert {row.uri for row in good("m.csv")} == {row.uri for row in good("./deep/../m.csv")} == listed


def test_a_relative_manifest_stays_the_same_file_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.csv", "uri\na.wav\n")
    monkeypatch.chdir(tmp_path)
    of_the_launcher = ManifestSettings("m.csv")
    monkeypatch.chdir("/")
    (row,) = read_manifest(of_the_launcher)
    assert row.uri == f"{tmp_path}/a.wav"


@pytest.mark.parametrize(
    "raw", ["file:///a.wav", "s3://bucket/a.wav", "https://example.org/a.wav", "GS://bucket/a.wav"]
)
def test_other_places_are_refused(tmp_path: Path, raw: str) -> None:
    found = problem(tmp_path, f"{raw},,,,PRIVATE")
    assert (found.code, found.uri) == ("malformed_value", raw)
    assert found.message == f"line 3: column 'uri' is {raw!r}: expected a local path, or gs://bucket/name"


@pytest.mark.parametrize("raw", ["gs://", "gs://bucket", "gs://bucket/", "gs:///a.wav"])
def test_what_names_no_object_is_refused(tmp_path: Path, raw: str) -> None:
    found = problem(tmp_path, f"{raw},,,,PRIVATE")
    assert (found.code, found.uri) == ("malformed_value", raw)
    assert "expected gs://bucket/name" in found.message


@pytest.mark.parametrize("raw", ["", " ", "\t"])
def test_no_uri(tmp_path: Path, raw: str) -> None:
    found = problem(tmp_path, f"{raw},,,,PRIVATE")
    assert (found.code, found.uri) == ("missing_value", "")
    assert "column 'uri' is empty" in found.message


def test_another_column_holds_the_uri(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "uri,file,label\nhttps://x.org/1,a.wav,cough\n")
    (row,) = good(path, uri_column="file")
    assert row.uri == f"{tmp_path}/a.wav"
    assert row.metadata == (("uri", "https://x.org/1"), ("label", "cough"))
    assert check_manifest(ManifestSettings(str(path), "file")) == ManifestHeader(("uri", "label"))


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("gs://bucket/{uuid}.webm", "gs://bucket/a{b}.webm"),
        ("{site no}/{uuid}-{uuid}", "{folder}/0012/a{b}-a{b}"),
        ("{{{uuid}}}.wav", "{folder}/{a{b}}.wav"),
        ("/data/{{x}}{uuid[0]}{uuid.__class__}{0}", "/data/{x}INDEXDOTZERO"),
        ("%s{uuid}$uuid", "{folder}/%sa{b}$uuid"),
    ],
)
def test_a_template_builds_the_uri(tmp_path: Path, template: str, uri: str) -> None:
    path = write(tmp_path / "m.csv", "uuid,site no,uri,uuid[0],uuid.__class__,0\na{b},0012,x,INDEX,DOT,ZERO\n")
    (row,) = good(path, uri_template=template)
    assert row.uri == uri.replace("{folder}", str(tmp_path))
    names = ("uuid", "site no", "uri", "uuid[0]", "uuid.__class__", "0")
    assert tuple(name for name, _ in row.metadata) == names
    assert check_manifest(ManifestSettings(str(path), uri_template=template)).columns == names


def test_a_value_for_a_template_may_be_missing(tmp_path: Path) -> None:
    fine, empty = read(write(tmp_path / "m.csv", "uuid,site\nu,s\nu,\n"), uri_template="{site}/{uuid}")
    assert isinstance(fine, ManifestRow)
    assert isinstance(empty, ManifestProblem)
    assert (empty.code, empty.line) == ("missing_value", 3)
    assert "column 'site' is empty" in empty.message
    (absent,) = bad(write(tmp_path / "m.jsonl", '{"uuid": "u"}'), uri_template="{site}/{uuid}")
    assert absent.code == "missing_value"


def test_what_a_template_builds_is_judged_as_a_uri(tmp_path: Path) -> None:
    (found,) = bad(write(tmp_path / "m.csv", "where\ns3://x\n"), uri_template="{where}/a.wav")
    assert (found.code, found.uri) == ("malformed_value", "s3://x/a.wav")
    assert "uri_template gives 's3://x/a.wav'" in found.message


# Events


@pytest.mark.parametrize(
    ("start", "end", "take"),
    [
        ("", "", Take("mean")),
        (" ", "\t", Take("mean")),
        ("0", "1", Take("mean", 0, 16_000)),
        ("1.5", "2.", Take("mean", 24_000, 32_000)),
        (".5", "1e1", Take("mean", 8_000, 160_000)),
        ("+1", "2E+0", Take("mean", 16_000, 32_000)),
        (" 1 ", " 2", Take("mean", 16_000, 32_000)),
        ("-0.0", "00002", Take("mean", 0, 32_000)),
        ("0.1", "0.3", Take("mean", 1_600, 4_800)),
        ("0.00003125", "0.00009375", Take("mean", 0, 2)),  # 0.5 and 1.5 samples: to the even one
        ("1e-999", "10000000", Take("mean", 0, 160_000_000_000)),
        ("0", "0." + "0" * 40 + "1e37", Take("mean", 0, 2)),  # 0.0001 s are 1.6 samples
    ],
)
def test_times(tmp_path: Path, start: str, end: str, take: Take) -> None:
    (row,) = csv_rows(tmp_path, f"a.wav,{start},{end},,x")
    assert isinstance(row, ManifestRow)
    assert row.take == take


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.decimals(0, 10_000_000, allow_nan=False, places=12), st.integers(1, 10**12))
@example(start=9_999_999, more=1)
def test_times_are_exact(tmp_path: Path, start: object, more: int) -> None:
    begin = Fraction(str(start))
    end = begin + Fraction(more, 10**12)
    samples = round(begin * 16_000), round(end * 16_000)  # of fractions, which are exact
    (row,) = csv_rows(tmp_path, f"a.wav,{start},{_decimal(end)},,x")
    if end > 10_000_000:
        assert isinstance(row, ManifestProblem)
    elif samples[0] == samples[1]:
        assert isinstance(row, ManifestProblem)
        assert row.code == "contradictory_values"
    else:
        assert isinstance(row, ManifestRow)
        assert (row.take.start, row.take.stop) == samples


def _decimal(value: Fraction) -> str:
    digits = str(value.numerator * (10**12 // value.denominator)).rjust(13, "0")
    return f"{digits[:-12]}.{digits[-12:]}"


@pytest.mark.parametrize(
    "text",
    [
        "1:20",
        "1,5",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "-1",
        "-0.001",
        "1s",
        "0x10",
        "1_000",
        "١",
        "1e",
        ".",
        "e5",
        "10000000.1",
        "1e99",
        "1e9999999999",
        "true",
        "1 2",
        "9" * 300,
    ],
)
@pytest.mark.parametrize("column", ["start_s", "end_s"])
def test_what_is_no_time(tmp_path: Path, text: str, column: str) -> None:
    times = f'"{text}",9' if column == "start_s" else f'0,"{text}"'
    found = problem(tmp_path, f"a.wav,{times},,PRIVATE")
    assert (found.code, found.uri) == ("malformed_value", f"{tmp_path}/a.wav")
    assert f"column '{column}' is {text[:60]!r}" in found.message
    assert len(found.message) < 250


@pytest.mark.parametrize(("times", "empty"), [("1,", "end_s"), (",2", "start_s"), (" ,2", "start_s")])
def test_only_one_of_the_times(tmp_path: Path, times: str, empty: str) -> None:
    found = problem(tmp_path, f"a.wav,{times},,PRIVATE")
    assert (found.code, found.uri) == ("missing_value", f"{tmp_path}/a.wav")
    assert f"column '{empty}' is empty" in found.message


@pytest.mark.parametrize("times", ["2,1", "1,1", "1,1.0000001", "1.00001,1.00002"])
def test_events_of_no_length(tmp_path: Path, times: str) -> None:
    found = problem(tmp_path, f"a.wav,{times},,PRIVATE")
    assert (found.code, found.uri) == ("contradictory_values", f"{tmp_path}/a.wav")
    start, end = times.split(",")
    assert repr(start) in found.message
    assert repr(end) in found.message


# Channels


@pytest.mark.parametrize(
    ("text", "channel"), [("", "1"), (" ", "1"), ("mean", "mean"), ("each", "each"), ("0", "0"), ("12", "12")]
)
def test_channels(tmp_path: Path, text: str, channel: str) -> None:
    (row,) = csv_rows(tmp_path, f"a.wav,,,{text},x", channel="1")
    assert isinstance(row, ManifestRow)
    assert row.take == Take(channel)


@pytest.mark.parametrize("text", ["left", "-1", "1.0", "01", "Mean", "each,0", "10000", "²"])
def test_what_is_no_channel(tmp_path: Path, text: str) -> None:
    found = problem(tmp_path, f'a.wav,,,"{text}",PRIVATE')
    assert (found.code, found.uri) == ("malformed_value", f"{tmp_path}/a.wav")
    assert f"column 'channel' is {text!r}: expected mean, each, or a channel's number" in found.message


def test_a_manifest_without_events_and_channels(tmp_path: Path) -> None:
    (row,) = good(write(tmp_path / "m.csv", "uri\na.wav"), channel="each")
    assert row == ManifestRow(1, 2, f"{tmp_path}/a.wav", Take("each"), (), row.digest)


# Metadata, and what merges


def test_metadata_are_texts_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "id,start_s,uri,Empty,note,end_s,age\n00123,,a.wav,, 1.50 ,,NA\n"
    (row,) = good(write(tmp_path / "m.csv", text))
    assert row.metadata == (("id", "00123"), ("Empty", ""), ("note", " 1.50 "), ("age", "NA"))
    assert "00123" not in repr(row)


def test_only_rows_equal_in_every_column_have_the_same_digest(tmp_path: Path) -> None:
    header = "uri,start_s,end_s,channel,a,b"
    rows = [
        "x,1,2,,ab,c",
        "x,1,2,,a,bc",
        "x,1.0,2,,ab,c",
        "x,1,2,mean,ab,c",
        "./x,1,2,,ab,c",
        "x,1,2,,ab,c",
        "x,1,2,,AB,c",
    ]
    digests = [row.digest for row in good(write(tmp_path / "m.csv", "\n".join([header, *rows])))]
    assert digests[5] == digests[0]
    assert len(set(digests)) == len(digests) - 1
    assert all(re.fullmatch(r"[0-9a-f]{16}", digest) for digest in digests)


def test_the_digest_is_of_the_row_whatever_the_format(tmp_path: Path) -> None:
    expected = hashlib.blake2b(b"5:label5:cough3:uri5:a.wav", digest_size=8).hexdigest()
    (row,) = good(write(tmp_path / "m.csv", "uri,label\na.wav,cough\n"))
    (tabs,) = good(write(tmp_path / "m.tsv", "uri\tlabel\r\na.wav\tcough\r\n"))
    lines = good(
        write(tmp_path / "m.jsonl", '{"label":"cough","uri":"a.wav"}\n{"x":null,"uri":"a.wav","label":"cough"}')
    )
    assert {row.digest, tabs.digest, *(line.digest for line in lines)} == {expected}


@pytest.mark.parametrize("value", [b"caf\xe9", b"a\0b", b"\xed\xa0\x80"])
@pytest.mark.parametrize("column", ["uri", "label", "start_s", "channel"])
def test_what_is_no_text(tmp_path: Path, value: bytes, column: str) -> None:
    fields = {"uri": b"a.wav", "start_s": b"", "channel": b"", "label": b"PRIVATE"} | {column: value}
    data = (
        b"uri,start_s,channel,end_s,label\n"
        + b",".join([*list(fields.values())[:3], b"", fields["label"]])
        + b"\nb.wav,,,,\n"
    )
    found, after = read(write(tmp_path / "m.csv", data))
    assert isinstance(after, ManifestRow)
    assert isinstance(found, ManifestProblem)
    assert found.code == "malformed_value"
    assert found.message.startswith("line 2: ")
    assert f"column '{column}'" in found.message
    assert "UTF-8" in found.message
    assert "caf" not in found.message or column == "uri"
    found.message.encode()
    found.uri.encode()
    if column != "uri":
        assert found.uri == f"{tmp_path}/a.wav"


# Settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "m.xlsx"}, r"manifest is '.*m.xlsx': expected a name that ends in .csv, .tsv, .tab, .jsonl, .ndjson"),
        ({"path": "m.csv.bz2"}, "and .gz"),
        ({"path": "m.gz"}, "expected a name that ends in"),
        ({"path": "csv"}, "expected a name that ends in"),
        ({"path": ""}, "manifest is ''"),
        ({"path": "s3://bucket/m.csv"}, "expected a local path or gs://bucket/name"),
        ({"path": "gs://m.csv"}, "expected gs://bucket/name"),
        ({"path": "gs://bucket/"}, "manifest is 'gs://bucket/'"),
        ({"uri_column": "a", "uri_template": "{a}"}, "uri_template is given, and uri_column too: expected one of them"),
        ({"uri_column": ""}, "uri_column is ''"),
        ({"uri_column": "start_s"}, "uri_column is 'start_s'"),
        ({"uri_template": ""}, "uri_template is '': it names no column"),
        ({"uri_template": "gs://bucket/a.wav"}, "it names no column"),
        ({"uri_template": "{{a}}"}, "it names no column"),
        ({"uri_template": "{a}/{b"}, "it has a single '{'; expected columns as {name}, and {{ for a brace"),
        ({"uri_template": "{a}}"}, "it has a single '}'"),
        ({"uri_template": "{a}{}"}, "it has a single '{'"),
        ({"uri_template": "{a{b}}"}, "it has a single '{'"),
        ({"uri_template": "s3://b/{a}"}, "expected a local path, or gs://bucket/name"),
        ({"channel": "left"}, "channel is 'left': expected mean, each"),
    ],
)
def test_settings_that_cannot_be_meant(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        ManifestSettings(**{"path": "m.csv", **given})
    assert re.search(said, str(caught.value)) or said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m.csv", "csv"),
        ("M.CSV.GZ", "csv"),
        ("a.csv.tsv", "tsv"),
        ("m.tab.gz", "tsv"),
        ("m.jsonl", "jsonl"),
        ("m.NDJSON", "jsonl"),
    ],
)
def test_the_extension_says_the_format(name: str, kind: str) -> None:
    assert ManifestSettings(name).format == kind
    assert ManifestSettings(f"gs://bucket/{name}").format == kind


def test_settings_can_be_copied_and_compared() -> None:
    given = ManifestSettings("m.csv")
    assert replace(given, channel="mean") == given == ManifestSettings("./m.csv")
