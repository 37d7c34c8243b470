import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows.checkpoint import MAGIC, DamagedRecord, FileBuilder, read_all, read_embedding
from tests.rows.samples import census, embedding_row, failure_row


def test_rows_come_back_as_they_were_added() -> None:
    rows = [
        embedding_row(seed=1),
        failure_row("d" * 32),
        census(),
        embedding_row(clip_id="e" * 32, seed=2, rms_dbfs=-math.inf),
    ]
    builder = FileBuilder()
    for row in rows:
        builder.add("segment", row)
    back = list(read_all(builder.data()))
    assert [segment for segment, _ in back] == ["segment"] * 4
    for (_, read), row in zip(back, rows, strict=True):
        assert type(read) is type(row)
        assert read[:-1] == row[:-1]
    assert np.array_equal(back[3][1].embedding, rows[3].embedding)
    assert back[3][1].embedding.dtype == np.float32


def test_the_file_has_the_documented_layout() -> None:
    builder = FileBuilder()
    row = embedding_row()
    builder.add("s1", row)
    data = builder.data()
    assert data.startswith(MAGIC)
    length, checksum, json_length = struct.unpack_from("<III", data, len(MAGIC))
    payload = data[len(MAGIC) + 8 :]
    assert (len(payload), zlib.crc32(payload)) == (length, checksum)
    assert payload[4 : 4 + json_length].startswith(b'["embedding","s1",["cccc')
    assert payload[4 + json_length :] == row.embedding.astype("<f4").tobytes()


def test_receipts_point_at_the_rows_of_their_segment() -> None:
    builder = FileBuilder()
    first, second = embedding_row(seed=1), embedding_row(clip_id="e" * 32, seed=2)
    builder.add("s1", first)
    builder.add("s2", second)
    builder.add("s1", failure_row())
    builder.add("s1", census(clips=2))
    one, two = builder.receipts("packet/file.rows")
    assert (one.segment_id, one.file, two.segment_id) == ("s1", "packet/file.rows", "s2")
    assert one.failures == (failure_row(),)
    assert one.census == census(clips=2)
    assert two.census is None
    assert np.array_equal(read_embedding(builder.data(), two.clips[0].offset).embedding, second.embedding)
    assert read_embedding(builder.data(), one.clips[0].offset).clip_id == first.clip_id


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    builder = FileBuilder()
    builder.add("s", embedding_row())
    builder.add("s", census())
    whole = builder.data()
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedRecord):
        list(read_all(bytes(damaged)))


@given(st.integers(0, 5000))
def test_a_file_that_ends_early_gives_its_whole_rows_and_says_so(length: int) -> None:
    builder = FileBuilder()
    sizes = [len(builder.data())]
    for number in range(2):
        builder.add("s", embedding_row(clip_id=str(number)))
        sizes.append(len(builder.data()))
    cut = builder.data()[:length]
    read = []
    try:
        for _, row in read_all(cut):
            read.append(row.clip_id)
    except DamagedRecord:
        assert length not in sizes
    else:
        assert length >= sizes[-1] or length in sizes
    assert len(read) == sum(length >= size for size in sizes[1:])


def test_what_is_no_embedding_is_not_read_as_one() -> None:
    builder = FileBuilder()
    builder.add("s", census())
    with pytest.raises(DamagedRecord, match="not an embedding"):
        read_embedding(builder.data(), len(MAGIC))
