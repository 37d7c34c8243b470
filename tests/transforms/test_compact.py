"""Old generations put together: the same receipts and rows as before, in few files."""

from pathlib import Path

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from rows.checkpoint import FileBuilder, read_all, read_receipts
from rows.generations import Merge, generations, live, note_run, row_files
from rows.held import Held
from rows.store import Store, open_store
from tests.rows.samples import census, embedding_row, failure_row
from tests.transforms.packet_work import Store as MemoryStore
from tests.transforms.samples import store
from transforms.compact import Compact, merge_files


def held(of: Store, generation: str) -> list[tuple[str, str, object, object, object]]:
    """What the receipts of a generation say, but for where it stands."""
    told = []
    for name in row_files(of, generation):
        for receipt in read_receipts(of.read(name), name, "unknown")[0]:
            clips = sorted(clip.clip_id for clip in receipt.clips)
            told.append((receipt.run_id, receipt.segment_id, clips, receipt.failures, receipt.census))
    return sorted(told, key=repr)


def test_merged_generations_say_what_the_old_ones_said(tmp_path: Path) -> None:
    for run in range(3):
        for number in range(20):
            clip = f"{run}-{number}"
            rows = [("s", embedding_row(clip, seed=number)), ("s", failure_row("f" + clip)), ("s", census((clip,)))]
            store(tmp_path, f"run{run}/p{number}/0.rows", [(f"s{number}", row) for _, row in rows])
        note_run(open_store(str(tmp_path)), f"run{run}", {"run_id": f"run{run}"})
    (tmp_path / "run2/p0/0.rows").write_bytes((tmp_path / "run2/p0/0.rows").read_bytes()[:-3])
    checkpoint = open_store(str(tmp_path))
    before = sorted(held(checkpoint, "run0") + held(checkpoint, "run1") + held(checkpoint, "run2"), key=repr)
    merge = Merge("run3-merged1", ("run0", "run1", "run2"))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | "Written" >> beam.Create(["summary.json"]) | Compact(str(tmp_path), merge)
    assert held(checkpoint, "run3-merged1") == before
    assert len(list(row_files(checkpoint, "run3-merged1"))) <= 16
    assert live(generations(checkpoint)) == ("run3-merged1",)
    assert not [name for run in range(3) for name in row_files(checkpoint, f"run{run}")]
    rows = {
        row.clip_id: row.embedding.tobytes()
        for name in row_files(checkpoint, "run3-merged1")
        for _, row in read_all(checkpoint.read(name))
        if hasattr(row, "embedding")
    }
    assert rows["1-7"] == embedding_row(seed=7).embedding.tobytes()


@given(st.integers(1, 12), st.integers(1, 6000))
def test_files_are_cut_at_about_the_size_that_is_asked_for(files: int, size: int) -> None:
    memory = MemoryStore()
    for number in range(files):
        builder = FileBuilder("run")
        builder.add("s", embedding_row(str(number)))
        memory.write(f"run/p/{number:02d}.rows", builder.data())
    merge_files(memory, list(memory.names("run/")), "new/0", file_bytes=size)
    merged = sorted(memory.names("new/"))
    ids = [row.clip_id for name in merged for _, row in read_all(memory.read(name))]
    assert ids == [str(number) for number in range(files)]
    assert all(len(memory.read(name)) < size + 3500 for name in merged)


def test_a_later_runs_word_still_counts_after_a_merge() -> None:
    memory = MemoryStore()
    for run, code in (("run1", "storage_error"), ("run2", "truncated")):
        builder = FileBuilder(run)
        builder.add("s", failure_row(code=code))
        builder.add("s", census(()))
        memory.write(f"{run}/p/0.rows", builder.data())
    merge_files(memory, ["run2/p/0.rows", "run1/p/0.rows"], "merged/0")
    (name,) = memory.names("merged/")
    found = Held(read_receipts(memory.read(name), name, "unknown")[0])
    assert [failure.code for failure in found.segment_failures("s")] == ["truncated"]
