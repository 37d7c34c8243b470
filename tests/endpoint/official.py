"""Requests and answers as the official generated classes write and read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.protobuf import json_format
from google.protobuf.message import DecodeError as DecodeError

NAME = "projects/p/locations/l/endpoints/200"
WIDTH = 512
NOT_RETRIEVED = "Failed to retrieve data from request instance."


def request_message(endpoint: str, clips: Sequence[np.ndarray]) -> Any:
    message = PredictRequest.pb()()
    message.endpoint = endpoint
    for clip in clips:
        message.instances.add().list_value.extend(clip.tolist())
    return message


def struct_request_bytes(endpoint: str, instances: Sequence[Mapping[str, str]]) -> bytes:
    message = PredictRequest.pb()()
    message.endpoint = endpoint
    for instance in instances:
        message.instances.add().struct_value.update(instance)
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def parse_request(data: bytes) -> Any:
    return PredictRequest.pb().FromString(data)


def response_message(predictions: Sequence[Sequence[float]], model: str = "7") -> Any:
    message = PredictResponse.pb()()
    message.deployed_model_id = model
    for numbers in predictions:
        message.predictions.add().list_value.extend(list(map(float, numbers)))
    return message


def response_bytes(predictions: Sequence[Sequence[float]], model: str = "7") -> bytes:
    data: bytes = response_message(predictions, model).SerializeToString()
    return data


def garden_response_message(results: Sequence[Sequence[float] | str], model: str = "7") -> Any:
    """An answer of the Model Garden format; a string is the description of an error."""
    message = PredictResponse.pb()()
    message.deployed_model_id = model
    for result in results:
        struct = message.predictions.add().struct_value
        if isinstance(result, str):
            struct.update({"error": {"description": result}})
        else:
            struct.get_or_create_list("embedding").extend(list(map(float, result)))
    return message


def garden_response_bytes(results: Sequence[Sequence[float] | str], model: str = "7") -> bytes:
    data: bytes = garden_response_message(results, model).SerializeToString()
    return data


def parse_response(data: bytes) -> Any:
    return PredictResponse.pb().FromString(data)


def parse_json_response(text: str) -> bytes:
    """An answer in JSON as the bytes of the message that it stands for."""
    data: bytes = json_format.Parse(text, PredictResponse.pb()()).SerializeToString()
    return data
