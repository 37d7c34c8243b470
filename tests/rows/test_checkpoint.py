import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows.checkpoint import MAGIC, DamagedRecord, FileBuilder, read_all, read_embedding, read_receipts, scan
from rows.model import EmbeddingRow
from tests.rows.samples import census, embedding_row, failure_row


def test_rows_come_back_as_they_were_added() -> None:
    rows = [
        embedding_row(seed=1),
        failure_row("d" * 32),
        census(),
        embedding_row(clip_id="e" * 32, seed=2, rms_dbfs=-math.inf),
    ]
    builder = FileBuilder("run")
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
    builder = FileBuilder("run")
    row = embedding_row()
    builder.add("s1", row)
    data = builder.data()
    assert data.startswith(MAGIC)
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    second = len(MAGIC) + 8 + length
    assert data[len(MAGIC) + 12 : second] == b'["run","run"]'
    length, checksum, json_length = struct.unpack_from("<III", data, second)
    payload = data[second + 8 :]
    assert (len(payload), zlib.crc32(payload)) == (length, checksum)
    assert payload[4 : 4 + json_length].startswith(b'["embedding","s1",["cccc')
    assert payload[4 + json_length :] == row.embedding.astype("<f4").tobytes()


def test_receipts_point_at_the_rows_of_their_segment() -> None:
    builder = FileBuilder("run")
    first, second = embedding_row(seed=1), embedding_row(clip_id="e" * 32, seed=2)
    builder.add("s1", first)
    builder.add("s2", second)
    builder.add("s1", failure_row())
    builder.add("s1", census(("c" * 32, "e" * 32)))
    one, two = builder.receipts("packet/file.rows")
    assert (one.segment_id, one.file, two.segment_id) == ("s1", "packet/file.rows", "s2")
    assert one.failures == (failure_row(),)
    assert one.census == census(("c" * 32, "e" * 32))
    assert two.census is None
    assert np.array_equal(read_embedding(builder.data(), two.clips[0].offset).embedding, second.embedding)
    assert read_embedding(builder.data(), one.clips[0].offset).clip_id == first.clip_id


def ids(data: bytes) -> list[str]:
    return [row.clip_id for _, row in read_all(data) if isinstance(row, EmbeddingRow)]


def a_file(clips: int) -> bytes:
    builder = FileBuilder("run")
    for number in range(clips):
        builder.add("s", embedding_row(clip_id=str(number)))
    return builder.data()


@given(st.data())
def test_a_changed_byte_costs_the_row_that_it_is_in_and_no_other(data: st.DataObject) -> None:
    whole = a_file(4)
    ends = [record.stop for record in scan(whole)]  # of the run's record and of four rows
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= data.draw(st.integers(1, 255))
    hit = sum(position >= end for end in ends)
    expected = [str(number) for number in range(4) if number + 1 != hit or position < len(MAGIC)]
    assert ids(bytes(damaged)) == expected
    assert read_receipts(bytes(damaged), "f", "run")[1] > 0


@given(st.integers(0, 6000))
def test_a_file_that_ends_early_gives_its_whole_rows(length: int) -> None:
    whole = a_file(2)
    ends = [record.stop for record in scan(whole)][1:]
    assert ids(whole[:length]) == [str(number) for number, end in enumerate(ends) if length >= end]


@given(st.integers(0, 2000), st.integers(1, 2500))
def test_a_hole_in_a_file_costs_what_it_covers(start: int, size: int) -> None:
    whole = a_file(4)
    records = list(scan(whole))[1:]
    holed = whole[:start] + whole[start + size :]
    kept = [str(n) for n, record in enumerate(records) if record.stop <= start or record.offset >= start + size]
    assert ids(holed) == kept


@given(st.binary(max_size=3000).filter(lambda data: not data.startswith(MAGIC)))
def test_bytes_that_are_no_checkpoint_file_give_nothing(data: bytes) -> None:
    assert list(read_all(data)) == []
    receipts, damaged = read_receipts(data, "f", "run")
    assert receipts == []
    assert damaged == max(1, len(data))


def test_an_empty_file_counts_as_damaged() -> None:
    assert read_receipts(b"", "f", "run") == ([], 1)


def test_receipts_read_back_are_those_that_were_given() -> None:
    builder = FileBuilder("run7")
    builder.add("s1", embedding_row(clip_id="a", start_s=4.0))
    builder.add("s2", failure_row("b", manifest_row=3))
    builder.add("s1", census(("a", "z"), failed_takes=((1, "event_beyond_end", "too late"),)))
    read, damaged = read_receipts(builder.data(), "run7/p/f.rows", "another")
    assert read == builder.receipts("run7/p/f.rows")
    assert damaged == 0
    assert {receipt.run_id for receipt in read} == {"run7"}


def test_rows_belong_to_the_folders_run_where_the_file_does_not_say_so() -> None:
    builder = FileBuilder("run7")
    builder.add("s1", embedding_row(clip_id="a"))
    run_record, _ = scan(builder.data())
    damaged = bytearray(builder.data())
    damaged[run_record.offset + 14] ^= 1
    (receipt,), damaged_bytes = read_receipts(bytes(damaged), "run7/p/f.rows", "folder")
    assert receipt.run_id == "folder"
    assert damaged_bytes == run_record.stop - run_record.offset


def test_what_is_no_embedding_is_not_read_as_one() -> None:
    builder = FileBuilder("run")
    builder.add("s", census())
    offset = [record.offset for record in scan(builder.data())][1]
    with pytest.raises(DamagedRecord, match="not an embedding"):
        read_embedding(builder.data(), offset)
    with pytest.raises(DamagedRecord, match="checksum"):
        read_embedding(builder.data(), offset + 1)
