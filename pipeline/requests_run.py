"""A run that sends clips in requests: the endpoint is probed, then one graph does it all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pipeline.execution import Ending, Execution, left_to
from pipeline.facts import note_facts, run_facts
from pipeline.graph import build
from pipeline.launch import running_endpoint
from pipeline.preflight import check, check_credentials, nothing_left_staged, staged_in
from pipeline.resuming import Earlier
from pipeline.settings import RunSettings
from pipeline.tables import tables_in_order
from transforms.tidy_up import Leftovers


def send_requests(run: RunSettings, execution: Execution, earlier: Earlier, existing: tuple[str, ...]) -> Ending:
    """Does the run, up to its summary. Raises whatever ends it early.

    Args:
      run: its settings.
      execution: runs the graph.
      earlier: what the checkpoint holds.
      existing: output files of earlier runs.
    """
    with running_endpoint(run) as endpoint:
        check_credentials(run, endpoint.host, on_dataflow=execution.pool is not None)
        facts = run_facts(run, endpoint.name)
        note_facts(run, facts)
        at_work = execution.is_at_work
        with nothing_left_staged(run, earlier, at_work), tables_in_order(run, earlier, at_work):
            facts["probe"] = check(run, endpoint, earlier)
            # Whatever the probe has shown, the run's own clients need not find out by a canary.
            endpoint = replace(endpoint, is_proven=run.probe)
            leftovers = None
            if execution.pool is not None:
                endpoint = replace(endpoint, max_requests_per_minute=execution.pool.requests_per_minute)
                leftovers = Leftovers(existing, tuple(filter(None, [staged_in(run)])))
            graph = partial(build, run=run, endpoint=endpoint, earlier=earlier, facts=facts, leftovers=leftovers)
            job = execution.run(graph)
    return Ending() if job is None else left_to(job, run)
