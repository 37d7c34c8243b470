"""What all calls over gRPC have in common: the routing header, and what a refusal carries beside its text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from urllib.parse import parse_qs

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from emulator.refusals import InvalidArgumentError, RefusalError

ROUTING_KEY = "x-goog-request-params"

STATUS_KEY = "grpc-status-details-bin"
"""Metadata in which gRPC services send a serialised google.rpc.Status."""

Metadata = Iterable[tuple[str, str | bytes]]


def check_routing(metadata: Metadata, field: str, value: str) -> None:
    """Refuses (InvalidArgumentError) a call whose routing header does not name what this field of its message names."""
    routed = [text for key, text in metadata if key == ROUTING_KEY and isinstance(text, str)]
    if not routed:
        raise InvalidArgumentError(f"The {ROUTING_KEY} header is missing: expected {field}={value}.")
    if parse_qs(routed[0]).get(field) != [value]:
        raise InvalidArgumentError(
            f"The {ROUTING_KEY} header does not name the request's {field}: expected {field}={value}."
        )


def refusal_details(refusal: RefusalError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of a refusal: a google.rpc.RetryInfo where there is something to wait for."""
    if refusal.retry_s is None:
        return ()
    info = error_details_pb2.RetryInfo()
    fraction_s, whole_s = math.modf(refusal.retry_s)
    info.retry_delay.seconds, info.retry_delay.nanos = int(whole_s), int(fraction_s * 1e9)
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=refusal.status.value[0], message=str(refusal), details=[detail])
    return ((STATUS_KEY, status.SerializeToString()),)
