"""What is sent again, and after how long."""

from __future__ import annotations

import random

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from endpoint.retry import Backoff, http_retry_hint_s, is_retryable, retry_hint_s

RETRYABLE = {"RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED", "ABORTED"}


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_what_passes_is_retryable_and_what_is_wrong_is_not(code: grpc.StatusCode) -> None:
    assert is_retryable(code) == (code.name in RETRYABLE)


@given(
    failures=st.integers(1, 10_000),
    base_s=st.floats(0, 10),
    cap_s=st.floats(0, 100),
    hint_s=st.none() | st.floats(0, 600),
    seed=st.integers(0, 1000),
)
def test_the_wait_lies_between_the_hint_and_the_hint_plus_the_ceiling(
    failures: int, base_s: float, cap_s: float, hint_s: float | None, seed: int
) -> None:
    delay_s = Backoff(base_s, cap_s).delay_s(failures, hint_s, random.Random(seed))
    least = hint_s or 0.0
    assert least <= delay_s <= least + min(cap_s, base_s * 2.0 ** min(failures - 1, 100)) + 1e-9


def test_the_jitter_is_full_and_the_ceiling_doubles() -> None:
    rng = random.Random(1)
    for failures, ceiling_s in [(1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (50, 60.0)]:
        delays_s = [Backoff(base_s=1.0, cap_s=60.0).delay_s(failures, None, rng) for _ in range(2000)]
        assert min(delays_s) < 0.01 * ceiling_s
        assert 0.99 * ceiling_s < max(delays_s) <= ceiling_s
        assert sum(delays_s) / 2000 == pytest.approx(ceiling_s / 2, rel=0.05)


def details(*messages: object) -> bytes:
    status = status_pb2.Status(code=8, message="quota")
    for message in messages:
        packed = any_pb2.Any()
        packed.Pack(message)  # type: ignore[arg-type]
        status.details.append(packed)
    data: bytes = status.SerializeToString()
    return data


def retry_info(seconds: int, nanos: int = 0) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))


@pytest.mark.parametrize(
    ("metadata", "hint_s"),
    [
        ([], None),
        ([("retry-after", "7")], 7.0),
        ([("retry-after", "0")], None),
        ([("retry-after", "-3")], None),
        ([("retry-after", "nan")], None),
        ([("retry-after", "inf")], None),
        ([("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], None),
        ([("retry-after", "86400")], 600.0),
        ([("grpc-status-details-bin", details(retry_info(2, 500_000_000)))], 2.5),
        ([("grpc-status-details-bin", details(error_details_pb2.ErrorInfo(reason="x"), retry_info(3)))], 3.0),
        ([("grpc-status-details-bin", details(error_details_pb2.ErrorInfo(reason="x")))], None),
        ([("grpc-status-details-bin", b"\xff\xff")], None),
        ([("grpc-status-details-bin", details(any_pb2.Any(type_url="x", value=b"\xff")))], None),
        ([("retry-after", "7"), ("grpc-status-details-bin", details(retry_info(9)))], 9.0),
        ([("server", "ESF")], None),
    ],
)
def test_hints_are_read_from_trailing_metadata(metadata: list[tuple[str, str | bytes]], hint_s: float | None) -> None:
    assert retry_hint_s(metadata) == hint_s


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
DATE_S = 1_445_412_480.0  # `date -u -d "2015-10-21 07:28:00" +%s`


@pytest.mark.parametrize(
    ("retry_after", "now_s", "hint_s"),
    [
        (DATE, DATE_S - 30, 30.0),
        (DATE, DATE_S - 30.5, 30.5),
        (DATE, DATE_S, None),
        (DATE, DATE_S + 30, None),
        (DATE, 0.0, 600.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", DATE_S - 30, 30.0),
        ("Wed Oct 21 07:28:00 2015", DATE_S - 30, 30.0),
        ("Wed, xx Oct 2015 07:28:00 GMT", DATE_S - 30, None),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", DATE_S - 30, None),
        ("12.5", DATE_S, 12.5),
        ("inf", DATE_S, None),
        ("", DATE_S, None),
        (None, DATE_S, None),
    ],
)
def test_http_hints_may_be_dates(retry_after: str | None, now_s: float, hint_s: float | None) -> None:
    assert http_retry_hint_s(retry_after, None, now_s) == hint_s


@given(retry_after=st.text(max_size=40), details=st.recursive(st.none() | st.text(max_size=9) | st.floats(), st.lists))
def test_what_cannot_be_read_is_no_hint_and_no_error(retry_after: str, details: object) -> None:
    hint_s = http_retry_hint_s(retry_after, details, DATE_S)
    assert hint_s is None or 0 < hint_s <= 600


def test_a_retry_info_that_cannot_be_parsed_is_no_hint() -> None:
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    status = status_pb2.Status(details=[broken])
    assert retry_hint_s([("grpc-status-details-bin", status.SerializeToString())]) is None
