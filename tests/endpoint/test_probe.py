"""The probe finds endpoints that do not answer, and those where a clip's embedding depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from endpoint.client import Client
from endpoint.errors import BudgetSpent, RunEnded
from endpoint.probe import TOLERANCE, probe, probe_clips
from endpoint.rate import LocalRate
from endpoint.request_budget import LocalBudget
from endpoint.retry import Backoff
from endpoint.settings import EndpointSettings
from endpoint.transport import Reply
from endpoint.wav import encode_wav
from tests.endpoint import official

Rule = Callable[[Sequence[np.ndarray]], Reply]


class RuleTransport:
    """Answers each request by a rule, before `send` returns."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.requests: list[list[np.ndarray]] = []

    def send(self, request: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        message = official.parse_request(request)
        clips = [
            np.array([value.number_value for value in instance.list_value.values]) for instance in message.instances
        ]
        self.requests.append(clips)
        done(self.rule(clips))

    def renew_credentials(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def probed_by(rule: Rule, **changes: object) -> Iterator[tuple[EndpointSettings, Client, RuleTransport]]:
    settings = EndpointSettings(official.NAME, "127.0.0.1:9", max_attempts=2, **changes)  # type: ignore[arg-type]
    transport = RuleTransport(rule)
    backoff = Backoff(base_s=0.001, cap_s=0.001)
    budget = None if settings.max_requests is None else LocalBudget(settings.max_requests)
    with Client(settings, transport=transport, rate=LocalRate(), request_budget=budget, backoff=backoff) as client:
        yield settings, client, transport


def embed(clips: Sequence[np.ndarray], scale: float = 1.0) -> Reply:
    return Reply(grpc.StatusCode.OK, official.response_bytes([clip[8000:8512] * scale for clip in clips]))


def test_clips_are_the_same_as_audio_and_as_wav_and_of_very_different_level() -> None:
    clips = probe_clips()
    for clip in clips:
        assert (clip.shape, clip.dtype) == ((32000,), np.float32)
        steps = np.frombuffer(encode_wav(clip).data[44:], "<i2")
        assert np.array_equal(steps / 32768, clip)
    quiet, *loud = (np.abs(clip).max() for clip in clips)
    assert 0.002 < quiet < 0.003
    assert all(0.8 < level < 0.9 for level in loud)
    # Pinned: another sum means that resumed runs compare embeddings of different sounds.
    sums = [int(np.abs(clip * 32768).astype(np.int64).sum()) for clip in clips]
    assert sums == [_sum_by_formula(n) for n in range(4)]


def _sum_by_formula(number: int) -> int:
    """The same wave sample by sample, in Python's own integers."""
    period, height = (97, 41, 163, 233)[number], 28_000 if number else 96
    total = 0
    for n in range(32_000):
        triangle = 2 * abs(2 * (n % period) - period) - period
        swell = abs((n * (number + 2)) % 16_000 - 8_000)
        total += abs(triangle * swell * height // (period * 8_000))
    return total


def test_two_requests_prove_an_endpoint_whose_clips_do_not_influence_each_other() -> None:
    with probed_by(embed) as (settings, client, transport):
        found = probe(settings, client, probe_clips())
    assert [len(clips) for clips in transport.requests] == [1, 4]
    assert found.requests == 2
    assert found.difference == 0.0
    assert np.array_equal(found.embedding, probe_clips()[0][8000:8512])


def test_one_clip_a_request_needs_no_second() -> None:
    with probed_by(embed, clips_per_request=1) as (settings, client, transport):
        found = probe(settings, client, probe_clips())
    assert [len(clips) for clips in transport.requests] == [1]
    assert (found.requests, found.difference) == (1, None)


def test_an_endpoint_that_scales_over_the_whole_batch_is_found_and_the_remedy_named() -> None:
    def coupled(clips: Sequence[np.ndarray]) -> Reply:
        return embed(clips, scale=1 / max(np.abs(clip).max() for clip in clips))

    with probed_by(coupled) as (settings, client, _), pytest.raises(RunEnded, match="--clips_per_request 1"):
        probe(settings, client, probe_clips())


@pytest.mark.parametrize(("factor", "is_refused"), [(0.9, False), (1.1, True)])
def test_the_limit_of_rounding(factor: float, is_refused: bool) -> None:
    def nearly(clips: Sequence[np.ndarray]) -> Reply:
        shift = factor * TOLERANCE if len(clips) > 1 else 0.0
        return Reply(grpc.StatusCode.OK, official.response_bytes([np.full(512, 0.25 + shift) for _ in clips]))

    with probed_by(nearly) as (settings, client, _):
        if is_refused:
            with pytest.raises(RunEnded, match="--clips_per_request 1"):
                probe(settings, client, probe_clips())
        else:
            assert probe(settings, client, probe_clips()).difference == pytest.approx(factor * TOLERANCE, rel=1e-3)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "aiplatform.endpoints.predict"),
        (grpc.StatusCode.NOT_FOUND, "does not exist"),
        (grpc.StatusCode.INVALID_ARGUMENT, "--instance_format"),
    ],
)
def test_an_endpoint_that_refuses_costs_one_request(code: grpc.StatusCode, words: str) -> None:
    with probed_by(lambda _: Reply(code)) as (settings, client, transport):
        with pytest.raises(RunEnded, match=words):
            probe(settings, client, probe_clips())
        assert len(transport.requests) == 1


def test_clips_that_are_not_embedded_end_the_run() -> None:
    def only_quiet(clips: Sequence[np.ndarray]) -> Reply:
        loud = any(np.abs(clip).max() > 0.5 for clip in clips)
        return Reply(grpc.StatusCode.INVALID_ARGUMENT) if loud else embed(clips)

    with probed_by(only_quiet) as (settings, client, _), pytest.raises(RunEnded, match="does not embed the probe"):
        probe(settings, client, probe_clips())


def test_a_budget_of_two_requests_suffices_where_both_are_answered() -> None:
    with probed_by(embed, max_requests=2, run_id="run") as (settings, client, transport):
        assert probe(settings, client, probe_clips()).requests == 2
    assert len(transport.requests) == 2
    with probed_by(embed, max_requests=1, run_id="run", clips_per_request=1) as (settings, client, transport):
        assert probe(settings, client, probe_clips()).requests == 1


@pytest.mark.parametrize(("limit", "failures"), [(1, 0), (1, 1), (2, 1)])
def test_a_budget_that_does_not_suffice_is_a_mistake_and_no_run_that_ends_well(limit: int, failures: int) -> None:
    replies = [Reply(grpc.StatusCode.UNAVAILABLE)] * failures

    def failing_at_first(clips: Sequence[np.ndarray]) -> Reply:
        return replies.pop() if replies else embed(clips)

    with probed_by(failing_at_first, max_requests=limit, run_id="run") as (settings, client, transport):
        with pytest.raises(
            RunEnded, match=rf"--max_requests {limit} is too small for the probe's requests \(2"
        ) as ended:
            probe(settings, client, probe_clips())
        assert not isinstance(ended.value, BudgetSpent)
        assert len(transport.requests) == limit
