"""The messages described here are the official ones, field by field and byte by byte."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator import messages
from tests.emulator.calls import Request, Response, fill

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def fields(message: Descriptor) -> list[tuple[Any, ...]]:
    return sorted(
        (
            field.name,
            field.json_name,
            field.number,
            field.type,
            field.is_repeated,
            field.has_presence,
            field.message_type.full_name if field.message_type else None,
        )
        for field in message.fields
    )


@pytest.mark.parametrize(
    ("ours", "official"), [(messages.PredictRequest, Request), (messages.PredictResponse, Response)]
)
def test_same_fields(ours: Any, official: Any) -> None:
    assert ours.DESCRIPTOR.full_name == official.DESCRIPTOR.full_name
    assert fields(ours.DESCRIPTOR) == fields(official.DESCRIPTOR)
    for nested, official_nested in zip(ours.DESCRIPTOR.nested_types, official.DESCRIPTOR.nested_types, strict=True):
        assert nested.GetOptions().map_entry == official_nested.GetOptions().map_entry
        assert fields(nested) == fields(official_nested)


def round_trip(ours: Any, official_message: Any) -> None:
    data = official_message.SerializeToString(deterministic=True)
    message = ours.FromString(data)
    assert len(UnknownFieldSet(message)) == 0
    assert message.SerializeToString(deterministic=True) == data
    assert type(official_message).FromString(message.SerializeToString()) == official_message


@given(st.text(max_size=9), st.lists(JSON, max_size=3), JSON, st.dictionaries(st.text(max_size=3), st.text(max_size=3)))
@settings(max_examples=60, deadline=None)
def test_requests_pass_between_both(
    endpoint: str, instances: list[Any], parameters: Any, labels: dict[str, str]
) -> None:
    request = Request(endpoint=endpoint, labels=labels)
    for instance in instances:
        fill(request.instances.add(), instance)
    fill(request.parameters, parameters)
    round_trip(messages.PredictRequest, request)


@given(st.lists(JSON, max_size=3), JSON, st.lists(st.text(max_size=9), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_responses_pass_between_both(predictions: list[Any], metadata: Any, names: list[str]) -> None:
    keys = ("deployed_model_id", "model", "model_version_id", "model_display_name")
    response = Response(**dict(zip(keys, names, strict=True)))
    for prediction in predictions:
        fill(response.predictions.add(), prediction)
    fill(response.metadata, metadata)
    round_trip(messages.PredictResponse, response)


def test_the_service_does_without_the_heavy_libraries() -> None:
    program = "import sys, emulator.__main__; print([m for m in sys.modules if m.startswith(('google.cloud.', 'google.api'))])"
    listing = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert listing.stdout.strip() == "[]"
