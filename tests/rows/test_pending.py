"""The index of a shard gives back the clips that were written to it, or says that it is damaged."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows.model import EmbeddingRow
from rows.pending import DamagedIndex, PendingClip, decode_clip, decode_index, encode_clip, encode_index, index_lines
from tests.rows.samples import embedding_row

TEXTS = st.text(max_size=20)  # surrogates included: names of files may be any bytes
FLOATS = st.floats(allow_nan=False)
CLIPS = st.builds(
    PendingClip,
    digest=st.text("0123456789abcdef", min_size=32, max_size=32),
    segment_id=TEXTS,
    clip_id=TEXTS,
    recording_uri=TEXTS,
    recording_version=TEXTS,
    channel=TEXTS,
    clip_index=st.integers(0, 10**9),
    start_s=FLOATS,
    end_s=FLOATS,
    padded_s=FLOATS,
    rms_dbfs=FLOATS,
    peak_dbfs=FLOATS,
    source_rate_hz=st.integers(1, 10**6),
    source_channels=st.integers(1, 100),
    codec=TEXTS,
    model_id=TEXTS,
    fingerprint=TEXTS,
)


def clip(number: int) -> PendingClip:
    return PendingClip.of(f"{number:032x}", f"segment {number}", embedding_row(str(number), clip_index=number))


def test_a_pending_clip_has_all_columns_but_the_answer() -> None:
    assert PendingClip._fields == (
        "digest",
        "segment_id",
        *(name for name in EmbeddingRow._fields if name not in ("endpoint", "embedding")),
    )


def test_a_row_is_what_it_was_with_the_endpoint_and_embedding_that_answered() -> None:
    row = embedding_row("one", rms_dbfs=-math.inf, peak_dbfs=-math.inf)
    embedding = np.arange(512, dtype=np.float32)
    pending = decode_clip(encode_clip(PendingClip.of("d" * 32, "s", row)))
    assert (pending.digest, pending.segment_id) == ("d" * 32, "s")
    made = pending.embedded("projects/p/locations/l/models/1@2", embedding)
    assert made[:-1] == row._replace(endpoint="projects/p/locations/l/models/1@2")[:-1]
    assert made.embedding is embedding


@given(st.lists(CLIPS, max_size=5))
def test_an_index_gives_back_its_clips_in_order(clips: list[PendingClip]) -> None:
    data = encode_index(clips)
    assert list(decode_index(data)) == clips
    assert [decode_clip(line) for line in index_lines(data)] == clips
    assert data.isascii()


def test_an_index_is_lines_of_json() -> None:
    head, *lines = map(json.loads, encode_index([clip(1), clip(2)]).splitlines())
    assert head[:2] == ["hear-index-1", 2]
    assert lines == [list(clip(1)), list(clip(2))]


@given(st.data())
def test_a_damaged_index_is_told_before_its_first_clip(data: st.DataObject) -> None:
    whole = encode_index(map(clip, range(3)))
    at = data.draw(st.integers(0, len(whole) - 1))
    cut, flipped = whole[:at], bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    longer = whole + b'["x"]\n'
    for damaged in (cut, bytes(flipped), longer):
        with pytest.raises(DamagedIndex):
            decode_index(damaged)


def test_a_clips_repr_says_where_it_is_and_nothing_else() -> None:
    assert repr(clip(1)) == "PendingClip(clip_id='1', recording_uri='/data/cough.wav', start_s=6.0)"
