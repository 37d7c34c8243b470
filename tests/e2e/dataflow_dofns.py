"""The DoFns of this project, all of which some staged graph must hold."""

from __future__ import annotations

import ast

from tests.e2e.running import REPOSITORY

OF_BATCHES = {
    f"transforms.{name}"
    for name in (
        *("join_results._FindResults", "join_results._Match", "join_results._ReadResults", "join_results._WriteRows"),
        *("read_pending.FindIndices", "read_pending.ReadIndices", "submit_job._Submit", "tidy_up._CloseJobs"),
        *("write_clips._Commit", "write_clips._Note", "write_clips._Write"),
    )
}
"""DoFns that only a batch prediction job needs."""


def our_dofns() -> set[str]:
    """All DoFns of this project, by what its source files say, but for those from which others are derived."""
    bases = {
        (path.stem, node.name): set(map(ast.unparse, node.bases))
        for path in (REPOSITORY / "transforms").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    derived = {"beam.DoFn"}
    while more := {name for (_, name), its in bases.items() if its & derived} - derived:
        derived |= more
    derived_from = set().union(*bases.values())
    found = {key for key, its in bases.items() if its & derived and key[1] not in derived_from}
    assert len(found) > 25
    return {f"transforms.{module}.{name}" for module, name in found}
