"""Rows in BigQuery: those of the files, once each, whatever was killed, lost or repeated; on real servers."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from google.cloud import bigquery

from rows.bigquery import COLUMNS
from tests.audio.gcs import StorageServer
from tests.cloud.bigquery import DATASET, PROJECT, BigQueryServer, proxied_bigquery
from tests.cloud.fault_proxy import FaultProxy
from tests.cloud.storage import proxied_storage
from tests.e2e.running import REPOSITORY, embeddings, failures, recordings, shards
from tests.e2e.served import WITHIN_S, Served, digests, served
from tests.recordings import SHARED_AUDIO, needs_shared_audio
from tests.rows.test_example import EXAMPLE
from tests.transforms.samples import noise

LOAD = r"POST .*/jobs\?alt=json"
"""Beam's client starts a load job."""
QUERY = r"POST .*/jobs\?prettyPrint=false"
"""Google's client starts a query: the first one of a run asks whether it may, the others merge."""


@dataclass
class Cloud:
    """All that runs meet."""

    endpoint: Served
    storage: StorageServer
    server: BigQueryServer
    proxy: FaultProxy

    def upload(self, name: str, samples: np.ndarray) -> None:
        file = io.BytesIO()
        soundfile.write(file, samples, 16000, format="WAV", subtype="PCM_16")
        self.storage.upload("clinic", name, file.getvalue())

    def target(self, table: str) -> tuple[str, ...]:
        return ("--output_table", f"{PROJECT}:{DATASET}.{table}", "--temp_location", f"gs://temp/{table}")

    def run(self, *arguments: object) -> dict[str, Any]:
        return self.endpoint.run(*arguments, **self.server.environment)[0]

    def killed(self, match: str, *arguments: object, after: bool = False, skip: int = 0) -> None:
        """Runs the command until it makes a request, of which the first `skip` are let through; it is killed before or after that."""
        process: list[subprocess.Popen[bytes]] = []
        if skip:
            self.proxy.inject(match, times=skip)
        fault = self.proxy.inject(match, call=lambda: process[0].kill(), after=after)
        command = [
            sys.executable,
            "-m",
            "pipeline",
            *self.endpoint.where,
            "--output_format",
            "parquet",
            *map(str, arguments),
        ]
        process.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **self.server.environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
        _, said = process[0].communicate(timeout=WITHIN_S)
        assert (process[0].returncode, fault.hits) == (-signal.SIGKILL, 1), said
        self.proxy.clear()

    def has_leftovers(self, table: str) -> bool:
        """Whether there are staging tables of any run, or load files."""
        return any(name.startswith("hear_staging_") for name in self.server.tables()) or bool(
            self.storage.names("temp", table)
        )

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """The table's rows by clip; none may be there twice."""
        rows = self.server.rows(table)
        by_id = {row["clip_id"]: row for row in rows}
        assert len(by_id) == len(rows)
        return by_id


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folders = [tmp_path_factory.mktemp(name) for name in ("storage", "bigquery", "endpoint")]
    with (
        proxied_storage(folders[0]) as (storage, _),
        proxied_bigquery(folders[1], storage.address) as (server, proxy),
        served(folders[2]) as endpoint,
    ):
        storage.make_bucket("clinic")
        storage.make_bucket("temp")
        yield Cloud(endpoint, storage, server, proxy)


@pytest.fixture(autouse=True)
def _no_faults(cloud: Cloud) -> None:
    cloud.proxy.clear()
    cloud.endpoint.arrived()


def assert_equal_to_files(cloud: Cloud, table: str, prefix: Path) -> None:
    """All three tables have the rows of the files, value by value."""
    expected = embeddings(prefix)
    found = cloud.rows(table)
    assert found.keys() == expected.keys()
    for clip_id, row in found.items():
        vector = expected[clip_id].pop("embedding")
        assert all(type(value) is float for value in row["embedding"])
        assert np.array_equal(np.float32(row.pop("embedding")), vector)
        assert (row.pop("manifest_row"), row.pop("metadata")) == (None, None)
        assert row == expected[clip_id]
    assert {row["recording_uri"]: row for row in cloud.server.rows(f"{table}_recordings")} == recordings(prefix)

    def in_order(rows: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in rows)

    assert in_order(cloud.server.rows(f"{table}_failures")) == in_order(failures(prefix))


def changes(summary: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {
        table["table"].removeprefix(f"{PROJECT}.{DATASET}."): (table["inserted"], table["updated"], table["deleted"])
        for table in summary["tables"]
    }


def test_tables_hold_what_the_files_hold_as_a_collection_grows_and_changes(cloud: Cloud, tmp_path: Path) -> None:
    cloud.upload("grows/a.wav", noise(4.2, seed=1))
    cloud.upload("grows/silent.wav", np.zeros(64000, np.int16))
    cloud.storage.upload("clinic", "grows/broken.wav", b"this is no recording")
    prefix = tmp_path / "grows"
    arguments = ("--input", "gs://clinic/grows", "--output", prefix, *cloud.target("grows"))
    summary = cloud.run(*arguments)
    assert changes(summary) == {"grows": (4, 0, 0), "grows_failures": (1, 0, 0), "grows_recordings": (3, 0, 0)}
    first = cloud.rows("grows")
    silent = [row for row in first.values() if row["recording_uri"].endswith("silent.wav")]
    assert [row["rms_dbfs"] for row in silent] == [-math.inf, -math.inf]
    assert sorted(row["start_s"] for row in silent) == [0.0, 2.0]
    assert_equal_to_files(cloud, "grows", prefix)
    assert not cloud.has_leftovers("grows")
    made = cloud.server.client.get_table(f"{DATASET}.grows")
    assert made.labels == {"hear-fingerprint": summary["fingerprint"]}
    assert made.clustering_fields == ["recording_uri"]
    assert [field.description for field in made.schema] == [column.description for column in COLUMNS["embeddings"]]

    cloud.upload("grows/a.wav", noise(2.0, seed=2))
    cloud.upload("grows/b.wav", noise(6.0, seed=3))
    cloud.upload("grows/broken.wav", noise(2.0, seed=4))
    summary = cloud.run(*arguments)
    assert changes(summary) == {"grows": (5, 0, 2), "grows_failures": (0, 0, 1), "grows_recordings": (1, 2, 0)}
    assert_equal_to_files(cloud, "grows", prefix)
    assert not cloud.has_leftovers("grows")


def test_a_manifest_to_tables_only_and_other_labels(cloud: Cloud, tmp_path: Path) -> None:
    for name in ("a", "b"):
        cloud.upload(f"labels/{name}.wav", noise(2.0, seed=ord(name)))
    checkpoint = "gs://clinic/labels-checkpoint"
    arguments = (
        "--manifest",
        "gs://clinic/labels/m.csv",
        "--output_table",
        f"{PROJECT}.{DATASET}.labels",
        "--checkpoint",
        checkpoint,
    )

    def run(manifest: str) -> tuple[dict[str, Any], list[tuple[Any, ...]], int]:
        cloud.storage.upload("clinic", "labels/m.csv", manifest.encode())
        done = cloud.endpoint.command(*arguments, **cloud.server.environment)
        assert done.returncode == 0, done.stderr
        (path,) = (
            name for name in cloud.storage.names("clinic", "labels-checkpoint/") if name.endswith("/summary.json")
        )
        summary = json.loads(cloud.storage.content("clinic", path)[0])
        cloud.storage.delete("clinic", path)
        assert f"{PROJECT}.{DATASET}.labels: {changes(summary)['labels'][0]} rows inserted" in done.stdout
        query = f"SELECT recording_uri, manifest_row, metadata, JSON_VALUE(metadata, '$.label') AS label FROM {DATASET}.labels"
        rows = [
            (row["recording_uri"][-5:], row["manifest_row"], row["metadata"], row["label"])
            for row in cloud.server.query(query)
        ]
        return summary, sorted(rows, key=lambda row: row[1]), sum(cloud.endpoint.arrived().clips.values())

    summary, rows, sent = run("uri,label\na.wav,cough\nb.wav,00017\n")
    assert rows == [("a.wav", 1, {"label": "cough"}, "cough"), ("b.wav", 2, {"label": "00017"}, "00017")]
    assert (sent, summary["files"], summary["output_table"]) == (2, [], f"{PROJECT}.{DATASET}.labels")

    summary, rows, sent = run('uri,label\na.wav,"sneeze, ""loud"""\na.wav,second\nb.wav,00017\n')
    assert [row[:2] + row[3:] for row in rows] == [
        ("a.wav", 1, 'sneeze, "loud"'),
        ("a.wav", 2, "second"),
        ("b.wav", 3, "00017"),
    ]
    assert (sent, changes(summary)["labels"]) == (0, (2, 1, 1))
    assert not cloud.storage.names("clinic", "labels-checkpoint/bigquery-")


def test_killed_before_during_and_after_load_and_merge(cloud: Cloud, tmp_path: Path) -> None:
    samples = {name: noise(4.0, seed=number) for number, name in enumerate(("a", "b"), 20)}
    for name in samples:
        cloud.upload(f"killed/{name}.wav", samples[name])
    prefix = tmp_path / "killed"
    arguments = ("--input", "gs://clinic/killed", "--output", prefix, *cloud.target("killed"))
    cloud.killed(LOAD, *arguments)
    assert cloud.has_leftovers("killed")
    staging = [name for name in cloud.server.tables() if name.startswith("hear_staging_")]
    left_s = [
        (table.expires - datetime.now(timezone.utc)).total_seconds()
        for table in (cloud.server.client.get_table(f"{DATASET}.{name}") for name in staging)
    ]
    assert len(left_s) == 3
    assert all(13 * 86400 < some <= 14 * 86400 for some in left_s)
    cloud.killed(LOAD, *arguments, after=True)
    cloud.killed(QUERY, *arguments, skip=1)
    assert not cloud.rows("killed")
    cloud.killed(QUERY, *arguments, skip=1, after=True)
    assert len(cloud.rows("killed")) == 4
    cloud.killed(
        "DELETE .*/tables/hear_staging.*_embeddings", *arguments, after=True, skip=1
    )  # the first is the sweep's
    assert cloud.has_leftovers("killed")
    summary = cloud.run(*arguments)
    assert_equal_to_files(cloud, "killed", prefix)
    assert changes(summary)["killed"] == (0, 0, 0)
    assert not cloud.has_leftovers("killed")
    assert (summary["requests"], summary["reused"]) == (0, 4)


def test_lost_answers_repeat_nothing(cloud: Cloud, tmp_path: Path) -> None:
    cloud.upload("lost/a.wav", noise(6.0, seed=30))
    prefix = tmp_path / "lost"
    faults = [
        cloud.proxy.inject(r"POST .*/tables\?", after=True, drop=True),
        cloud.proxy.inject(LOAD, after=True, drop=True),
        cloud.proxy.inject(r"GET .*/jobs/beam_", status=503),
        cloud.proxy.inject(r"GET .*/jobs/hear_merge_", after=True, status=500),
        cloud.proxy.inject(r"DELETE .*/tables/", after=True, drop=True),
    ]
    cloud.proxy.inject(QUERY)
    faults += [cloud.proxy.inject(QUERY, after=True, drop=True), cloud.proxy.inject(QUERY, after=True, status=503)]
    summary = cloud.run("--input", "gs://clinic/lost", "--output", prefix, *cloud.target("lost"))
    assert [fault.hits for fault in faults] == [1] * len(faults)
    assert_equal_to_files(cloud, "lost", prefix)
    assert len(summary["tables"]) == 3
    assert {table["job"].rpartition("_")[2] for table in summary["tables"]} == {"0"}
    assert not cloud.has_leftovers("lost")


def test_two_worker_processes_give_the_same_table(cloud: Cloud, tmp_path: Path) -> None:
    for number in range(12):
        cloud.upload(f"two/{number}.wav", noise(2.0, seed=40 + number))
    prefix = tmp_path / "two"
    two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    summary = cloud.run("--input", "gs://clinic/two", "--output", prefix, *cloud.target("two"), *two)
    assert changes(summary)["two"] == (12, 0, 0)
    assert_equal_to_files(cloud, "two", prefix)
    assert not cloud.has_leftovers("two")


def test_what_fails_or_is_interrupted_leaves_nothing_and_is_gone_on_from(cloud: Cloud, tmp_path: Path) -> None:
    samples = noise(2.0, seed=50)
    cloud.upload("fails/a.wav", samples)
    arguments = ("--input", "gs://clinic/fails", "--output", tmp_path / "fails", *cloud.target("fails"))
    cloud.proxy.inject(LOAD, status=403, reason="accessDenied", times=-1)
    done = cloud.endpoint.command(*arguments, **cloud.server.environment)
    assert done.returncode == 1
    assert "(HTTP 403, accessDenied)" in done.stderr
    assert (done.stderr.count("\n"), "injected" in done.stderr) == (1, False), done.stderr
    assert not cloud.has_leftovers("fails")
    assert list(cloud.endpoint.arrived().clips.elements()) == digests(samples)

    cloud.proxy.clear()
    slow = cloud.proxy.inject(LOAD, delay_s=2.0)
    status, said, _ = cloud.endpoint.interrupt(
        signal.SIGINT, lambda: slow.hits == 1, *arguments, **cloud.server.environment
    )
    assert (status, said.count("\n")) == (130, 1), said
    assert not cloud.has_leftovers("fails")
    assert cloud.endpoint.arrived().only_probe
    assert not cloud.rows("fails")


def test_tables_that_rows_must_not_go_into_are_refused_before_anything_is_sent(cloud: Cloud, tmp_path: Path) -> None:
    cloud.upload("refused/a.wav", noise(2.0, seed=60))
    fields = [bigquery.SchemaField(c.name, c.type, c.mode) for c in COLUMNS["embeddings"]]
    for table, columns in (("no_codec", [f for f in fields if f.name != "codec"]), ("other_model", fields)):
        cloud.server.client.create_table(bigquery.Table(f"{PROJECT}.{DATASET}.{table}", schema=columns))
    values = ", ".join(
        {"STRING": "'x'", "INT64": "1", "FLOAT64": "1.0"}[c.type] for c in COLUMNS["embeddings"] if c.mode == "REQUIRED"
    )
    required = ", ".join(c.name for c in COLUMNS["embeddings"] if c.mode == "REQUIRED")
    cloud.server.query(f"INSERT INTO {DATASET}.other_model ({required}) VALUES ({values})")
    before = cloud.server.tables()
    for table, said in (
        (f"{PROJECT}:{DATASET}.no_codec", ["no_codec has no column 'codec': expected STRING REQUIRED"]),
        (f"{PROJECT}:{DATASET}.other_model", ["holds rows of the fingerprint 'x'", "must not be mixed"]),
        (f"{PROJECT}:nowhere.t", ["there is no dataset 'nowhere'", f"bq mk -d {PROJECT}:nowhere"]),
    ):
        arguments = ("--input", "gs://clinic/refused", "--output", tmp_path / "r", "--temp_location", "gs://temp/r")
        cloud.endpoint.refused(
            *arguments, "--output_table", table, status=2, said=["--output_table", *said], **cloud.server.environment
        )
    assert cloud.server.tables() == before


@needs_shared_audio
def test_real_recordings_have_the_rows_of_the_tensorflow_records(cloud: Cloud, tmp_path: Path) -> None:
    assert SHARED_AUDIO is not None
    for path in sorted((SHARED_AUDIO / "health").rglob("*")):
        if path.is_file():
            cloud.storage.upload("clinic", f"health/{path.relative_to(SHARED_AUDIO / 'health')}", path.read_bytes())
    prefix = tmp_path / "health"
    more = ("--output", prefix, "--output_format", "tfrecord", *cloud.target("health"))
    summary = cloud.run("--input", "gs://clinic/health", *more)
    expected: dict[str, np.ndarray] = {}
    for path in shards(prefix, "tfrecord"):
        for record in _records(path.read_bytes()):
            features = EXAMPLE.FromString(record).features.feature
            expected[features["clip_id"].bytes_list.value[0].decode()] = np.float32(
                features["embedding"].float_list.value
            )
    found = cloud.rows("health")
    assert found.keys() == expected.keys()
    assert len(found) == summary["embedded"] > 500
    assert all(np.array_equal(np.float32(found[clip_id]["embedding"]), vector) for clip_id, vector in expected.items())
    query = f"SELECT COUNT(*) AS n, SUM(ARRAY_LENGTH(embedding)) AS floats FROM {DATASET}.health"
    assert cloud.server.query(query) == [{"n": len(expected), "floats": 512 * len(expected)}]


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: their length in 8 bytes, 4 of checksum, the record, 4 of checksum."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        yield data[at + 12 : at + 12 + length]
        at += length + 16
