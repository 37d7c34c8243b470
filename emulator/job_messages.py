"""BatchPredictionJob and the requests of google.cloud.aiplatform.v1.JobService, described as `emulator.messages` does.

What a job may hold besides (explanations, BigQuery, a container instead of a model) is not described: over gRPC it
passes through as unknown fields. A test compares all that is described with the official classes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.rpc import status_pb2

from emulator.messages import PACKAGE, field, labels_entry

JOB_SERVICE_NAME = f"{PACKAGE}.JobService"


class JobState(enum.IntEnum):
    """The official values, of which jobs here have some."""

    JOB_STATE_UNSPECIFIED = 0
    JOB_STATE_QUEUED = 1
    JOB_STATE_PENDING = 2
    JOB_STATE_RUNNING = 3
    JOB_STATE_SUCCEEDED = 4
    JOB_STATE_FAILED = 5
    JOB_STATE_CANCELLING = 6
    JOB_STATE_CANCELLED = 7
    JOB_STATE_PAUSED = 8
    JOB_STATE_EXPIRED = 9
    JOB_STATE_UPDATING = 10
    JOB_STATE_PARTIALLY_SUCCEEDED = 11


_ACCELERATORS = (
    "ACCELERATOR_TYPE_UNSPECIFIED",
    "NVIDIA_TESLA_K80",
    "NVIDIA_TESLA_P100",
    "NVIDIA_TESLA_V100",
    "NVIDIA_TESLA_P4",
    "NVIDIA_TESLA_T4",
    "TPU_V2",
    "TPU_V3",
    "NVIDIA_TESLA_A100",
    "NVIDIA_A100_80GB",
    "TPU_V4_POD",
    "NVIDIA_L4",
    "TPU_V5_LITEPOD",
    "NVIDIA_H100_80GB",
    "NVIDIA_H100_MEGA_80GB",
    "NVIDIA_H200_141GB",
    "NVIDIA_B200",
    "NVIDIA_GB200",
    "NVIDIA_RTX_PRO_6000",
)
"""The official names, each in the place of its number."""

_JOB = f".{PACKAGE}.BatchPredictionJob"
_TIMESTAMP = ".google.protobuf.Timestamp"
_STATUS = ".google.rpc.Status"


def _message(
    name: str,
    *fields: descriptor_pb2.FieldDescriptorProto,
    nested: Sequence[descriptor_pb2.DescriptorProto] = (),
    oneof: str = "",
) -> descriptor_pb2.DescriptorProto:
    """A message; its first field is in the `oneof`, if there is one."""
    message = descriptor_pb2.DescriptorProto(name=name, field=fields, nested_type=nested)
    if oneof:
        message.oneof_decl.add(name=oneof)
        message.field[0].oneof_index = 0
    return message


def _of(name: str) -> str:
    return f".{PACKAGE}.{name}"


def _enum(name: str, values: Sequence[tuple[str, int]]) -> descriptor_pb2.EnumDescriptorProto:
    numbered = [descriptor_pb2.EnumValueDescriptorProto(name=value, number=number) for value, number in values]
    return descriptor_pb2.EnumDescriptorProto(name=name, value=numbered)


def _job() -> descriptor_pb2.DescriptorProto:
    return _message(
        "BatchPredictionJob",
        field("name", 1),
        field("display_name", 2),
        field("model", 3),
        field("input_config", 4, f"{_JOB}.InputConfig"),
        field("model_parameters", 5, ".google.protobuf.Value"),
        field("output_config", 6, f"{_JOB}.OutputConfig"),
        field("dedicated_resources", 7, _of("BatchDedicatedResources")),
        field("manual_batch_tuning_parameters", 8, _of("ManualBatchTuningParameters")),
        field("output_info", 9, f"{_JOB}.OutputInfo"),
        field("state", 10, _of("JobState"), enum=True),
        field("error", 11, _STATUS),
        field("partial_failures", 12, _STATUS, repeated=True),
        field("resources_consumed", 13, _of("ResourcesConsumed")),
        field("completion_stats", 14, _of("CompletionStats")),
        field("create_time", 15, _TIMESTAMP),
        field("start_time", 16, _TIMESTAMP),
        field("end_time", 17, _TIMESTAMP),
        field("update_time", 18, _TIMESTAMP),
        field("labels", 19, f"{_JOB}.LabelsEntry", repeated=True),
        field("generate_explanation", 23, "bool"),
        field("encryption_spec", 24, _of("EncryptionSpec")),
        field("instance_config", 27, f"{_JOB}.InstanceConfig"),
        field("service_account", 29),
        field("model_version_id", 30),
        field("disable_container_logging", 34, "bool"),
        field("satisfies_pzs", 36, "bool"),
        field("satisfies_pzi", 37, "bool"),
        nested=[
            _message(
                "InputConfig",
                field("gcs_source", 2, _of("GcsSource")),
                field("instances_format", 1),
                oneof="source",
            ),
            _message(
                "OutputConfig",
                field("gcs_destination", 2, _of("GcsDestination")),
                field("predictions_format", 1),
                oneof="destination",
            ),
            _message("OutputInfo", field("gcs_output_directory", 1), oneof="output_location"),
            _message(
                "InstanceConfig",
                field("instance_type", 1),
                field("key_field", 2),
                field("included_fields", 3, repeated=True),
                field("excluded_fields", 4, repeated=True),
            ),
            labels_entry(),
        ],
    )


def _file() -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto(
        name="emulator/job_service.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[file.DESCRIPTOR.name for file in (struct_pb2, timestamp_pb2, field_mask_pb2, status_pb2)],
        enum_type=[
            _enum("JobState", [(state.name, state) for state in JobState]),
            _enum("AcceleratorType", [(name, number) for number, name in enumerate(_ACCELERATORS)]),
        ],
        message_type=[
            _job(),
            _message("GcsSource", field("uris", 1, repeated=True)),
            _message("GcsDestination", field("output_uri_prefix", 1)),
            _message(
                "BatchDedicatedResources",
                field("machine_spec", 1, _of("MachineSpec")),
                field("starting_replica_count", 2, "int32"),
                field("max_replica_count", 3, "int32"),
            ),
            _message(
                "MachineSpec",
                field("machine_type", 1),
                field("accelerator_type", 2, _of("AcceleratorType"), enum=True),
                field("accelerator_count", 3, "int32"),
                field("tpu_topology", 4),
                field("gpu_partition_size", 7),
            ),
            _message("ManualBatchTuningParameters", field("batch_size", 1, "int32")),
            _message("ResourcesConsumed", field("replica_hours", 1, "double")),
            _message(
                "CompletionStats",
                field("successful_count", 1, "int64"),
                field("failed_count", 2, "int64"),
                field("incomplete_count", 3, "int64"),
                field("successful_forecast_point_count", 5, "int64"),
            ),
            _message("EncryptionSpec", field("kms_key_name", 1)),
            _message(
                "CreateBatchPredictionJobRequest",
                field("parent", 1),
                field("batch_prediction_job", 2, _JOB),
            ),
            _message("GetBatchPredictionJobRequest", field("name", 1)),
            _message(
                "ListBatchPredictionJobsRequest",
                field("parent", 1),
                field("filter", 2),
                field("page_size", 3, "int32"),
                field("page_token", 4),
                field("read_mask", 5, ".google.protobuf.FieldMask"),
            ),
            _message(
                "ListBatchPredictionJobsResponse",
                field("batch_prediction_jobs", 1, _JOB, repeated=True),
                field("next_page_token", 2),
            ),
            _message("CancelBatchPredictionJobRequest", field("name", 1)),
        ],
    )


_pool = descriptor_pool.DescriptorPool()
for _known in (any_pb2, struct_pb2, timestamp_pb2, field_mask_pb2, status_pb2):
    _pool.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
_pool.AddSerializedFile(_file().SerializeToString())

MESSAGES = {
    name: message_factory.GetMessageClass(descriptor)
    for name, descriptor in _pool.FindFileByName("emulator/job_service.proto").message_types_by_name.items()
}
"""The classes of all messages that are described here, by their names."""

BatchPredictionJob = MESSAGES["BatchPredictionJob"]
CreateBatchPredictionJobRequest = MESSAGES["CreateBatchPredictionJobRequest"]
GetBatchPredictionJobRequest = MESSAGES["GetBatchPredictionJobRequest"]
ListBatchPredictionJobsRequest = MESSAGES["ListBatchPredictionJobsRequest"]
ListBatchPredictionJobsResponse = MESSAGES["ListBatchPredictionJobsResponse"]
CancelBatchPredictionJobRequest = MESSAGES["CancelBatchPredictionJobRequest"]
