"""The job service's messages as described here are the official ones, or parts of them that lose nothing of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.types import BatchPredictionJob
from google.protobuf.descriptor import Descriptor

from emulator.job_messages import MESSAGES, JobState
from tests.emulator.calls import fill

PARTS = {"BatchPredictionJob", "InputConfig", "OutputConfig", "OutputInfo", "MachineSpec"}
"""Those of which some fields are left out."""


def fields(message: Descriptor) -> set[tuple[Any, ...]]:
    return {
        (
            field.name,
            field.json_name,
            field.number,
            field.type,
            field.is_repeated,
            field.has_presence,
            field.containing_oneof.name if field.containing_oneof else None,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
        )
        for field in message.fields
    }


def check(ours: Descriptor, official: Descriptor) -> None:
    assert ours.full_name == official.full_name
    assert ours.GetOptions().map_entry == official.GetOptions().map_entry
    if ours.name in PARTS:
        assert fields(ours) < fields(official)
    else:
        assert fields(ours) == fields(official)
    for nested in ours.nested_types:
        check(nested, official.nested_types_by_name[nested.name])


@pytest.mark.parametrize("name", MESSAGES)
def test_same_fields(name: str) -> None:
    check(MESSAGES[name].DESCRIPTOR, getattr(aiplatform_v1.types, name).pb().DESCRIPTOR)


def test_same_values() -> None:
    assert {state.name: int(state) for state in JobState} == {s.name: s.value for s in aiplatform_v1.types.JobState}
    accelerators = MESSAGES["MachineSpec"].DESCRIPTOR.fields_by_name["accelerator_type"].enum_type
    official = {a.name: a.value for a in aiplatform_v1.types.AcceleratorType}
    assert {value.name: value.number for value in accelerators.values} == official


def test_what_is_not_described_passes_through() -> None:
    job = BatchPredictionJob(
        name="n",
        labels={"a": "b"},
        input_config={"instances_format": "bigquery", "bigquery_source": {"input_uri": "bq://table"}},
        explanation_spec={"parameters": {"top_k": 3}},
        unmanaged_container_model={"artifact_uri": "gs://bucket/model"},
        state="JOB_STATE_QUEUED",
        completion_stats={"successful_count": 2**40},
    )
    official = BatchPredictionJob.pb(job)
    fill(official.model_parameters, {"a": [1, "x"]})
    copy = MESSAGES["BatchPredictionJob"]()
    copy.CopyFrom(MESSAGES["BatchPredictionJob"].FromString(official.SerializeToString()))
    assert type(official).FromString(copy.SerializeToString()) == official
