"""Receipts of earlier runs, from the generations that were there at launch."""

from pathlib import Path

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from rows.model import Receipt
from tests.rows.samples import census, embedding_row, failure_row
from tests.transforms.samples import keep, kept, store
from transforms.read_earlier import ReadEarlier


def read(checkpoint: Path, *generations: str) -> tuple[list[tuple[str, Receipt]], list[str]]:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        earlier = pipeline | ReadEarlier(str(checkpoint), generations)
        for name in ("receipts", "damaged"):
            keep(earlier[name], checkpoint / name)
    found: list[tuple[str, Receipt]] = kept(checkpoint / "receipts")
    return sorted(found, key=lambda keyed: (keyed[1].file, keyed[0])), sorted(kept(checkpoint / "damaged"))


def test_receipts_are_keyed_by_recording_and_those_of_the_named_generations_only(tmp_path: Path) -> None:
    first = store(tmp_path, "run1/p/0.rows", [("s1", embedding_row("a")), ("s2", census(uri="/b.wav"))])
    second = store(tmp_path, "run2/p/0.rows", [("s1", failure_row("b")), ("s1", census())])
    store(tmp_path, "run3/p/0.rows", [("s1", embedding_row("written meanwhile"))])
    (tmp_path / "run1" / "run.json").write_text("{}")
    found, damaged = read(tmp_path, "run1", "run2")
    assert sorted(receipt for _, receipt in found) == sorted(first + second)
    assert all(uri == receipt.recording_uri for uri, receipt in found)
    assert damaged == []


def test_damaged_files_are_named_and_cost_their_own_rows_only(tmp_path: Path) -> None:
    rows = [("s", embedding_row(str(number))) for number in range(3)]
    for name in ("whole", "cut", "flipped", "empty"):
        store(tmp_path, f"run1/p/{name}.rows", rows)
    folder = tmp_path / "run1" / "p"
    cut, flipped = (folder / "cut.rows").read_bytes(), bytearray((folder / "flipped.rows").read_bytes())
    (folder / "cut.rows").write_bytes(cut[:-1])
    flipped[len(flipped) // 2] ^= 4
    (folder / "flipped.rows").write_bytes(flipped)
    (folder / "empty.rows").write_bytes(b"")
    found, damaged = read(tmp_path, "run1")
    clips = {receipt.file: [clip.clip_id for clip in receipt.clips] for _, receipt in found}
    assert clips == {
        "run1/p/whole.rows": ["0", "1", "2"],
        "run1/p/cut.rows": ["0", "1"],
        "run1/p/flipped.rows": ["0", "2"],
    }
    assert damaged == ["run1/p/cut.rows", "run1/p/empty.rows", "run1/p/flipped.rows"]


def test_no_generations_are_no_receipts(tmp_path: Path) -> None:
    assert read(tmp_path) == ([], [])
