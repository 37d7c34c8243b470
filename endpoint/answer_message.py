"""The part of the service's `PredictResponse` that is read here, as a protobuf message made at import.

The official class comes with `google.cloud.aiplatform_v1`: 3 to 5 s and 140 MB to import, for two fields. This one is
parsed by the same protobuf library, and lives in a pool of its own, so that the official classes can be imported too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import DecodeError

from endpoint.errors import BadAnswer


def parse_answer(data: bytes) -> Any:
    """Parses a `PredictResponse` into a message with `predictions` (of `Value`) and `deployed_model_id`.

    Raises:
        BadAnswer: when the bytes are no such message.
    """
    try:
        return _Answer.FromString(data)
    except DecodeError:
        # Without the parser's text, and so without a chain to it.
        raise BadAnswer("the answer is not a PredictResponse message") from None


def _make_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="hear/answer.proto",
        package="hear",
        syntax="proto3",
        dependency=[struct_pb2.DESCRIPTOR.name],
        message_type=[
            descriptor_pb2.DescriptorProto(
                name="Answer",
                field=[
                    field(
                        name="predictions",
                        number=1,
                        type=field.TYPE_MESSAGE,
                        type_name=".google.protobuf.Value",
                        label=field.LABEL_REPEATED,
                    ),
                    field(name="deployed_model_id", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL),
                ],
            )
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("hear.Answer"))


_Answer = _make_class()
