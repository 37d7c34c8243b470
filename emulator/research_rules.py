"""The documented rules of the research endpoints: one broken rule refuses the whole request.

Source: the endpoints' API documentation. Its prose has `object_uri` as a list of strings, its example as one string:
both are taken, a list standing for as many predictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.objects import BadReferenceError, ObjectReference, object_reference
from emulator.refusals import InvalidArgumentError, at_element
from emulator.standin import CLIP_SAMPLES
from emulator.values import NotAClipError, clip_numbers, type_name, wrong_type

MAX_CLIPS = 4
MAX_URIS = 640

_URI_KEYS = {"bucket_name", "object_uri", "bearer_token"}


def audio_clips(instances: list[Any]) -> npt.NDArray[np.float32]:
    """The clips of a request to the raw-audio endpoint, float32 (1 to 4, 32000).

    Raises:
        InvalidArgumentError: a rule is broken; the message says which.
    """
    if not instances:
        raise InvalidArgumentError("The request holds no instances: expected 1 to 4 lists of 32000 floats.")
    if len(instances) > MAX_CLIPS:
        raise InvalidArgumentError(f"The request holds {len(instances)} instances: at most {MAX_CLIPS} are allowed.")
    clips = np.empty((len(instances), CLIP_SAMPLES), np.float32)
    for position, instance in enumerate(instances):
        try:
            clips[position] = clip_numbers(instance)
        except NotAClipError as error:
            raise at_element(position, str(error)) from None
    return clips


def object_references(instances: list[Any]) -> list[tuple[int, ObjectReference]]:
    """The objects that a request to the URI endpoint names, in order, each with its instance's position.

    Raises:
        InvalidArgumentError: a rule is broken; the message says which.
    """
    if not instances:
        raise InvalidArgumentError(
            "The request holds no instances: expected objects with bucket_name, object_uri and bearer_token."
        )
    references: list[tuple[int, ObjectReference]] = []
    for position, instance in enumerate(instances):
        references += ((position, reference) for reference in _references(position, instance))
    if len(references) > MAX_URIS:
        raise InvalidArgumentError(f"The request holds {len(references)} object URIs: at most {MAX_URIS} are allowed.")
    return references


def _references(position: int, instance: Any) -> list[ObjectReference]:
    if not isinstance(instance, dict):
        raise at_element(position, wrong_type(instance, "object"))
    if set(instance) != _URI_KEYS:
        raise at_element(position, "expected exactly the keys bucket_name, object_uri and bearer_token")
    for key in ("bucket_name", "bearer_token"):
        if not isinstance(instance[key], str):
            raise at_element(position, f"{key}: {wrong_type(instance[key], 'string')}")
    names = instance["object_uri"]
    # A list of numbers may come as an array, which is no list of strings either, unless it is empty.
    names = [names] if isinstance(names, str) else names
    if type_name(names) != "list" or not all(isinstance(name, str) for name in names):
        raise at_element(position, f"object_uri: {wrong_type(names, 'string or list of strings')}")
    if len(names) == 0:
        raise at_element(position, "object_uri: expected at least one string")
    try:
        return [object_reference(instance["bucket_name"], name, instance["bearer_token"]) for name in names]
    except BadReferenceError as error:
        raise at_element(position, str(error)) from None
