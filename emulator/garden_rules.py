"""The rules of HeAR's Model Garden format: what is wrong with an instance is that instance's error alone.

Source: the published serving code of HeAR. Only a request whose instances are no objects at all is refused as a whole.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from emulator.audio_files import resampled_clip
from emulator.objects import BadReferenceError, ObjectReference, object_reference
from emulator.refusals import InvalidArgumentError, at_element
from emulator.standin import FloatArray
from emulator.values import NotAClipError, clip_numbers, wrong_type

NOT_RETRIEVED = "Failed to retrieve data from request instance."
"""The published code's description of an expired token and of a missing object alike."""

_KINDS = ({"input_array"}, {"input_bytes"}, {"gcs_uri", "bearer_token"})


@dataclass(frozen=True)
class InstanceError:
    """An instance that has no embedding; `description` is what the caller reads, never a sample or a token."""

    description: str


Source = FloatArray | bytes | ObjectReference | InstanceError
"""Where an instance's clip comes from: float32 (32000,), an audio file not yet decoded, or an object to be fetched."""


def sources(instances: list[Any]) -> list[Source]:
    """What each instance holds, in order.

    Raises:
        InvalidArgumentError: there are none, or one of them is no object.
    """
    if not instances:
        raise InvalidArgumentError("The request holds no instances: expected at least one object.")
    for position, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise at_element(position, wrong_type(instance, "object"))
    return [_source(instance) for instance in instances]


def decoded(data: bytes) -> FloatArray | InstanceError:
    """The clip of an audio file of any rate and any number of channels, float32 (32000,)."""
    try:
        return resampled_clip(data)
    except NotAClipError as error:
        return InstanceError(str(error))


def _source(instance: dict[str, Any]) -> Source:
    if set(instance) not in _KINDS:
        return InstanceError("Exactly one of input_array, input_bytes, or gcs_uri with bearer_token is expected.")
    try:
        if "input_array" in instance:
            return clip_numbers(instance["input_array"]).astype(np.float32)
        for key, value in instance.items():
            if not isinstance(value, str):
                return InstanceError(f"{key}: {wrong_type(value, 'string')}")
        if "input_bytes" in instance:
            return base64.b64decode(instance["input_bytes"], validate=True)
        return _reference(instance["gcs_uri"], instance["bearer_token"])
    except NotAClipError as error:
        return InstanceError(f"input_array: {error}")
    except (binascii.Error, ValueError):
        return InstanceError("input_bytes: expected an audio file in Base64")


def _reference(uri: str, token: str) -> ObjectReference | InstanceError:
    scheme, _, path = uri.partition("gs://")
    bucket, _, name = path.partition("/")
    if scheme or not path:
        return InstanceError("gcs_uri: expected gs://BUCKET/OBJECT")
    try:
        return object_reference(bucket, name, token)
    except BadReferenceError as error:
        return InstanceError(f"gcs_uri: {error}")
