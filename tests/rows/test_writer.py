import threading

import pytest

from rows.checkpoint import read_all
from rows.store import StoreError
from rows.writer import CheckpointWriteError, CheckpointWriter
from tests.rows.samples import census, embedding_row


class Store:
    """Keeps files in memory; says when one has come."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.written = threading.Semaphore(0)

    def __call__(self, path: str, data: bytes) -> None:
        assert path not in self.files, "a file is written once"
        self.files[path] = data
        self.written.release()

    def ids(self) -> list[str]:
        return [row.clip_id for data in self.files.values() for _, row in read_all(data)]


def refuse(_path: str, _data: bytes) -> None:
    raise StoreError("cannot write '/full/disk' of the checkpoint (No space left on device)")


def test_rows_are_stored_in_the_folders_of_their_packets() -> None:
    store = Store()
    writer = CheckpointWriter("run", store)
    writer.add("p1", "s1", embedding_row(clip_id="a"))
    writer.add("p2", "s2", embedding_row(clip_id="b"))
    receipts = writer.flush()
    writer.close()
    assert sorted(path.rsplit("/", 1)[0] for path in store.files) == ["run/p1", "run/p2"]
    by_segment = {receipt.segment_id: receipt for receipt in receipts}
    assert by_segment["s1"].file in store.files
    assert [reference.clip_id for reference in by_segment["s2"].clips] == ["b"]


def test_so_many_rows_are_stored_without_being_asked() -> None:
    store = Store()
    writer = CheckpointWriter("run", store, flush_rows=3, flush_s=1e9)
    for number in range(7):
        writer.add("p", "s", embedding_row(clip_id=str(number)))
    assert store.written.acquire(timeout=30)
    assert store.written.acquire(timeout=30)
    assert sorted(store.ids()) == list("012345")
    assert len([r for r in writer.flush() for _ in r.clips]) == 7
    writer.close()


def test_a_row_is_stored_when_it_has_waited_long_enough_although_nobody_calls() -> None:
    store = Store()
    writer = CheckpointWriter("run", store, flush_s=0.01)
    writer.add("p", "s", embedding_row(clip_id="lonely"))
    assert store.written.acquire(timeout=30)
    assert store.ids() == ["lonely"]
    writer.close()


def test_a_finished_packet_is_stored_at_once() -> None:
    store = Store()
    writer = CheckpointWriter("run", store, flush_s=1e9)
    writer.add("p", "s", census())
    writer.finish("p")
    assert store.written.acquire(timeout=30)
    writer.finish("p")
    assert writer.flush()
    writer.close()
    assert len(store.files) == 1


def test_each_receipt_is_given_once() -> None:
    writer = CheckpointWriter("run", Store())
    writer.add("p", "s", embedding_row())
    assert len(writer.flush()) == 1
    assert writer.receipts() == []
    assert writer.flush() == []
    writer.close()


def test_a_write_that_fails_is_raised_with_its_place_and_reason() -> None:
    writer = CheckpointWriter("run", refuse)
    writer.add("p", "s", embedding_row())
    with pytest.raises(CheckpointWriteError, match=r"'/full/disk' of the checkpoint \(No space left on device\)"):
        writer.flush()
    with pytest.raises(CheckpointWriteError):
        writer.receipts()
    writer.close()
