import math

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from rows.example import FEATURE_TYPES, encode_example
from rows.model import TableRow
from tests.rows.samples import embedding_row


def example_class() -> type:
    """`tf.train.Example`, built from tensorflow/core/example/{example,feature}.proto by the official protobuf library."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    repeated, optional = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    for name, type_ in (("BytesList", "TYPE_BYTES"), ("FloatList", "TYPE_FLOAT"), ("Int64List", "TYPE_INT64")):
        message = file.message_type.add(name=name)
        message.field.add(
            name="value", number=1, label=repeated, type=getattr(descriptor_pb2.FieldDescriptorProto, type_)
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, type_name) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), 1
    ):
        feature.field.add(
            name=name, number=number, label=optional, type=11, type_name=f".tensorflow.{type_name}", oneof_index=0
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=optional, type=9)
    entry.field.add(name="value", number=2, label=optional, type=11, type_name=".tensorflow.Feature")
    features.field.add(name="feature", number=1, label=repeated, type=11, type_name=".tensorflow.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=optional, type=11, type_name=".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


EXAMPLE = example_class()


def official(row: object) -> object:
    """The row as protobuf's own classes build it."""
    message = EXAMPLE()
    for name, kind in FEATURE_TYPES.items():
        value = getattr(row, name)
        feature = message.features.feature[name]
        if name == "embedding":
            feature.float_list.value.extend(value.tolist())
        elif kind == "bytes":
            feature.bytes_list.value.append(value.encode())
        elif kind == "float":
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return message


@given(
    uri=st.text(max_size=300),
    index=st.integers(-(2**63), 2**63 - 1),
    level=st.floats(width=32, allow_nan=False),
    seed=st.integers(0, 2**32 - 1),
)
def test_examples_are_what_protobuf_itself_makes(uri: str, index: int, level: float, seed: int) -> None:
    row = embedding_row(uri=uri, seed=seed, clip_index=index, rms_dbfs=level)
    data = encode_example(TableRow(row, None, ()))
    assert EXAMPLE.FromString(data) == official(row)


@given(st.integers(1, 2**40), st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5))
def test_a_manifests_row_number_and_columns_are_features_of_their_own(number: int, columns: dict[str, str]) -> None:
    row = embedding_row()
    expected = official(row)
    expected.features.feature["manifest_row"].int64_list.value.append(number)
    for name, value in columns.items():
        expected.features.feature[f"metadata/{name}"].bytes_list.value.append(value.encode())
    assert EXAMPLE.FromString(encode_example(TableRow(row, number, tuple(columns.items())))) == expected


def test_the_bytes_are_those_of_protobuf_but_for_the_order_of_the_map() -> None:
    row = embedding_row(rms_dbfs=-math.inf)
    ours, theirs = encode_example(TableRow(row, None, ())), official(row)
    assert len(ours) == len(theirs.SerializeToString())
    parsed = EXAMPLE.FromString(ours)
    assert parsed.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_every_column_is_a_feature() -> None:
    assert set(FEATURE_TYPES) == set(embedding_row()._fields)
    parsed = EXAMPLE.FromString(encode_example(TableRow(embedding_row(), None, ())))
    assert np.array_equal(np.float32(parsed.features.feature["embedding"].float_list.value), embedding_row().embedding)
