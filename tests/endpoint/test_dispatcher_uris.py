"""What becomes of batches of URIs: tokens, limits on size, and answers that judge each instance by itself."""

from __future__ import annotations

import dataclasses
import math

import grpc
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from endpoint.errors import RunEnded, TokenUnavailable
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.simulation import (
    INVALID,
    SETTINGS,
    Sent,
    SimulatedTokens,
    UriSimulation,
    answer,
    garden_answer,
)
from tests.endpoint.test_dispatcher import numbers_of, settled

URIS = dataclasses.replace(SETTINGS, send="uris")
GARDEN = dataclasses.replace(URIS, instance_format="model_garden")
DENIED = Reply(grpc.StatusCode.PERMISSION_DENIED)
REJECTED = Reply(INVALID)
BAD = "the instance is no audio"


def group(count: int, start: int = 0) -> range:
    return range(start, start + count)


class Research:
    """A research endpoint: one bad object, or one token that does not work, and the whole request is rejected."""

    def __init__(self, tokens: SimulatedTokens, bad: set[int] = frozenset()) -> None:
        self.tokens = tokens
        self.bad = set(bad)

    def __call__(self, sent: Sent) -> Reply:
        if sent.tokens & self.tokens.gone or self.bad & set(sent.numbers):
            return REJECTED
        return answer(sent.numbers)


class Garden(Research):
    """A Model Garden endpoint: each instance has a result of its own."""

    def __call__(self, sent: Sent) -> Reply:
        if sent.tokens & self.tokens.gone:
            return garden_answer(sent.numbers, dict.fromkeys(sent.numbers, official.NOT_RETRIEVED))
        return garden_answer(sent.numbers, dict.fromkeys(self.bad, BAD))


def simulate(settings: object = URIS, bad: set[int] = frozenset()) -> tuple[UriSimulation, Research]:
    tokens = SimulatedTokens()
    rule = (Garden if settings is GARDEN else Research)(tokens, bad)
    return UriSimulation(rule, settings=settings, tokens=tokens), rule


# Size


def test_six_hundred_and_forty_uris_go_in_one_request() -> None:
    simulation, _ = simulate()
    (outcome,) = simulation.run(group(640))
    assert numbers_of(outcome) == list(range(640))
    assert [len(sent.numbers) for sent in simulation.sent] == [640]
    assert simulation.tokens.minted_s == [1000.0]


def test_a_larger_batch_goes_in_several_requests() -> None:
    simulation, _ = simulate()
    (outcome,) = simulation.run(group(1000))
    assert numbers_of(outcome) == list(range(1000))
    assert [len(sent.numbers) for sent in simulation.sent] == [500, 500]


def test_a_request_that_longer_tokens_make_too_large_is_split_before_it_is_sent() -> None:
    simulation, _ = simulate()
    simulation.tokens.token = lambda _: "t" * 4000  # type: ignore[method-assign]
    (outcome,) = simulation.run(group(640))
    assert numbers_of(outcome) == list(range(640))
    # 4,000 bytes of token and 60 to 70 of the rest: 320 are 1,300,000 bytes.
    assert [len(sent.numbers) for sent in simulation.sent] == [320, 320]


def test_after_too_large_a_response_requests_hold_half_as_many() -> None:
    simulation, _ = simulate()

    def rule(sent: Sent) -> Reply:
        return Reply(INVALID, response_too_large=True) if len(sent.numbers) > 200 else answer(sent.numbers)

    simulation.rule = rule
    outcomes = simulation.run(group(640), group(640, 640), group(640, 1280))
    assert [numbers_of(outcome) for outcome in outcomes] == [list(group(640, start)) for start in (0, 640, 1280)]
    assert [len(sent.numbers) for sent in simulation.sent[:2]] == [640, 320]
    assert {len(sent.numbers) for sent in simulation.sent[2:]} == {160}
    assert simulation.dispatcher.max_instances == 160
    assert simulation.stats.rejections == 0


def test_a_single_clip_whose_response_would_be_too_large_is_refused() -> None:
    simulation, _ = simulate()
    simulation.run(group(4))
    simulation.rule = lambda sent: (
        Reply(INVALID, response_too_large=True) if 7 in sent.numbers else answer(sent.numbers)
    )
    (outcome,) = simulation.run(group(4, 5))
    assert numbers_of(outcome) == [5, 6, "rejected", 8]


# Tokens and rejections


@pytest.mark.parametrize("settings", [URIS, GARDEN], ids=["research", "model_garden"])
@pytest.mark.parametrize("bad", [0, 319, 639])
def test_one_bad_object_among_640_costs_itself_only(bad: int, settings: object) -> None:
    simulation, rule = simulate(settings)
    simulation.run(group(4, 5000))
    before = len(simulation.sent)
    rule.bad = {bad}
    (outcome,) = simulation.run(group(640))
    assert numbers_of(outcome) == [n if n != bad else "rejected" for n in range(640)]
    needed = 1
    assert len(simulation.sent) - before - needed <= 2 * math.ceil(math.log2(640))
    assert len(simulation.tokens.minted_s) <= 2


@pytest.mark.parametrize("settings", [URIS, GARDEN], ids=["research", "model_garden"])
def test_a_token_that_is_revoked_in_mid_flight_costs_no_clip(settings: object) -> None:
    simulation, _ = simulate(settings)
    simulation.run(group(4, 5000))
    simulation.tokens.revoke()
    outcomes = simulation.run(*(group(640, 640 * n) for n in range(5)))
    assert [numbers_of(outcome) for outcome in outcomes] == [list(group(640, 640 * n)) for n in range(5)]
    # All five were out with the old token; one refresh serves them all.
    assert simulation.tokens.newest == "token-2"


@pytest.mark.parametrize("size", [1, 4, 640])
@pytest.mark.parametrize("others", [0, 1, 5])
def test_a_young_token_that_is_revoked_costs_no_clip_after_bad_objects_either(size: int, others: int) -> None:
    """The endpoint has rejected objects with newer tokens too: it need not have been the object this time."""
    simulation, rule = simulate()
    simulation.run(group(4, 5000))
    rule.bad = {1, 2}
    simulation.run(group(4))
    assert len(simulation.tokens.minted_s) == 2
    bad_starts = [9000 + 640 * n for n in range(others)]
    for _ in range(3):
        simulation.tokens.revoke()
        rule.bad = {start + size - 1 for start in bad_starts}
        groups = [group(size, 10_000), *(group(size, start) for start in bad_starts)]
        outcomes = simulation.run(*groups)
        expected = [[n if n not in rule.bad else "rejected" for n in numbers] for numbers in groups]
        assert [numbers_of(outcome) for outcome in outcomes] == expected
    assert len(simulation.tokens.minted_s) <= 2 + 3 * (1 + others)


def test_a_single_uri_is_sent_again_with_a_new_token_before_it_is_refused() -> None:
    simulation, rule = simulate()
    simulation.run([0])
    simulation.tokens.revoke()
    (outcome,) = simulation.run([1])
    assert numbers_of(outcome) == [1]
    rule.bad = {2}
    (outcome,) = simulation.run([2])
    assert numbers_of(outcome) == ["rejected"]
    assert outcome.requests == 2


def test_many_bad_objects_do_not_cost_a_token_each() -> None:
    simulation, rule = simulate()
    simulation.run(group(4, 5000))
    rule.bad = {100 * n for n in range(40)}
    outcomes = simulation.run(*(group(100, 100 * n) for n in range(40)))
    for n, outcome in enumerate(outcomes):
        assert numbers_of(outcome) == ["rejected", *group(99, 100 * n + 1)]
    elapsed_s = simulation.now - 1000.0
    assert len(simulation.tokens.minted_s) <= 3 + elapsed_s / 60


def test_the_first_request_of_a_wrong_format_ends_the_run() -> None:
    simulation, _ = simulate()
    simulation.rule = lambda _: REJECTED
    (outcome, *_) = simulation.run(group(640), group(640, 640))
    assert len(simulation.sent) == 1
    assert outcome.error is not None
    for words in ("object URIs in the research format", "--bucket_service_account", "storage.objects.get"):
        assert words in outcome.error.message


def test_lost_rights_to_the_bucket_end_a_garden_run_within_three_requests() -> None:
    simulation, _ = simulate(GARDEN)
    simulation.rule = lambda sent: garden_answer(sent.numbers, dict.fromkeys(sent.numbers, official.NOT_RETRIEVED))
    (outcome, *_) = simulation.run(group(640), group(640, 640))
    assert outcome.error is not None
    assert "storage.objects.get" in outcome.error.message
    assert len(simulation.sent) == 3
    assert simulation.tokens.newest == "token-3"


@pytest.mark.parametrize("settings", [URIS, GARDEN], ids=["research", "model_garden"])
def test_rights_to_the_bucket_that_are_lost_in_mid_run_end_it_with_few_failures(settings: object) -> None:
    simulation, rule = simulate(settings)
    simulation.run(*(group(640, 640 * n) for n in range(4)))
    rule.bad = set(range(100_000))
    if settings is GARDEN:
        simulation.rule = lambda sent: garden_answer(sent.numbers, dict.fromkeys(sent.numbers, official.NOT_RETRIEVED))
    outcomes = simulation.run(*(group(640, 640 * n) for n in range(10, 60)))
    assert simulation.ended
    assert sum(map(settled, outcomes)) <= 20


def test_permission_denied_is_believed_when_new_tokens_are_denied_too() -> None:
    simulation, rule = simulate()
    simulation.run([0])
    replies = iter([DENIED])
    simulation.rule = lambda sent: next(replies, None) or rule(sent)
    (outcome,) = simulation.run(group(4))
    assert numbers_of(outcome) == [0, 1, 2, 3]
    simulation.rule = lambda _: DENIED
    (outcome,) = simulation.run(group(4))
    assert outcome.error is not None
    assert "aiplatform.endpoints.predict" in outcome.error.message
    assert "--bucket_service_account" in outcome.error.message


def test_a_token_that_cannot_be_had_just_now_is_waited_for() -> None:
    simulation, _ = simulate()
    simulation.run([0])
    simulation.tokens.failure = TokenUnavailable("the token service does not answer")
    attempts = iter(range(3))
    token = simulation.tokens.token

    def later(item: object) -> str:
        if next(attempts, None) is None:
            simulation.tokens.failure = None
        return token(item)  # type: ignore[arg-type]

    simulation.tokens.token = later  # type: ignore[method-assign, assignment]
    (outcome,) = simulation.run(group(640))
    assert numbers_of(outcome) == list(range(640))
    assert outcome.requests == 1


def test_a_token_that_cannot_be_had_at_all_ends_the_run() -> None:
    simulation, _ = simulate()
    simulation.tokens.failure = RunEnded("sign in")
    (outcome,) = simulation.run(group(4))
    assert outcome.error is not None
    assert outcome.error.message == "sign in"
    assert simulation.sent == []


# Instances that are judged one by one


@examples(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    rejected=st.sets(st.integers(0, 59)),
    missing=st.sets(st.integers(0, 59)),
    back_after=st.integers(0, 4),
)
def test_each_instance_has_its_own_result(count: int, rejected: set[int], missing: set[int], back_after: int) -> None:
    """Objects that are missing come back for the request after so many."""
    missing -= rejected
    simulation, _ = simulate(GARDEN)
    simulation.run(group(4, 5000))
    first = len(simulation.sent)

    def rule(sent: Sent) -> Reply:
        gone = missing if len(simulation.sent) - first < back_after else set()
        return garden_answer(
            sent.numbers, {**dict.fromkeys(rejected, BAD), **dict.fromkeys(gone, official.NOT_RETRIEVED)}
        )

    simulation.rule = rule
    (outcome,) = simulation.run(range(count))
    if outcome.error is not None:
        # Nothing else was answered in between: the endpoint itself may be wrong.
        assert set(range(count)) <= rejected | missing
        return
    for number, found in enumerate(numbers_of(outcome)):
        expected = {number} if number not in rejected else {"rejected"}
        assert found in (expected | {"not_retrieved"} if number in missing else expected)
    if back_after <= 1:
        assert "not_retrieved" not in numbers_of(outcome)


def test_clips_whose_neighbours_were_embedded_are_asked_for_three_times_and_then_left() -> None:
    simulation, _ = simulate(GARDEN)
    simulation.rule = lambda sent: garden_answer(sent.numbers, {3: official.NOT_RETRIEVED, 5: BAD})
    (outcome,) = simulation.run(group(8))
    assert numbers_of(outcome) == [0, 1, 2, "not_retrieved", 4, "rejected", 6, 7]
    assert [sent.numbers for sent in simulation.sent] == [tuple(range(8)), (3,), (3,)]
    assert simulation.tokens.newest == "token-3"
