"""The names of the graph's steps, which people read in Dataflow's console.

`python -m tests.pipeline.test_steps` prints what steps.txt is to hold.
"""

from __future__ import annotations

import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from pipeline.batch_graphs import build_join, build_write
from pipeline.graph import build
from pipeline.options import parse
from pipeline.resuming import Earlier
from rows.generations import Merge
from transforms.join_results import FinishedJob
from transforms.tidy_up import Leftovers

GOLDEN = Path(__file__).with_name("steps.txt")
OURS = ("transforms.", "pipeline.")
_BATCH = ("--send=batch", "--batch_model=projects/p/locations/us-west1/models/1", "--staging_location=gs://staging/s")
INPUTS = {
    "inputs": ["--input=gs://b/in", "--limit=3"],
    "a manifest": ["--manifest=gs://b/labels.csv"],
    "tables": ["--input=gs://b/in", "--output_table=project:study.coughs"],
    "a batch: write": ["--input=gs://b/in", *_BATCH, "--batch_step=write"],
    "a batch: join": ["--input=gs://b/in", *_BATCH, "--batch_step=join"],
}

_FINISHED = (FinishedJob("gs://staging/s/hear-staged-1/", "projects/p/locations/us-west1/models/1@1"),)


class _Named(PipelineVisitor):
    """Gathers the steps that this project has named: those that are not parts of Beam's own."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
        self.visit_transform(transform_node)

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        parent = transform_node.parent
        is_ours = parent is None or parent.transform is None or type(parent.transform).__module__.startswith(OURS)
        if transform_node.full_label and is_ours:
            self.names.append(transform_node.full_label)


def steps(options: list[str]) -> list[str]:
    """The names of all steps of a run that goes on from a checkpoint."""
    endpoint = () if "--send=batch" in options else ("--endpoint=projects/p/locations/us-west1/endpoints/1",)
    run = parse([*endpoint, "--output=gs://b/out/r", *options]).run
    pipeline = beam.Pipeline()
    earlier = Earlier({}, ("one", "two"), Merge("merged", ("one", "two")))
    leftovers = Leftovers(())
    where = run.target.name, run.target.host
    if run.batch is None:
        build(pipeline, run, run.endpoint_settings(*where), earlier, {}, leftovers)
    elif run.batch.step == "write":
        build_write(pipeline, run, run.job_settings(*where), earlier, _FINISHED, leftovers)
    else:
        build_join(pipeline, run, earlier, _FINISHED, (), {}, leftovers)
    visitor = _Named()
    pipeline.visit(visitor)
    return visitor.names


def text() -> str:
    """What the golden file holds."""
    return "\n\n".join("\n".join([f"with {what}", *sorted(steps(options))]) for what, options in INPUTS.items()) + "\n"


def test_the_steps_are_those_that_are_written_down() -> None:
    assert text() == GOLDEN.read_text()


@pytest.mark.parametrize("options", INPUTS.values(), ids=INPUTS)
def test_names_are_short_words(options: list[str]) -> None:
    for name in steps(options):
        for part in name.split("/"):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9 ]{2,32}", part), name


if __name__ == "__main__":
    print(text(), end="")
