"""What becomes of batches, for each way in which an endpoint can reply."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.errors import RunEnded
from endpoint.results import Embedded, Outcome, Refused
from endpoint.transport import Reply
from tests.endpoint import official
from tests.endpoint.simulation import INVALID, OK, SETTINGS, Sent, Simulation, answer, not_finite

STATUS = grpc.StatusCode


def reply_well(sent: Sent) -> Reply:
    return answer(sent.numbers)


def numbers_of(outcome: Outcome) -> list[int | str]:
    """For each clip the number that its embedding holds, or the code of its refusal."""
    found: list[int | str] = []
    for result in outcome.results:
        if isinstance(result, Embedded):
            assert result.embedding.shape == (512,)
            assert len(set(result.embedding.tolist())) == 1
            found.append(int(result.embedding[0]))
        else:
            found.append(result.code)
    return found


def settled(outcome: Outcome) -> int:
    """Clips that have a result."""
    return sum(result is not None for result in outcome.results)


def batches_of_four(count: int) -> list[range]:
    return [range(4 * number, 4 * number + 4) for number in range(count)]


class FirstThen:
    """Scripted replies to the first requests, proper answers to all others."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)

    def __call__(self, sent: Sent) -> Reply:
        return self.replies.pop(0) if self.replies else answer(sent.numbers)


def failing(code: STATUS, retry_after_s: float | None = None) -> Reply:
    return Reply(code, retry_after_s=retry_after_s)


# Answers


def test_every_clip_gets_its_own_embedding_in_order() -> None:
    simulation = Simulation(reply_well)
    outcomes = simulation.run([3, 1, 2, 9], [7], [5, 5])
    assert [numbers_of(outcome) for outcome in outcomes] == [[3, 1, 2, 9], [7], [5, 5]]
    assert {result.deployed_model_id for o in outcomes for result in o.results if isinstance(result, Embedded)} == {"7"}
    assert [(outcome.requests, outcome.retries, outcome.error) for outcome in outcomes] == [(1, 0, None)] * 3


def test_the_first_request_goes_alone_and_then_the_window_is_used() -> None:
    simulation = Simulation(reply_well)
    simulation.run(*batches_of_four(200))
    first_answer_s = simulation.sent[0].at_s + 0.2
    assert [sent.at_s < first_answer_s for sent in simulation.sent] == [True] + [False] * 199
    assert simulation.most_out == SETTINGS.max_in_flight == simulation.stats.requests_in_flight_peak
    # 199 requests of 200 ms, 32 at a time: seven rounds after the canary
    assert simulation.now - simulation.sent[0].at_s == pytest.approx(0.2 * 8)


def test_a_slow_answer_holds_up_no_other_batch() -> None:
    simulation = Simulation(reply_well, service_s=lambda sent: 30.0 if 4 in sent.numbers else 0.2)
    simulation.run(*batches_of_four(100))
    slow = next(sent for sent in simulation.sent if 4 in sent.numbers)
    assert all(sent.at_s < slow.at_s + 30 for sent in simulation.sent)


# Failures that pass


@pytest.mark.parametrize(
    "code", [STATUS.RESOURCE_EXHAUSTED, STATUS.UNAVAILABLE, STATUS.INTERNAL, STATUS.DEADLINE_EXCEEDED, STATUS.UNKNOWN]
)
def test_retryable_failures_are_sent_again_with_growing_waits(code: STATUS) -> None:
    simulation = Simulation(FirstThen(answer([0]), *[failing(code)] * 6))
    simulation.run([0])
    (outcome,) = simulation.run([1, 2])
    assert numbers_of(outcome) == [1, 2]
    assert (outcome.requests, outcome.retries) == (7, 6)
    assert simulation.stats.retries_by_code == {code.name: 6}
    waits_s = np.diff([sent.at_s for sent in simulation.sent[1:]]) - 0.2
    assert (waits_s >= -1e-9).all()
    assert (waits_s <= np.array([1, 2, 4, 8, 16, 32]) + 1e-9).all()


def test_a_hint_is_honoured() -> None:
    simulation = Simulation(FirstThen(answer([0]), failing(STATUS.RESOURCE_EXHAUSTED, 25.0)))
    simulation.run([0], [1])
    assert 25.0 <= simulation.sent[2].at_s - simulation.sent[1].at_s - 0.2 <= 26.0


@pytest.mark.parametrize(
    ("code", "short"),
    [
        (STATUS.RESOURCE_EXHAUSTED, "quota"),
        (STATUS.DEADLINE_EXCEEDED, "timeout"),
        (STATUS.UNAVAILABLE, "unavailable"),
        (STATUS.INTERNAL, "server_error"),
        (STATUS.UNKNOWN, "server_error"),
    ],
)
def test_clips_are_refused_when_attempts_are_used_up_and_other_batches_go_on(code: STATUS, short: str) -> None:
    simulation = Simulation(lambda sent: failing(code) if 4 in sent.numbers else answer(sent.numbers))
    first, second, third = simulation.run(*batches_of_four(3))
    assert numbers_of(first) == [0, 1, 2, 3]
    assert numbers_of(third) == [8, 9, 10, 11]
    for result in second.results:
        assert isinstance(result, Refused)
        assert (result.code, result.retryable, result.attempts) == (short, True, 8)
        assert code.name in result.message
    assert (second.requests, second.retries) == (8, 7)


def test_throttled_seconds_are_counted_once_for_waits_that_overlap() -> None:
    # Twenty requests are told at the same moment to wait ten seconds, and then come well.
    throttled: set[int] = set()

    def rule(sent: Sent) -> Reply:
        if sent.numbers[0] == 0 or sent.numbers[0] in throttled:
            return answer(sent.numbers)
        throttled.add(sent.numbers[0])
        return failing(STATUS.RESOURCE_EXHAUSTED, 10.0)

    simulation = Simulation(rule)
    simulation.run(*([number] for number in range(21)))
    assert simulation.stats.retries == 20
    # Never more than there was time, though twenty waited; what follows the ten seconds goes at the rate that was learnt.
    assert 10.0 <= simulation.stats.throttled_s <= simulation.now - 1000.0 - 0.2


def test_only_quota_refusals_count_as_throttled() -> None:
    simulation = Simulation(FirstThen(answer([0]), failing(STATUS.UNAVAILABLE, 5.0)))
    simulation.run([0], [1])
    assert simulation.stats.throttled_s == 0.0


# Answers that cannot be used


@pytest.mark.parametrize("bad", [answer([1, 2]), not_finite([1, 2, 3], [2]), Reply(OK, b""), Reply(OK, b"\xff")])
def test_short_and_not_finite_answers_are_asked_for_again(bad: Reply) -> None:
    simulation = Simulation(FirstThen(answer([0]), bad))
    _, outcome = simulation.run([0], [1, 2, 3])
    assert numbers_of(outcome) == [1, 2, 3]
    assert (outcome.requests, outcome.retries) == (2, 1)
    assert simulation.stats.retries_by_code == {"BAD_ANSWER": 1}


@pytest.mark.parametrize("position", range(4))
def test_a_clip_that_always_yields_nan_costs_only_itself(position: int) -> None:
    poison = 4 + position
    simulation = Simulation(lambda sent: not_finite(sent.numbers, [poison]))
    _, outcome = simulation.run(*batches_of_four(2))
    expected: list[int | str] = [4, 5, 6, 7]
    expected[position] = "bad_answer"
    assert numbers_of(outcome) == expected
    refused = outcome.results[position]
    assert isinstance(refused, Refused)
    assert refused.retryable
    assert refused.attempts == 8 == sum(poison in sent.numbers for sent in simulation.sent)
    assert outcome.requests == 8 + 2


def test_an_endpoint_of_another_format_ends_the_run_after_three_answers() -> None:
    message = official.response_message([])
    message.predictions.add().struct_value["embedding"] = "x"
    simulation = Simulation(lambda _: Reply(OK, message.SerializeToString()))
    outcomes = simulation.run(*batches_of_four(50))
    assert len(simulation.sent) == 3
    assert all(outcome.error is not None for outcome in outcomes)
    assert "answers, but not as a HeAR endpoint" in simulation.ended[0].message


# Rejections


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16, 33])
def test_one_bad_clip_costs_only_itself_in_few_requests(size: int) -> None:
    for bad in range(size):
        simulation = Simulation(lambda sent, bad=bad: failing(INVALID) if bad in sent.numbers else answer(sent.numbers))
        _, outcome = simulation.run([1000], range(size))
        expected: list[int | str] = list(range(size))
        expected[bad] = "rejected"
        assert numbers_of(outcome) == expected
        refused = outcome.results[bad]
        assert isinstance(refused, Refused)
        assert not refused.retryable
        assert refused.attempts == sum(bad in sent.numbers for sent in simulation.sent)
        assert outcome.requests - 1 <= 2 * math.ceil(math.log2(size))
        assert outcome.retries == 0


@settings(max_examples=60, deadline=None)
@given(bad=st.sets(st.integers(0, 15)), size=st.integers(1, 16))
def test_any_set_of_bad_clips_is_found_exactly(bad: set[int], size: int) -> None:
    simulation = Simulation(lambda sent: failing(INVALID) if bad & set(sent.numbers) else answer(sent.numbers))
    outcomes = simulation.run([1000], range(size))
    if simulation.ended:
        assert len(bad & set(range(size))) > 5
        return
    assert numbers_of(outcomes[1]) == ["rejected" if number in bad else number for number in range(size)]


def test_parts_of_a_split_batch_keep_one_place_in_the_window() -> None:
    narrow = dataclasses.replace(SETTINGS, max_in_flight=3)
    simulation = Simulation(
        lambda sent: failing(INVALID) if any(n % 8 == 5 for n in sent.numbers) else answer(sent.numbers), narrow
    )
    outcomes = simulation.run(*batches_of_four(40))
    assert [n for outcome in outcomes for n in numbers_of(outcome)] == [
        "rejected" if number % 8 == 5 else number for number in range(160)
    ]
    assert simulation.most_out == 3


def test_failures_are_counted_anew_for_the_parts_of_a_rejected_batch() -> None:
    replies = [answer([0]), *[failing(STATUS.UNAVAILABLE)] * 7, failing(INVALID), *[failing(STATUS.UNAVAILABLE)] * 7]
    simulation = Simulation(FirstThen(*replies))
    _, outcome = simulation.run([0], [1, 2])
    assert numbers_of(outcome) == [1, 2]


@pytest.mark.parametrize(
    "code", [INVALID, STATUS.PERMISSION_DENIED, STATUS.NOT_FOUND, STATUS.UNIMPLEMENTED, STATUS.FAILED_PRECONDITION]
)
def test_a_rejection_before_any_answer_ends_the_run_and_costs_one_request(code: STATUS) -> None:
    simulation = Simulation(lambda _: failing(code))
    outcomes = simulation.run(*batches_of_four(100))
    assert len(simulation.sent) == 1
    assert all(isinstance(outcome.error, RunEnded) and settled(outcome) == 0 for outcome in outcomes)
    (error,) = simulation.ended
    assert official.NAME in error.message
    assert SETTINGS.host in error.message
    assert code.name in error.message
    assert "check" in error.message


def test_an_endpoint_that_cannot_be_reached_ends_the_run_without_refusing_clips() -> None:
    simulation = Simulation(lambda _: failing(STATUS.UNAVAILABLE))
    outcomes = simulation.run(*batches_of_four(100))
    assert len(simulation.sent) == SETTINGS.max_attempts
    assert all(isinstance(outcome.error, RunEnded) for outcome in outcomes)
    assert "did not answer the first request in 8 attempts (UNAVAILABLE)" in simulation.ended[0].message


def test_a_canary_that_fails_at_first_is_sent_again_alone() -> None:
    simulation = Simulation(FirstThen(*[failing(STATUS.UNAVAILABLE)] * 5))
    outcomes = simulation.run(*batches_of_four(10))
    assert [sent.numbers for sent in simulation.sent[:6]] == [(0, 1, 2, 3)] * 6
    assert all(outcome.error is None for outcome in outcomes)


@pytest.mark.parametrize("code", [STATUS.PERMISSION_DENIED, STATUS.NOT_FOUND, STATUS.UNIMPLEMENTED])
def test_losing_the_endpoint_in_mid_run_ends_it_and_keeps_what_was_answered(code: STATUS) -> None:
    simulation = Simulation(lambda sent: answer(sent.numbers) if sent.at_s < 1001.0 else failing(code))
    outcomes = simulation.run(*batches_of_four(500))
    embedded = [outcome for outcome in outcomes if outcome.error is None]
    assert [numbers_of(outcome) for outcome in embedded] == [
        list(numbers) for numbers in batches_of_four(len(embedded))
    ]
    # One round after the canary, and four more rounds of the whole window in the first second
    assert len(embedded) == 1 + 32 * 4
    assert len(simulation.sent) <= len(embedded) + 2 * SETTINGS.max_in_flight
    assert not any(map(settled, outcomes[len(embedded) :]))


def test_answers_that_are_out_when_the_run_ends_are_kept_and_nothing_more_is_sent() -> None:
    """They are paid for. The denial overtakes them: the service takes its time only for what it answers."""

    def rule(sent: Sent) -> Reply:
        return failing(STATUS.PERMISSION_DENIED) if 80 in sent.numbers else answer(sent.numbers)

    simulation = Simulation(rule, service_s=lambda sent: 0.01 if 80 in sent.numbers else 0.2 + sent.numbers[0] / 1e4)
    outcomes = simulation.run(*batches_of_four(500))
    assert len(simulation.ended) == 1
    sent = [sent.numbers for sent in simulation.sent]
    assert len(sent) == len(set(sent))
    for numbers, outcome in zip(batches_of_four(500), outcomes, strict=True):
        if tuple(numbers) in sent and 80 not in numbers:
            assert numbers_of(outcome) == list(numbers)
            assert outcome.error is None
        else:
            assert settled(outcome) == 0
            assert outcome.error is not None
    # The canary, and a window around the one that was denied.
    assert 1 + 20 < len(sent) <= 1 + 20 + SETTINGS.max_in_flight


def test_parts_that_were_answered_are_kept_when_the_run_ends() -> None:
    """A batch that was split has half of its embeddings when the permission is lost."""
    replies = iter([answer([0]), failing(INVALID), answer([1, 2])])
    simulation = Simulation(lambda _: next(replies, failing(STATUS.PERMISSION_DENIED)))
    simulation.run([0])
    (outcome,) = simulation.run([1, 2, 3, 4])
    assert outcome.error is not None
    assert [isinstance(result, Embedded) for result in outcome.results] == [True, True, False, False]
    assert outcome.results[2:] == (None, None)


def test_closing_waits_for_nothing() -> None:
    simulation = Simulation(reply_well)
    simulation.run([0])
    closed = RunEnded("closed")
    simulation._unfinished += 2
    for numbers in ([1], [2]):
        simulation.dispatcher.add(simulation._batch(numbers))
    simulation.dispatcher.proceed()
    simulation.dispatcher.end(RunEnded("denied"))
    assert simulation._unfinished == 2
    simulation.dispatcher.end(closed, at_once=True)
    assert simulation._unfinished == 0


@pytest.mark.parametrize("max_in_flight", [1, 32])
def test_twenty_rejections_in_a_row_end_the_run(max_in_flight: int) -> None:
    simulation = Simulation(
        lambda sent: answer(sent.numbers) if sent.numbers == (1000,) else failing(INVALID),
        dataclasses.replace(SETTINGS, max_in_flight=max_in_flight),
    )
    outcomes = simulation.run([1000], *batches_of_four(100))
    assert "rejected 20 requests in a row (INVALID_ARGUMENT)" in simulation.ended[0].message
    assert outcomes[-1].error is not None
    # What is out when the series begins is answered as well.
    assert len(simulation.sent) <= 1 + 20 + max_in_flight
    assert sum(map(settled, outcomes)) <= 1 + 20


def test_bad_clips_in_every_batch_are_no_bad_endpoint() -> None:
    simulation = Simulation(
        lambda sent: failing(INVALID) if any(number % 4 == 2 for number in sent.numbers) else answer(sent.numbers)
    )
    outcomes = simulation.run([0], *batches_of_four(100))
    assert not simulation.ended
    assert [n for outcome in outcomes[1:] for n in numbers_of(outcome)] == [
        "rejected" if number % 4 == 2 else number for number in range(400)
    ]


# Credentials


def test_refused_credentials_are_renewed_once_for_all_requests_in_flight() -> None:
    revoked_s = 1000.5
    simulation = Simulation(
        lambda sent: (
            failing(STATUS.UNAUTHENTICATED) if sent.at_s >= revoked_s and sent.renewals == 0 else answer(sent.numbers)
        ),
        service_s=lambda sent: 0.2 + 0.01 * (sent.numbers[0] % 7),
    )
    outcomes = simulation.run(*batches_of_four(300))
    assert simulation.renewals == 1
    assert [numbers_of(outcome) for outcome in outcomes] == [list(numbers) for numbers in batches_of_four(300)]
    assert set(simulation.stats.retries_by_code) == {"UNAUTHENTICATED"}


def test_a_second_revocation_later_is_renewed_too() -> None:
    simulation = Simulation(
        lambda sent: (
            failing(STATUS.UNAUTHENTICATED)
            if sent.renewals < (sent.at_s > 1000.5) + (sent.at_s > 1002.5)
            else answer(sent.numbers)
        )
    )
    outcomes = simulation.run(*batches_of_four(600))
    assert simulation.renewals == 2
    assert all(outcome.error is None for outcome in outcomes)


def test_renewed_credentials_that_are_refused_end_the_run() -> None:
    simulation = Simulation(lambda _: failing(STATUS.UNAUTHENTICATED))
    outcomes = simulation.run(*batches_of_four(100))
    assert len(simulation.sent) == 2
    assert simulation.renewals == 1
    assert all(outcome.error is not None for outcome in outcomes)
    assert "gcloud auth application-default login" in simulation.ended[0].message


# Anything


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    max_in_flight=st.integers(1, 40),
    max_attempts=st.integers(1, 8),
    batches=st.integers(1, 40),
    faults=st.lists(
        st.sampled_from(["429", "503", "500", "504", "reset", "short", "nan", "400", "401", "garbage"]), max_size=6
    ),
)
def test_whatever_happens_each_clip_has_one_result_or_the_run_has_ended(
    seed: int, max_in_flight: int, max_attempts: int, batches: int, faults: list[str]
) -> None:
    rng = random.Random(seed)
    sends: Counter[int] = Counter()

    def rule(sent: Sent) -> Reply:
        sends.update(sent.numbers)
        # The first request is answered, so that faults meet more than a canary.
        fault = rng.choice(faults) if faults and sends.total() > 4 and rng.random() < 0.4 else ""
        return {
            "": answer(sent.numbers),
            "429": failing(STATUS.RESOURCE_EXHAUSTED, rng.choice([None, 3.0])),
            "503": failing(STATUS.UNAVAILABLE),
            "500": failing(STATUS.INTERNAL),
            "504": failing(STATUS.DEADLINE_EXCEEDED),
            "reset": failing(STATUS.CANCELLED),
            "short": answer(sent.numbers[1:]),
            "nan": not_finite(sent.numbers, sent.numbers[:1]),
            "400": failing(INVALID),
            "401": failing(STATUS.UNAUTHENTICATED),
            "garbage": Reply(OK, rng.randbytes(100)),
        }[fault]

    simulation = Simulation(
        rule,
        dataclasses.replace(SETTINGS, max_in_flight=max_in_flight, max_attempts=max_attempts),
        service_s=lambda _: rng.expovariate(5),
        seed=seed,
    )
    outcomes = simulation.run(*batches_of_four(batches))
    assert simulation.most_out <= max_in_flight
    stats = simulation.stats
    assert stats.requests == len(simulation.sent)
    assert stats.bytes_sent == sum(352_008 * len(sent.numbers) + 2 + len(official.NAME) for sent in simulation.sent)
    assert stats.requests == sum(outcome.requests for outcome in outcomes)
    assert stats.retries == sum(outcome.retries for outcome in outcomes)
    for numbers, outcome in zip(batches_of_four(batches), outcomes, strict=True):
        if outcome.error is not None:
            assert simulation.ended == [outcome.error]
            continue
        assert stats.requests_in_flight == 0
        assert len(outcome.results) == 4
        for number, found, result in zip(numbers, numbers_of(outcome), outcome.results, strict=True):
            assert found == number or isinstance(result, Refused)
            if isinstance(result, Refused):
                assert result.attempts == sends[number]
