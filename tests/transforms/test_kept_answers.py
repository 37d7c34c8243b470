"""Embeddings are given back from their files, and of several answers for the same samples always the same one counts."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audio.gcs import StorageServer
from transforms.files import FileError, WriteError
from transforms.kept_answers import Answered, AnswerKeeper, Refusal, best, read_answers

ANSWERED = st.builds(Answered, st.integers(0, 9), st.sampled_from("abc"), st.integers(0, 9))
REFUSAL = st.builds(Refusal, st.booleans(), st.sampled_from("abc"), st.just("why"), st.integers(1, 3))


def embedding(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(512).astype(np.float32)


def test_embeddings_are_given_back_by_their_places(server: StorageServer, bucket: str, reached: str) -> None:
    keeper = AnswerKeeper(f"{reached}/answers/", rows=4)
    stored = [pair for number in range(10) for pair in keeper.add(f"digest {number}", embedding(number))]
    assert [len(stored), keeper.add("digest 10", embedding(10))] == [8, []]
    stored += keeper.flush()
    assert keeper.flush() == []
    assert [digest for digest, _ in stored] == [f"digest {number}" for number in range(11)]
    assert len({answered.file for _, answered in stored}) == len(server.names(bucket, "folder/answers/")) == 3
    for number, (_, answered) in enumerate(stored):
        kept = read_answers(f"{reached}/answers/{answered.file}")
        assert kept[answered.row].tobytes() == embedding(number).tobytes()
        assert answered.checksum == zlib.crc32(embedding(number).tobytes())


def test_the_same_samples_again_and_again_are_kept_once(server: StorageServer, bucket: str, reached: str) -> None:
    silence = [embedding(1), embedding(2), embedding(3)]
    counts = min(silence, key=lambda one: zlib.crc32(one.tobytes()))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        keeper = AnswerKeeper(f"{reached}/answers/", rows=2)
        for number in order * 100:
            assert keeper.add("silence", silence[number]) == []
        ((_, answered),) = keeper.flush()
        kept = read_answers(f"{reached}/answers/{answered.file}")
        assert kept.tobytes() == counts.tobytes()


@given(st.lists(ANSWERED, min_size=1), st.lists(REFUSAL), st.randoms())
def test_any_embedding_counts_more_than_any_refusal(answered, refused, random) -> None:
    answers = [*answered, *refused]
    random.shuffle(answers)
    assert best(answers) == min(answered)


@given(st.lists(REFUSAL, min_size=1), st.randoms())
def test_a_refusal_that_may_pass_counts_more_than_one_that_may_not(refused, random) -> None:
    found = best(refused)
    random.shuffle(refused)
    assert isinstance(found, Refusal)
    assert found == best(refused)
    assert found.is_final == all(one.is_final for one in refused)


def test_of_no_answers_none_counts() -> None:
    assert best([]) is None


def test_a_file_that_cannot_be_written_or_is_not_what_was_written_is_named(
    server: StorageServer, bucket: str, reached: str
) -> None:
    keeper = AnswerKeeper("gs://no-such-bucket/answers/")
    keeper.add("digest", embedding(1))
    with pytest.raises(WriteError, match=r"cannot write 'gs://no-such-bucket/answers/.*HTTP 404"):
        keeper.flush()
    server.upload(bucket, "folder/answers/cut", b"x" * 100)
    with pytest.raises(FileError, match=r"'gs://.*/folder/answers/cut' is not as it was written"):
        read_answers(f"{reached}/answers/cut")
    with pytest.raises(FileError, match=r"'gs://.*/folder/answers/gone' .HTTP 404"):
        read_answers(f"{reached}/answers/gone")
