"""The documented limits of the raw-audio endpoint: first the request's size, then its endpoint, then its instances."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt

from emulator.refusals import InvalidArgumentError, NotFoundError
from emulator.standin import CLIP_SAMPLES
from emulator.wire import DoubleArray, read_request

MAX_CLIPS = 4
MAX_REQUEST_BYTES = 1_500_000
"""Vertex says "1.500MB", not whether of 10^6 or 2^20 bytes: by the smaller reading, what passes here passes there."""

ROUTING_KEY = "x-goog-request-params"

_ENDPOINT_NAME = re.compile(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/endpoints/[A-Za-z0-9_-]+", re.ASCII)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def is_endpoint_name(name: str) -> bool:
    """Whether this reads `projects/P/locations/L/endpoints/E`."""
    return _ENDPOINT_NAME.fullmatch(name) is not None


def accepted_clips(
    data: bytes, metadata: Iterable[tuple[str, str | bytes]], served_endpoint: str
) -> npt.NDArray[np.float32]:
    """The clips of a request that keeps every rule, float32 (1 to 4, 32000).

    Args:
        data: the serialised PredictRequest.
        metadata: the call's metadata; the routing header must name the endpoint that the request names.
        served_endpoint: the one that exists.

    Raises:
        InvalidArgumentError: a rule is broken; the message says which.
        NotFoundError: the request is for another endpoint.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise InvalidArgumentError(f"The request size ({len(data)} bytes) exceeds 1.500MB limit.")
    request = read_request(data)
    _check_endpoint(request.endpoint, metadata, served_endpoint)
    if not request.instances:
        raise InvalidArgumentError("The request holds no instances: expected 1 to 4 lists of 32000 floats.")
    if len(request.instances) > MAX_CLIPS:
        raise InvalidArgumentError(
            f"The request holds {len(request.instances)} instances: at most {MAX_CLIPS} are allowed."
        )
    clips = np.empty((len(request.instances), CLIP_SAMPLES), np.float32)
    for position, numbers in enumerate(request.instances):
        if isinstance(numbers, InvalidArgumentError):
            raise numbers
        _check_numbers(position, numbers)
        clips[position] = numbers
    return clips


def _check_endpoint(name: str, metadata: Iterable[tuple[str, str | bytes]], served_endpoint: str) -> None:
    if not is_endpoint_name(name):
        raise InvalidArgumentError(
            "Invalid resource field value in the request: endpoint must read projects/P/locations/L/endpoints/E."
        )
    routed = [value for key, value in metadata if key == ROUTING_KEY and isinstance(value, str)]
    if not routed:
        raise InvalidArgumentError(f"The {ROUTING_KEY} header is missing: expected endpoint={name}.")
    if parse_qs(routed[0]).get("endpoint") != [name]:
        raise InvalidArgumentError(
            f"The {ROUTING_KEY} header does not name the request's endpoint: expected endpoint={name}."
        )
    if name != served_endpoint:
        raise NotFoundError(f"Endpoint `{name}` not found.")


def _check_numbers(position: int, numbers: DoubleArray) -> None:
    element = f"Failed to process element: {position} of 'instances' list. Error: INVALID_ARGUMENT: "
    if len(numbers) != CLIP_SAMPLES:
        raise InvalidArgumentError(f"{element}expected exactly {CLIP_SAMPLES} floats, got {len(numbers)}")
    # One pass finds both what JSON cannot hold and what would be infinite as float32: NaN compares false.
    if not max(numbers.max(), -numbers.min()) <= _FLOAT32_MAX:
        raise InvalidArgumentError(f"{element}not every value is a finite 32-bit float")
