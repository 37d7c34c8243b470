"""Runs' folders in a checkpoint: which count, and when they are put together."""

import json
from pathlib import Path

from rows.generations import (
    MERGED_AT_ONCE,
    Merge,
    due_merge,
    generations,
    live,
    note_merge,
    note_run,
    remove_rows,
    replaced,
    row_files,
)
from rows.store import Store, open_store


def store_of(folder: Path, *runs: str, tier: str = "") -> Store:
    store = open_store(str(folder))
    for run in runs:
        note_run(store, run, {"run_id": run})
        store.write(f"{run}{tier}/p/a.rows", b"x")
    return store


def test_runs_are_found_with_what_they_say_about_themselves(tmp_path: Path) -> None:
    store = store_of(tmp_path, "run2", "run1")
    store.write("unknown/p/a.rows", b"x")
    store.write("broken/run.json", b"{")
    found = generations(store)
    assert list(found) == ["broken", "run1", "run2", "unknown"]
    assert found["run1"] == {"run_id": "run1"}
    assert found["unknown"] is None
    assert found["broken"] is None
    assert live(found) == ("broken", "run1", "run2", "unknown"), "rows count, whatever has become of their description"


def test_only_rows_are_taken_for_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, "run1")
    assert list(row_files(store, "run1")) == ["run1/p/a.rows"]


def test_nothing_is_merged_while_there_are_few_runs(tmp_path: Path) -> None:
    runs = [f"run{number}" for number in range(MERGED_AT_ONCE - 1)]
    store = store_of(tmp_path, *runs)
    note_run(store, "without_rows", {})
    assert due_merge(store, [*runs, "without_rows"], "new") is None


def test_enough_runs_are_merged_into_one_of_the_next_tier(tmp_path: Path) -> None:
    runs = tuple(f"run{number}" for number in range(MERGED_AT_ONCE))
    store = store_of(tmp_path, *runs)
    assert due_merge(store, (*runs, "old-merged1"), "new") == Merge("new-merged1", runs)


def test_merged_generations_are_merged_among_themselves(tmp_path: Path) -> None:
    merged = tuple(f"run{number}-merged1" for number in range(MERGED_AT_ONCE))
    store = open_store(str(tmp_path))
    for name in merged:
        store.write(f"{name}/0.rows", b"x")
    assert due_merge(store, ("run9", *merged), "new") == Merge("new-merged2", merged)


def test_a_merge_counts_once_it_is_noted_and_what_it_replaced_is_removed(tmp_path: Path) -> None:
    store = store_of(tmp_path, "run1", "run2", "run3")
    store.write("run3-merged1/0.rows", b"x")
    assert live(generations(store)) == ("run1", "run2", "run3", "run3-merged1")
    note_merge(store, Merge("run3-merged1", ("run1", "run2")))
    found = generations(store)
    assert live(found) == ("run3", "run3-merged1")
    assert replaced(found) == {"run1", "run2"}
    remove_rows(store, replaced(found))
    assert not list(row_files(store, "run1"))
    assert json.loads(store.read("run1/run.json")) == {"run_id": "run1"}, "what it said about itself stays"
    assert live(generations(store)) == ("run3", "run3-merged1")
