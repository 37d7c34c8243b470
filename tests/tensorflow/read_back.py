"""Reads TFRecords as a user of TensorFlow would, and prints them as JSON lines; run by the environment of requirements-tensorflow.lock."""

import json
import sys

import tensorflow as tf

FEATURES = {
    "clip_id": tf.io.FixedLenFeature([], tf.string),
    "recording_uri": tf.io.FixedLenFeature([], tf.string),
    "recording_version": tf.io.FixedLenFeature([], tf.string),
    "channel": tf.io.FixedLenFeature([], tf.string),
    "clip_index": tf.io.FixedLenFeature([], tf.int64),
    "start_s": tf.io.FixedLenFeature([], tf.float32),
    "end_s": tf.io.FixedLenFeature([], tf.float32),
    "padded_s": tf.io.FixedLenFeature([], tf.float32),
    "rms_dbfs": tf.io.FixedLenFeature([], tf.float32),
    "peak_dbfs": tf.io.FixedLenFeature([], tf.float32),
    "source_rate_hz": tf.io.FixedLenFeature([], tf.int64),
    "source_channels": tf.io.FixedLenFeature([], tf.int64),
    "codec": tf.io.FixedLenFeature([], tf.string),
    "model_id": tf.io.FixedLenFeature([], tf.string),
    "endpoint": tf.io.FixedLenFeature([], tf.string),
    "fingerprint": tf.io.FixedLenFeature([], tf.string),
    "embedding": tf.io.FixedLenFeature([512], tf.float32),
}

for record in tf.data.TFRecordDataset(sys.argv[1:]):
    row = {}
    for name, tensor in tf.io.parse_single_example(record, FEATURES).items():
        value = tensor.numpy()
        row[name] = value.decode() if isinstance(value, bytes) else value.tolist()
    print(json.dumps(row))
