"""Runs over manifests: which clips are sent, which rows come out, and what is said about rows that cannot be used."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from emulator.standin import embed
from pipeline.command import main
from tests.audio.gcs import storage_server
from tests.e2e.running import failures, recordings, shards, summary_of
from tests.e2e.served import Served, cut, digests, served
from tests.rows.test_example import EXAMPLE
from tests.transforms.samples import noise, write_wav

SECRET = "Jane-Doe-1970"
"""A metadata value: it may be in the rows of the output, and nowhere else."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture(autouse=True)
def _look(endpoint: Served) -> None:
    endpoint.arrived()


def write_table(path: Path, rows: Sequence[Sequence[object]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def rows_of(prefix: Path) -> list[dict[str, Any]]:
    """All rows of the embeddings' table, in the manifest's order; metadata as dicts."""
    rows = [row for path in shards(prefix, "parquet") for row in pq.read_table(path).to_pylist()]
    for row in rows:
        row["metadata"] = dict(row["metadata"])
        row["embedding"] = np.float32(row["embedding"])
    return sorted(rows, key=lambda row: (row["manifest_row"], row["channel"], row["clip_index"]))


def assert_secret_only_in_rows(folder: Path, prefix: Path, manifests: Sequence[Path], *said: str) -> None:
    """No file below `folder` but the embeddings' and the manifests has a metadata value, and nothing that was said."""
    allowed = {*manifests, *prefix.parent.glob(f"{prefix.name}-[0-9]*"), *folder.glob("**/storage/**/*")}
    for path in folder.rglob("*"):
        if path.is_file() and path not in allowed:
            assert SECRET.encode() not in path.read_bytes(), path
    for text in said:
        assert SECRET not in text


def test_events_are_cut_out_joined_with_their_labels_and_sent_once(endpoint: Served, tmp_path: Path) -> None:
    a, b = noise(10, 1), noise(1.2, 2)
    write_wav(tmp_path / "audio" / "a 1%20*.wav", 10, seed=1)
    write_wav(tmp_path / "audio" / "b.wav", 1.2, seed=2)
    stereo = np.stack([noise(2, 3), noise(2, 4)], axis=1)
    soundfile.write(tmp_path / "audio" / "s.wav", stereo, 16000, subtype="PCM_16")
    name, dotted = "../audio/a 1%20*.wav", "../audio/./x/../a 1%20*.wav"
    table = [
        ("uri", "start_s", "end_s", "channel", "patient", "label"),
        (name, "4.0", "5.0", "", "00123", SECRET),  # 1: centred
        (name, "4", "5", "", "00123", "the same place, written otherwise"),  # 2
        (dotted, "4.0", "5.0", "", "00123", "by another spelling"),  # 3
        (name, "0.2", "0.4", "", "007", ""),  # 4: near the beginning
        (name, "9.5", "10.0", "", "", "end"),  # 5: near the end
        (name, "1.0", "6.0", "", "", "long"),  # 6: windowed, the last 1 s completed by what follows
        (name, "", "", "", "", "whole"),  # 7
        (name, "4.0", "5.0", "", "00123", SECRET),  # 8: equal to 1 in all columns
        ("../audio/b.wav", "", "", "", "=1+1", 'quoted "," \n line'),  # 9
        ("../audio/s.wav", "", "", "each", "é中", ""),  # 10
        (str(tmp_path / "audio" / "s.wav"), "", "", "1", "", ""),  # 11
    ]
    manifest = write_table(tmp_path / "tables" / "m.csv", table)
    arguments = ("--manifest", manifest, "--output", tmp_path / "r")
    summary, arrived = endpoint.run(*arguments)
    right = stereo[:, 1]
    expected = {
        (1, "mean", 0): cut(a, 56000),
        (2, "mean", 0): cut(a, 56000),
        (3, "mean", 0): cut(a, 56000),
        (4, "mean", 0): cut(a, 4800 - 16000),
        (5, "mean", 0): cut(a, 156000 - 16000),
        **{(6, "mean", n): cut(a, 16000 + 32000 * n) for n in range(3)},
        **{(7, "mean", n): cut(a, 32000 * n) for n in range(5)},
        (9, "mean", 0): cut(b, 0),
        (10, "0", 0): cut(stereo[:, 0], 0),
        (10, "1", 0): cut(right, 0),
        (11, "1", 0): cut(right, 0),
    }
    rows = rows_of(tmp_path / "r")
    assert [(row["manifest_row"], row["channel"], row["clip_index"]) for row in rows] == sorted(expected)
    for row in rows:
        clip = expected[row["manifest_row"], row["channel"], row["clip_index"]]
        np.testing.assert_allclose(row["embedding"], embed(clip[None])[0], atol=1e-6)
        written = table[row["manifest_row"]]
        assert row["metadata"] == {"patient": written[4], "label": written[5]}
        assert row["recording_uri"].startswith(f"{tmp_path}/audio/")
    # Each clip once: those of row 6 begin between those of row 7.
    assert set(arrived.clips.values()) == {1}
    assert sum(arrived.clips.values()) == summary["embedded"] == 1 + 1 + 1 + 3 + 5 + 1 + 2
    assert (summary["rows"], summary["recordings"]) == (len(expected), 3)
    assert {Path(uri).name: row["embedded"] for uri, row in recordings(tmp_path / "r").items()} == {
        "a 1%20*.wav": 11,
        "b.wav": 1,
        "s.wav": 2,
    }
    assert_secret_only_in_rows(tmp_path, tmp_path / "r", [manifest])

    # New labels, another order, another format: nothing is sent.
    told = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    lines = [json.dumps({**row, "label": "new", "score": 1.50, "none": None}) for row in reversed(told)]
    again = tmp_path / "tables" / "m.jsonl.gz"
    with gzip.open(again, "wt", encoding="utf-8") as file:
        file.write("\n\n".join(lines))
    summary, arrived = endpoint.run("--manifest", again, "--output", tmp_path / "r")
    assert arrived.only_probe
    assert (summary["reused"], summary["requests"]) == (14, 0)
    renamed = rows_of(tmp_path / "r")
    assert {row["metadata"]["label"] for row in renamed} == {"new"}
    assert {row["metadata"]["score"] for row in renamed} == {"1.5"}
    assert {row["metadata"]["patient"] for row in renamed} == {row[4] for row in table[1:]}
    by_place = {row["clip_id"]: row["embedding"] for row in rows}
    assert {row["clip_id"] for row in renamed} == by_place.keys()
    # By --input the whole recordings are the same ones: only what no row asked for is sent.
    summary, arrived = endpoint.run(
        "--input", tmp_path / "audio", "--output", tmp_path / "s", "--checkpoint", f"{tmp_path}/r-checkpoint"
    )
    mixed = np.float32((stereo.astype(np.float64) / 32768).mean(axis=1))
    assert sum(arrived.clips.values()) == 1
    assert summary["reused"] == 6
    assert mixed.shape == (32000,)


def test_events_among_zeros_as_tensorflow_records(endpoint: Served, tmp_path: Path) -> None:
    a = noise(10, 5)
    write_wav(tmp_path / "a.wav", 10, seed=5)
    table = [("where", "start_s", "end_s", "uri"), ("a", "4", "4.5", "not this"), ("a", "1", "4", SECRET)]
    manifest = write_table(tmp_path / "m.tsv", table, "\t")
    arguments = ("--manifest", manifest, "--uri_template", "{where}.wav", "--event_context", "zeros")
    summary, arrived = endpoint.run(*arguments, "--output", tmp_path / "r", "--output_format", "tfrecord")
    alone = np.zeros(32000, np.float32)
    alone[12000:20000] = cut(a, 64000)[:8000]
    rest = np.zeros(32000, np.float32)
    rest[:16000] = cut(a, 48000)[:16000]
    clips = [alone, cut(a, 16000), rest]
    assert arrived.clips == Counter(digest for clip in clips for digest in digests(np.rint(clip * 32768)))
    (path,) = shards(tmp_path / "r", "tfrecord")
    examples = list(tf_examples(path))
    assert len(examples) == summary["rows"] == 3
    for example in examples:
        assert example["metadata/where"] == [b"a"]
        row = example["manifest_row"][0]
        assert example["metadata/uri"] == [(b"not this", SECRET.encode())[row - 1]]
    # With audio around it, it is another clip; the one that no zeros were needed for is the same.
    summary, arrived = endpoint.run(
        *arguments[:-2], "--output", tmp_path / "s", "--checkpoint", f"{tmp_path}/r-checkpoint"
    )
    assert arrived.clips == Counter(digests(a, [52000, 48000]))
    assert summary["reused"] == 1
    assert_secret_only_in_rows(tmp_path, tmp_path / "s", [manifest, path])


def tf_examples(path: Path) -> Iterator[dict[str, list[Any]]]:
    """Examples of a TFRecord file, as protobuf's own classes read them."""
    data, offset = path.read_bytes(), 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 8], "little")
        example = EXAMPLE.FromString(data[offset + 12 : offset + 12 + length])
        yield {
            name: list(getattr(feature, feature.WhichOneof("kind")).value)
            for name, feature in example.features.feature.items()
        }
        offset += 16 + length


def test_rows_that_cannot_be_used_are_failures_of_their_own(endpoint: Served, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 3, seed=6)
    (tmp_path / "broken.wav").write_text("no sound")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").touch()
    text = "\n".join(
        [
            "uri,start_s,end_s,channel,note",
            f"a.wav,1,2,,{SECRET}",  # line 2
            "",  # line 3, blank
            f"a.wav,1,,,{SECRET}",  # row 2
            f"a.wav,2,1,,{SECRET}",
            f"a.wav,eins,2,,{SECRET}",
            f"a.wav,-1,2,,{SECRET}",
            f"a.wav,100,101,,{SECRET}",
            f"a.wav,,,7,{SECRET}",
            f"a.wav,,,links,{SECRET}",
            f"gone.wav,,,,{SECRET}",
            f"gone.wav,1,2,,{SECRET}",
            f"folder.wav,,,,{SECRET}",
            f"broken.wav,,,,{SECRET}",
            f",,,,{SECRET}",
            f"a.wav,,,,{SECRET},{SECRET}",
            "a.wav",
            f"s3://bucket/{'x'}.wav,,,,{SECRET}",
            f"empty.wav,0,1,,{SECRET}",
            f"a.wav,2.5,9,,{SECRET}",  # goes on beyond the end: what there is of it
        ]
    )
    manifest = tmp_path / "m.csv"
    manifest.write_text(text)
    done = endpoint.command("--manifest", manifest, "--output", tmp_path / "out" / "r")
    assert done.returncode == 0, done.stderr
    summary = summary_of(tmp_path / "out" / "r")
    rows = rows_of(tmp_path / "out" / "r")
    assert {row["manifest_row"] for row in rows} == {1, 18}
    found = {row["manifest_row"]: row for row in failures(tmp_path / "out" / "r") if row["manifest_row"] is not None}
    codes = {number: row["code"] for number, row in found.items()}
    assert codes == {
        2: "missing_value",
        3: "contradictory_values",
        4: "malformed_value",
        5: "malformed_value",
        6: "event_beyond_end",
        7: "no_such_channel",
        8: "malformed_value",
        9: "missing_file",
        10: "missing_file",
        11: "not_a_regular_file",
        13: "missing_value",
        14: "malformed_row",
        15: "malformed_row",
        16: "malformed_value",
    }
    for number, row in found.items():
        assert row["message"].startswith(f"line {number + 2}: "), row
        assert (row["attempts"], row["clip_id"]) == (0, None)
    others = {
        Path(row["recording_uri"]).name: row["code"]
        for row in failures(tmp_path / "out" / "r")
        if row["manifest_row"] is None
    }
    assert others == {"broken.wav": "not_audio", "empty.wav": "empty_file"}
    statuses = {Path(uri).name: row["status"] for uri, row in recordings(tmp_path / "out" / "r").items()}
    assert {name: statuses[name] for name in ("a.wav", "gone.wav", "folder.wav", "broken.wav", "empty.wav")} == {
        "a.wav": "partial",
        "gone.wav": "failed",
        "folder.wav": "failed",
        "broken.wav": "failed",
        "empty.wav": "failed",
    }
    assert sum(map(sum, (codes.values() for codes in summary["failures_by_stage"].values()))) == len(found) + 2
    assert_secret_only_in_rows(tmp_path, tmp_path / "out" / "r", [manifest], done.stdout, done.stderr)
    # The same again: nothing new, and the same rows.
    first = failures(tmp_path / "out" / "r"), recordings(tmp_path / "out" / "r")
    endpoint.arrived()
    _, arrived = endpoint.run("--manifest", manifest, "--output", tmp_path / "out" / "r")
    assert arrived.only_probe
    again = failures(tmp_path / "out" / "r")
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, first[0]))
    assert recordings(tmp_path / "out" / "r") == first[1]


def test_a_manifest_on_cloud_storage_names_objects_beside_it(endpoint: Served, tmp_path: Path) -> None:
    a = write_wav(tmp_path / "a.wav", 3, seed=8).read_bytes()
    (tmp_path / "storage").mkdir()
    with storage_server(tmp_path / "storage") as storage:
        storage.make_bucket("clinic")
        storage.upload("clinic", "2024/visits/a b?.wav", a)
        lines = [
            {"file": "visits/a b?.wav", "n": 1},
            {"file": "gs://clinic/2024/visits/a b?.wav", "start_s": 1, "end_s": 2},
        ]
        lines += [{"file": "visits/none.wav"}, {"file": str(tmp_path / "a.wav")}, {"file": "../../a.wav"}]
        text = "\n".join(map(json.dumps, lines)).encode()
        storage.upload("clinic", "2024/m.jsonl.gz", gzip.compress(text))
        arguments = ("--manifest", "gs://clinic/2024/m.jsonl.gz", "--uri_column", "file", "--output", tmp_path / "r")
        environment = {"STORAGE_EMULATOR_HOST": storage.address}
        _, arrived = endpoint.run(*arguments, **environment)
        # A path from the root is this machine's, whatever the manifest: the same sounds, in another recording.
        assert arrived.clips == Counter(2 * digests(noise(3, 8)) + digests(noise(3, 8), [8000]))
        codes = {row["manifest_row"]: row["code"] for row in failures(tmp_path / "r")}
        assert codes == {3: "missing_file", 5: "malformed_value"}
        found = {row["manifest_row"]: (row["recording_uri"], row["metadata"]) for row in rows_of(tmp_path / "r")}
        assert found == {
            1: ("gs://clinic/2024/visits/a b?.wav", {"n": "1"}),
            2: ("gs://clinic/2024/visits/a b?.wav", {}),
            4: (str(tmp_path / "a.wav"), {}),
        }


def test_what_cannot_be_a_manifest_is_one_line(
    endpoint: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "a.wav", 1)
    good = write_table(tmp_path / "m.csv", [("uri",), ("a.wav",)])
    other = write_table(tmp_path / "other.csv", [("path", "start_s"), ("a.wav", "1")])
    (tmp_path / "m.txt").write_text("uri\na.wav\n")
    (tmp_path / "audio.csv").write_bytes((tmp_path / "a.wav").read_bytes())
    (tmp_path / "empty.csv").touch()
    output = ("--output", tmp_path / "r")
    for arguments, said in [
        (("--manifest", other), ["--manifest", "uri"]),
        (("--manifest", good, "--input", tmp_path), ["--input and --manifest"]),
        (("--input", tmp_path, "--uri_column", "path"), ["--uri_column", "only with --manifest"]),
        (("--manifest", tmp_path / "m.txt"), ["manifest", "m.txt", ".csv"]),
        (("--manifest", tmp_path / "audio.csv"), ["--manifest"]),
        (("--manifest", tmp_path / "empty.csv"), ["--manifest", "empty"]),
        (("--manifest", tmp_path / "none.csv"), ["--manifest", "none.csv"]),
        (("--manifest", tmp_path), ["manifest"]),
    ]:
        given = (*endpoint.where, *arguments, *output)
        assert main(list(map(str, given))) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert all(text in told for text in said), told
    assert endpoint.arrived().requests == 0
    assert not list(tmp_path.glob("r-*"))


def test_the_plan_of_a_manifest_and_its_first_recordings(endpoint: Served, tmp_path: Path) -> None:
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav", 1, seed=ord(name))
    table = [
        ("uri", "start_s", "end_s", "x"),
        ("c.wav", "", "", SECRET),
        ("b.wav", "0", "1", ""),
        ("b.wav", "1", "0", SECRET),
    ]
    manifest = write_table(tmp_path / "m.csv", [*table, ("a.wav", "", "", ""), ("b.wav", "0", "0.5", "")])
    done = endpoint.command("--manifest", manifest, "--output", tmp_path / "r", "--plan")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["manifest_rows"], plan["events"], plan["rows_that_cannot_be_used"]) == (5, 2, 1)
    assert SECRET not in done.stdout + done.stderr
    assert endpoint.arrived().requests == 0
    assert not list(tmp_path.glob("r-*"))
    endpoint.run("--manifest", manifest, "--output", tmp_path / "r", "--limit", 2)
    assert set(recordings(tmp_path / "r")) == {str(tmp_path / "a.wav"), str(tmp_path / "b.wav")}
    assert [row["manifest_row"] for row in rows_of(tmp_path / "r")] == [2, 4, 5]
    assert [row["manifest_row"] for row in failures(tmp_path / "r")] == [3]
