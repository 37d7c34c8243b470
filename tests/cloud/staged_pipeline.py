"""Runs a pipeline.pb that was staged for Dataflow, in this process: what workers do, with the packages that are installed here.

    python staged_pipeline.py PIPELINE_PB

A module of its own that imports nothing of this project, nor anything from the folder it is in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState


def main(path: str) -> None:
    """Runs it; prints its counters, this project's DoFns in it, and where its modules came from, as JSON."""
    proto = beam_runner_api_pb2.Pipeline.FromString(Path(path).read_bytes())
    for environment in proto.components.environments.values():
        environment.urn = python_urns.EMBEDDED_PYTHON
        environment.payload = b""
        del environment.dependencies[:]
    result = FnApiRunner().run_via_runner_api(proto, PipelineOptions([]))
    assert result.wait_until_finish() == PipelineState.DONE
    counters = {
        f"{metric.key.metric.namespace}/{metric.key.metric.name}": metric.committed
        for metric in result.metrics().query()["counters"]
    }
    ours = ("pipeline", "transforms", "audio", "endpoint", "rows", "emulator")
    modules = {name: str(sys.modules[name].__file__) for name in ours if name in sys.modules}
    print(json.dumps({"counters": counters, "modules": modules, "dofns": sorted(dofns(proto))}))


def dofns(proto: beam_runner_api_pb2.Pipeline) -> set[str]:
    """The names of the DoFns that the graph holds, pickled, with their modules."""
    names = set()
    for transform in proto.components.transforms.values():
        if transform.spec.urn != common_urns.primitives.PAR_DO.urn:
            continue
        function = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn
        if function.urn == python_urns.PICKLED_DOFN_INFO:  # else it is one of Beam's, known by its name
            kind = type(pickler.loads(function.payload)[0])
            names.add(f"{kind.__module__}.{kind.__qualname__}")
    return names


if __name__ == "__main__":
    main(sys.argv[1])
