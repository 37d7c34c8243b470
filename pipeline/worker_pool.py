"""How many workers the request quota feeds, and how a limit on requests is divided among them: arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from endpoint.codec import make_codec
from endpoint.settings import SendAs
from endpoint.wav import encode_wav
from pipeline.settings import RunSettings
from pipeline.usage import UsageError

QUOTA_PER_MINUTE: Final = 30_000
"""Of a shared Vertex endpoint, for each project and region (design.md 2.3)."""
REQUEST_S: Final = 0.2
"""How long HeAR takes for a request."""
CLIPS_PER_MINUTE: Final = 40_000
"""What the one process of a worker decodes, sends and stores (README, Speed: 1.3 ms of CPU a clip)."""
MOST_WITHOUT_LIMIT: Final = 10
"""Workers, where nothing says what the endpoint lets through: requests that hold many clips would ask for hundreds."""


@dataclass(frozen=True)
class WorkerPool:
    """How many workers there are, and what each of them may send."""

    workers: int
    """At most."""
    is_fixed: bool
    because: str
    """Where their number comes from, as a part of a sentence."""
    requests_per_minute: int | None
    """Of each worker: its share of `--max_requests_per_minute`; None without that."""
    wasted: int
    """Workers beyond what the quota feeds: they were asked for, and will wait."""


def clips_per_request(run: RunSettings) -> int:
    """How many clips a request of this run holds at most."""
    codec = make_codec(run.transport, run.instance_format, cast(SendAs, run.send), "")
    most = min(codec.max_instances, run.clips_per_request or codec.max_instances)
    if run.send == "uris":
        return most
    silence = np.zeros(32_000, np.float32)
    item = silence if run.instance_format == "research" else encode_wav(silence)
    fit = (run.max_request_bytes - codec.envelope_bytes) // codec.instance_bytes(item, 0)
    return max(1, min(most, fit))


def requests_of_a_worker(run: RunSettings) -> float:
    """Requests a minute that one worker sends at most: as many as are in flight, and as its processor makes."""
    return min(run.requests_in_flight * 60 / REQUEST_S, CLIPS_PER_MINUTE / clips_per_request(run))


def make_pool(
    run: RunSettings, *, num_workers: int | None, max_num_workers: int | None, autoscaling: bool
) -> WorkerPool:
    """The pool that the quota feeds, or the one that was asked for.

    Args:
      run: its limit, and how it sends.
      num_workers: as the user has it.
      max_num_workers: likewise; needed with autoscaling.
      autoscaling: whether Dataflow may change the number of workers.

    Raises UsageError for numbers that contradict each other, or a limit that is too small to be divided.
    """
    for option, value in (("num_workers", num_workers), ("max_num_workers", max_num_workers)):
        if value is not None and value < 1:
            raise UsageError(f"--{option} is {value}: expected a whole number of at least 1")
    if num_workers is not None and max_num_workers is not None and num_workers > max_num_workers:
        raise UsageError(f"--num_workers is {num_workers}, which is more than --max_num_workers {max_num_workers}")
    limit = run.max_requests_per_minute
    if run.batch is not None:  # which asks no endpoint
        fed = quota_feeds = MOST_WITHOUT_LIMIT
        because = "no more than that without --num_workers"
    else:
        fed, quota_feeds, because = _fed(run, limit)
    if autoscaling:
        if max_num_workers is None:
            raise UsageError(
                "--max_num_workers is missing: expected with --autoscaling_algorithm=THROUGHPUT_BASED, as the requests of all workers "
                "together must stay within the quota"
            )
        workers, because = max_num_workers, "--max_num_workers"
    elif num_workers is not None:
        workers, because = num_workers, "--num_workers"
    else:
        workers = min(fed, max_num_workers or fed)
        because = because if workers == fed else "--max_num_workers"
    share = None
    if limit is not None and not (share := int(limit // workers)):
        raise UsageError(
            f"--max_requests_per_minute is {limit:g}, of which each of {workers} workers would have less than one: expected "
            f"--{'max_num_workers' if autoscaling else 'num_workers'} {int(limit)} or fewer"
        )
    wasted = 0 if run.batch is not None else max(0, workers - quota_feeds)
    return WorkerPool(workers, not autoscaling, because, share, wasted)


def _fed(run: RunSettings, limit: float | None) -> tuple[int, int, str]:
    """How many workers there are unless another number is asked for, how many the quota feeds, and where that comes from."""
    each = requests_of_a_worker(run)
    fed = quota_feeds = math.ceil((limit or QUOTA_PER_MINUTE) / each)
    quota = (
        f"--max_requests_per_minute {limit:,g}"
        if limit
        else f"Vertex's usual quota of {QUOTA_PER_MINUTE:,} requests a minute"
    )
    because = f"{quota}, at most {each:,.0f} from each"
    if limit is None and fed > MOST_WITHOUT_LIMIT:
        fed, because = (
            MOST_WITHOUT_LIMIT,
            f"no more than that without --max_requests_per_minute, at most {each:,.0f} from each",
        )
    return fed, quota_feeds, because
