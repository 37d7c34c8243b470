"""The quota: a sliding window by itself, and as callers see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.process import start_local_endpoint
from emulator.quota import Quota
from tests.emulator.calls import TRANSPORTS, arrivals, call

CLIP = [0.25] * 32000


def test_a_slot_frees_60_s_after_it_was_taken() -> None:
    quota = Quota(2)
    assert quota.take(100.0) == 0
    assert quota.take(130.0) == 0
    assert quota.take(140.0) == 20.0
    assert quota.take(159.0) == 1.0
    assert quota.take(160.0) == 0
    assert quota.take(161.0) == 29.0


def test_a_slot_that_is_given_back_is_free_at_once() -> None:
    quota = Quota(2)
    quota.take(1.0)
    quota.take(2.0)
    quota.give_back(1.0)
    assert quota.take(3.0) == 0
    assert quota.take(4.0) == 58.0


@given(st.lists(st.floats(0, 300), max_size=120), st.integers(1, 9))
def test_no_window_holds_more_than_the_limit_and_none_is_refused_below_it(arrivals_s: list[float], limit: int) -> None:
    quota = Quota(limit)
    accepted: list[float] = []
    for now_s in sorted(arrivals_s):
        in_window = [t for t in accepted if t > now_s - 60]
        wait_s = quota.take(now_s)
        if len(in_window) < limit:
            assert wait_s == 0
            accepted.append(now_s)
        else:
            assert wait_s == pytest.approx(in_window[0] + 60 - now_s)
            assert wait_s > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_beyond_it_requests_are_refused_with_the_time_to_wait(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "arrivals.jsonl"
    with start_local_endpoint(arrivals_log=log, options=["--quota_per_minute=3"]) as local:
        assert call(local, transport, local.endpoint_name, [[0.5]]).status == "INVALID_ARGUMENT"
        statuses = [call(local, "grpc", local.endpoint_name, [CLIP]).status for _ in range(2)]
        assert call(local, transport, local.uri_endpoint, [CLIP]).status == "INVALID_ARGUMENT"
        statuses += [call(local, "rest", local.endpoint_name, [CLIP]).status]
        assert statuses == ["OK"] * 3
        refused = [call(local, transport, local.endpoint_name, [CLIP]) for _ in range(3)]
    lines = arrivals(log)
    first_s = next(line["t_s"] for line in lines if line["status"] == "OK")
    for reply, line in zip(refused, lines[-3:], strict=True):
        assert (reply.status, line["status"]) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED")
        assert (line["clips"], line["instances"], line["fault"]) == ([], 1, None)
        assert reply.retry_s == pytest.approx(first_s + 60 - line["t_s"], abs=1e-6)
