"""CPU time and bytes of a row of the embeddings' table, in each form in which it is written.

Files: TFRecord and Parquet, by this project's writers. BigQuery: the load files that Beam writes, in Avro, which is used
here, and in JSON, which is Beam's default. The forms take turns, and of each the best round counts.

Run as `python -m benchmarks.rows_written [--short]`; exits with 1 if Avro does not cost less than half of what JSON does.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from apache_beam.io.gcp.bigquery_tools import AvroRowWriter, JsonRowWriter

from rows.bigquery import beam_schema, embedding_dict
from rows.model import EmbeddingRow, TableRow
from transforms.write_tables import TFRecordWriter, embeddings_to_parquet

EXPECTED_RATIO = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="500 rows instead of 2,000")
    options = parser.parse_args()
    count, rounds = (500, 3) if options.short else (2000, 5)
    rows = [a_row(number) for number in range(count)]
    forms: dict[str, Callable[[list[TableRow]], int]] = {
        "BigQuery load file, JSON (Beam's default)": as_json,
        "BigQuery load file, Avro": as_avro,
        "TFRecord": as_tfrecord,
        "Parquet": as_parquet,
    }
    best = dict.fromkeys(forms, float("inf"))
    size: dict[str, int] = {}
    for _ in range(rounds):
        for form, write in forms.items():
            begin_s = time.process_time()
            size[form] = write(rows)
            best[form] = min(best[form], 1e6 * (time.process_time() - begin_s) / count)
    print(f"{f'a row; best of {rounds} rounds of {count:,}':<46}{'CPU us':>9}{'bytes':>9}{'ratio':>9}")
    dearest = best["BigQuery load file, JSON (Beam's default)"]
    for form, micros in best.items():
        print(f"{form:<46}{micros:>9.0f}{size[form] / count:>9,.0f}{dearest / micros:>9.1f}")
    ratio = dearest / best["BigQuery load file, Avro"]
    passed = ratio > EXPECTED_RATIO
    print(f"{'PASS' if passed else 'FAIL'}: {ratio:.1f} times less CPU in Avro, expected more than {EXPECTED_RATIO:g}")
    return 0 if passed else 1


def a_row(number: int) -> TableRow:
    """A row with random numbers."""
    embedding = np.random.default_rng(number).normal(0, 1, 512).astype(np.float32)
    clip = EmbeddingRow(
        f"{number:032x}",
        f"gs://bucket/study/recording-{number // 4:06d}.wav",
        "1700000000000000",
        "mean",
        number % 4,
        2.0 * (number % 4),
        2.0 * (number % 4) + 2.0,
        0.0,
        -23.4,
        -3.2,
        44100,
        1,
        "pcm_s16le",
        "hear",
        "projects/1/locations/us-west1/endpoints/200@1",
        "0123456789abcdef",
        embedding,
    )
    return TableRow(clip, None, ())


def as_tfrecord(rows: list[TableRow]) -> int:
    file = io.BytesIO()
    TFRecordWriter(file).write(rows)
    return file.tell()


def as_parquet(rows: list[TableRow]) -> int:
    file = io.BytesIO()
    writer = embeddings_to_parquet(has_manifest=False)(file)
    writer.write(rows)
    writer.close()
    return file.tell()


def as_load_file(rows: list[TableRow], make: Callable[[io.BytesIO], AvroRowWriter | JsonRowWriter]) -> int:
    file = io.BytesIO()
    writer = make(file)
    for row in rows:
        writer.write(embedding_dict(row))
    writer.flush()
    size = file.tell()
    writer.close()
    return size


as_avro = partial(as_load_file, make=lambda file: AvroRowWriter(file, beam_schema("embeddings")))
as_json = partial(as_load_file, make=JsonRowWriter)

if __name__ == "__main__":
    sys.exit(main())
