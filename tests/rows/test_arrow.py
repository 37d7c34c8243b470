import math
import pickle

import numpy as np
import pyarrow as pa
import pytest

from rows.arrow import EMBEDDINGS_SCHEMA, RECORDINGS_SCHEMA, embeddings_schema, embeddings_table, recordings_table
from rows.model import EmbeddingRow, RecordingRow, TableRow
from tests.rows.samples import embedding_row


def test_embeddings_keep_every_value() -> None:
    rows = [embedding_row(clip_id=str(seed), seed=seed, peak_dbfs=-math.inf) for seed in range(3)]
    table = embeddings_table([TableRow(row, None, ()) for row in rows])
    assert table.schema == EMBEDDINGS_SCHEMA
    for line, row in zip(table.to_pylist(), rows, strict=True):
        assert np.array_equal(np.float32(line.pop("embedding")), row.embedding)
        assert line == {name: value for name, value in row._asdict().items() if name != "embedding"}


def test_rows_of_a_manifest_have_its_row_number_and_columns() -> None:
    schema = embeddings_schema(has_manifest=True)
    rows = [
        TableRow(embedding_row(), 7, (("label", "cough"), ("id", "00123"), ("label 2", ""))),
        TableRow(embedding_row(), 8, ()),
    ]
    table = embeddings_table(rows, schema)
    assert table.schema == schema
    assert table.column_names == [*EMBEDDINGS_SCHEMA.names, "manifest_row", "metadata"]
    first, second = table.to_pylist()
    assert (first["manifest_row"], dict(first["metadata"])) == (7, {"label": "cough", "id": "00123", "label 2": ""})
    assert (second["manifest_row"], second["metadata"]) == (8, [])


def test_the_embedding_is_a_fixed_size_list_of_512_float32() -> None:
    kind = EMBEDDINGS_SCHEMA.field("embedding").type
    assert pa.types.is_fixed_size_list(kind)
    assert (kind.list_size, kind.value_type) == (512, pa.float32())


def test_no_rows_are_an_empty_table() -> None:
    assert embeddings_table([]).num_rows == 0


def test_the_schemas_have_the_rows_columns_in_their_order() -> None:
    assert tuple(EMBEDDINGS_SCHEMA.names) == EmbeddingRow._fields
    assert tuple(RECORDINGS_SCHEMA.names) == RecordingRow._fields


def test_recordings_may_be_unknown_but_for_their_name() -> None:
    row = RecordingRow(
        "/a b.wav", "", 0, None, None, None, None, None, None, 0, 0.0, 0, 0, 0, 0, 0, "failed", ["not_audio"]
    )
    assert recordings_table([row]).to_pylist() == [row._asdict()]


@pytest.mark.parametrize("schema", [EMBEDDINGS_SCHEMA, RECORDINGS_SCHEMA])
def test_the_schemas_survive_the_way_to_a_worker(schema: pa.Schema) -> None:
    assert pickle.loads(pickle.dumps(schema)) == schema
