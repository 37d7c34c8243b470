"""When tokens are refreshed: rarely, ahead of expiry, by one thread; and what happens when that fails."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from google.auth.exceptions import RefreshError, TransportError
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import EndpointError, RunEnded, TokenUnavailable
from endpoint.token_source import TokenSource
from tests.endpoint.token_fakes import SECRET, CountedCredentials, Time, explain, source_of

PATIENCE_S = 20.0


@given(
    lifetime_s=st.floats(60, 7200),
    margin_s=st.floats(1, 400),
    steps_s=st.lists(st.floats(0.01, 20), min_size=1, max_size=60),
)
def test_tokens_live_long_enough_and_are_refreshed_no_sooner_than_needed(
    lifetime_s: float, margin_s: float, steps_s: list[float]
) -> None:
    time = Time()
    credentials = CountedCredentials(time, lifetime_s)
    source = source_of(credentials, time)
    due_s = min(margin_s, lifetime_s / 2)
    for step_s in steps_s:
        time.now_s += step_s
        token = source.token(margin_s)
        number = int(token.rpartition("-")[2])
        left_s = credentials.refreshed_s[number - 1] + lifetime_s - time.now_s
        # What is due is refreshed in the background, and the present one handed out for as long as that takes.
        assert left_s > due_s - max(steps_s) - 1e-6
        assert left_s > due_s / 2 - 1e-6
    for earlier, later in zip(credentials.refreshed_s, credentials.refreshed_s[1:], strict=False):
        assert later - earlier >= lifetime_s - due_s - 1e-6


@pytest.mark.parametrize(("lifetime_s", "margin_s", "every_s"), [(240, 90, 150), (240, 200, 120), (3600, 90, 3510)])
def test_a_day_takes_as_few_refreshes_as_the_lifetime_allows(
    lifetime_s: float, margin_s: float, every_s: float
) -> None:
    time = Time()
    credentials = CountedCredentials(time, lifetime_s)
    source = source_of(credentials, time)
    for _ in range(86_400):
        time.now_s += 1.0
        source.token(margin_s)
    assert credentials.refreshes == math.ceil(86_400 / every_s)


def test_a_token_without_expiry_is_had_once() -> None:
    time = Time()
    credentials = CountedCredentials()
    source = source_of(credentials, time)
    for _ in range(3):
        time.now_s += 1e6
        assert source.token(90) == f"{SECRET}-1"


def test_the_present_token_is_handed_out_while_the_next_is_on_its_way() -> None:
    time = Time()
    started: list[Callable[[], None]] = []
    credentials = CountedCredentials(time, 3600)
    source = source_of(credentials, time, started.append)
    assert source.token(90) == f"{SECRET}-1"
    assert not started  # there was none to hand out meanwhile
    time.now_s += 3600 - 80
    assert [source.token(90) for _ in range(5)] == [f"{SECRET}-1"] * 5
    assert len(started) == 1
    started.pop()()
    assert source.token(90) == f"{SECRET}-2"
    assert not started


def test_a_token_too_short_for_a_request_is_waited_for_rather_than_handed_out() -> None:
    time = Time()
    started: list[Callable[[], None]] = []
    source = source_of(CountedCredentials(time, 3600), time, started.append)
    source.token(90)
    time.now_s += 3600 - 44
    assert source.token(90) == f"{SECRET}-2"
    assert not started


def test_threads_that_need_a_token_at_once_cause_one_refresh() -> None:
    begun, release = threading.Event(), threading.Event()

    class Slow(CountedCredentials):
        def refresh(self, request: Any) -> None:
            begun.set()
            assert release.wait(PATIENCE_S)
            super().refresh(request)

    credentials = Slow()
    source = TokenSource(credentials, explain)
    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(source.token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(PATIENCE_S)
    release.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert tokens == [f"{SECRET}-1"] * 8


def test_a_refresh_in_the_background_is_one_thread_s() -> None:
    refreshed = threading.Event()
    time = Time()

    class Noted(CountedCredentials):
        def refresh(self, request: Any) -> None:
            super().refresh(request)
            if self.refreshes == 2:
                refreshed.set()

    source = TokenSource(Noted(time, 3600), explain, clock=time.clock, wall_clock=time.wall_clock)
    source.token(90)
    time.now_s += 3530
    source.token(90)
    assert refreshed.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "failure", [RefreshError(f"busy {SECRET}", retryable=True), TransportError(SECRET), ValueError(SECRET)]
)
def test_while_the_service_fails_the_old_token_is_used_as_long_as_it_lives(failure: Exception) -> None:
    time = Time()
    credentials = CountedCredentials(time, 3600)
    source = source_of(credentials, time)
    source.token(90)
    credentials.failure = failure
    time.now_s += 3599
    assert source.token(90) == f"{SECRET}-1"
    time.now_s += 40
    with pytest.raises(TokenUnavailable) as caught:
        source.token(90)
    assert_hidden(caught.value)
    credentials.failure = None
    time.now_s += 40
    assert source.token(90) == f"{SECRET}-2"


def test_failing_refreshes_are_tried_again_after_longer_and_longer_times() -> None:
    tried_s: list[float] = []
    time = Time()

    class Failing(CountedCredentials):
        def refresh(self, request: Any) -> None:
            tried_s.append(time.now_s - 1000)
            raise TransportError(SECRET)

    source = source_of(Failing(), time)
    for _ in range(1000):
        with pytest.raises(TokenUnavailable):
            source.token()
        time.now_s += 0.125
    assert tried_s == [0, 1, 3, 7, 15, 31, 61, 91, 121]


def test_what_does_not_pass_ends_the_run_once_there_is_no_token_left() -> None:
    time = Time()
    credentials = CountedCredentials(time, 3600)
    source = source_of(credentials, time)
    source.token(90)
    credentials.failure = RefreshError(f"invalid_grant {SECRET}")
    time.now_s += 3550
    assert source.token(90) == f"{SECRET}-1"
    time.now_s += 60
    with pytest.raises(RunEnded, match="our own words") as caught:
        source.token(90)
    assert_hidden(caught.value)


def test_a_missing_authorities_file_does_not_pass() -> None:
    # `requests` raises a bare OSError for a REQUESTS_CA_BUNDLE that is not there.
    with pytest.raises(RunEnded):
        source_of(CountedCredentials(failure=OSError("no bundle")), Time()).token()


def test_an_interrupted_refresh_leaves_the_source_usable() -> None:
    time = Time()
    credentials = CountedCredentials(failure=KeyboardInterrupt())
    source = source_of(credentials, time)
    with pytest.raises(KeyboardInterrupt):
        source.token()
    credentials.failure = None
    time.now_s += 1
    assert source.token() == f"{SECRET}-1"


def test_only_tokens_had_before_are_renewed() -> None:
    time = Time()
    credentials = CountedCredentials(time, 3600)
    source = source_of(credentials, time)
    source.token()
    time.now_s += 5
    for _ in range(3):
        # Three requests that went out together were refused.
        source.renew(time.now_s)
    assert source.token() == f"{SECRET}-2"
    source.renew(time.now_s)
    assert source.token() == f"{SECRET}-2"


def test_a_refused_token_is_never_handed_out_again() -> None:
    time = Time()
    credentials = CountedCredentials(time, 3600)
    source = source_of(credentials, time)
    source.token()
    time.now_s += 5
    source.renew(time.now_s)
    credentials.failure = TransportError("down")
    with pytest.raises(TokenUnavailable):
        source.token()


def test_a_metadata_server_that_repeats_its_token_is_not_asked_all_the_time() -> None:
    time = Time()

    class Metadata(CountedCredentials):
        """Gives out the same token until it has 10 s left."""

        def refresh(self, request: Any) -> None:
            if not self.refreshed_s or time.now_s > self.refreshed_s[-1] + 290:
                super().refresh(request)
            asked.append(time.now_s)

    asked: list[float] = []
    source = source_of(Metadata(time, 300), time)
    for _ in range(3000):
        time.now_s += 0.1
        source.token(90)
    assert len(asked) < 12


def test_a_token_does_not_outlive_the_sleep_of_a_laptop() -> None:
    time = Time()
    source = source_of(CountedCredentials(time, 3600), time)
    source.token()
    time.wall_ahead_s += 7200  # the monotonic clock stood still
    assert source.token() == f"{SECRET}-2"


@pytest.mark.parametrize("wrong_by_s", [-7200, 7200])
def test_a_wrong_wall_clock_does_no_harm(wrong_by_s: float) -> None:
    time = Time()
    wrong = Time()
    wrong.wall_ahead_s += wrong_by_s
    credentials = CountedCredentials(time, 3600)  # expires by the right time
    source = source_of(credentials, wrong)
    for _ in range(250):
        time.now_s += 1
        wrong.now_s += 1
        source.token(90)
    assert credentials.refreshes <= 2


def test_sources_show_and_pickle_nothing() -> None:
    source = source_of(CountedCredentials(), Time())
    token = source.lasting_token(1)
    assert SECRET not in repr(source) + repr(token) + str(vars(source)["_token"])
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(source)


def assert_hidden(error: EndpointError) -> None:
    assert SECRET not in repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None
