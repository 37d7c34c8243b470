"""A checkpoint's generations: a folder for each run, and for each time that older ones were put together.

    RUN/run.json               what the run was
    RUN/probe.json             what the endpoint answered to its probe
    RUN/summary.json           its summary, where it wrote to tables only
    RUN/written.json, ...      how far its batch prediction job is (see `job_notes`)
    RUN/PACKET/NAME.rows       its rows, in a folder for each packet
    NAME-merged1/merged.json   of a generation that took the place of others: their names, written when all rows are there

Generations are merged by tiers, as log-structured stores do: MERGED_AT_ONCE runs become one of tier 1, so many of these one of
tier 2, so that a row is copied a few times in its life, however many runs there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from rows.job_notes import NOTES
from rows.store import MissingFile, Store

RUN_FILE: Final = "run.json"
MERGED_FILE: Final = "merged.json"
PROBE_FILE: Final = "probe.json"
SUMMARY_FILE: Final = "summary.json"
MERGED_AT_ONCE: Final = 8
_ROWS: Final = ".rows"
_TIER: Final = re.compile(r"-merged([0-9]+)$")

Described = Mapping[str, dict[str, Any] | None]
"""Generations by name, with what they say about themselves."""


class Merge(NamedTuple):
    """Generations that are put together."""

    name: str
    """Of the generation that takes their place."""
    replaces: tuple[str, ...]


def row_files(store: Store, generation: str) -> Iterator[str]:
    """The names of a generation's files of rows."""
    return (name for name in store.names(f"{generation}/") if name.endswith(_ROWS))


def generations(store: Store) -> dict[str, dict[str, Any] | None]:
    """The folders of the checkpoint, sorted, with what they say about themselves.

    That is the content of `run.json`, or of `merged.json`; None where there is neither that can be read: the generation
    was not completed, or its description is damaged.
    """
    return {folder: _described(store, folder) for folder in store.folders()}


def _described(store: Store, folder: str) -> dict[str, Any] | None:
    for name in (RUN_FILE, MERGED_FILE):
        try:
            described = json.loads(store.read(f"{folder}/{name}"))
        except (MissingFile, ValueError):
            continue
        if isinstance(described, dict):
            return described
    return None


def note_run(store: Store, run_id: str, facts: dict[str, Any]) -> None:
    """Writes down in the checkpoint what a run is, before it writes rows."""
    store.write(f"{run_id}/{RUN_FILE}", json.dumps(facts, indent=2).encode())


def replaced(found: Described) -> set[str]:
    """The generations whose rows stand in a later one as well."""
    names: set[str] = set()
    for described in found.values():
        if described is not None and isinstance(described.get("replaces"), list):
            names.update(map(str, described["replaces"]))
    return names & set(found)


def live(found: Described) -> tuple[str, ...]:
    """The generations whose rows count: all but those that were replaced."""
    gone = replaced(found)
    return tuple(name for name in found if name not in gone)


def due_merge(store: Store, generations: Iterable[str], run_id: str) -> Merge | None:
    """The merge that a run should do, if there is one: of live `generations`, those of the lowest tier that has enough."""
    by_tier: dict[int, list[str]] = {}
    for name in generations:
        merged = _TIER.search(name)
        by_tier.setdefault(int(merged[1]) if merged else 0, []).append(name)
    for tier, names in sorted(by_tier.items()):
        if len(names) < MERGED_AT_ONCE:
            continue
        with_rows = tuple(name for name in names if next(row_files(store, name), None) is not None)
        if len(with_rows) >= MERGED_AT_ONCE:
            return Merge(f"{run_id}-merged{tier + 1}", with_rows)
    return None


def note_merge(store: Store, merge: Merge) -> None:
    """Makes a merged generation count in place of those that it replaces."""
    store.write(f"{merge.name}/{MERGED_FILE}", json.dumps({"replaces": merge.replaces}).encode())


def remove_rows(store: Store, names: Iterable[str]) -> None:
    """Removes the rows of generations; what they say about themselves stays."""
    for name in names:
        store.remove(list(row_files(store, name)))


def remove_all(store: Store, but_notes_of: Collection[str] = ()) -> None:
    """Removes all that runs have stored, and nothing else: the folder may be one in which the user keeps other things, too.

    What runs say about themselves goes last: were this cut off before, nobody could tell whose the rows are that are left. That
    of some stays, if these are named.
    """
    folders = store.folders()
    remove_rows(store, folders)
    for folder in folders:
        if folder not in but_notes_of:
            remove_notes(store, folder)


def remove_notes(store: Store, name: str) -> None:
    """Removes what a generation says about itself."""
    own = {f"{name}/{file}" for file in (RUN_FILE, MERGED_FILE, PROBE_FILE, SUMMARY_FILE, *NOTES)}
    store.remove([file for file in store.names(f"{name}/") if file in own])
