"""Requests and answers as the official generated classes write and read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse

NAME = "projects/p/locations/l/endpoints/200"
WIDTH = 512


def request_message(endpoint: str, clips: Sequence[np.ndarray]) -> Any:
    message = PredictRequest.pb()()
    message.endpoint = endpoint
    for clip in clips:
        message.instances.add().list_value.extend(clip.tolist())
    return message


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


def parse_response(data: bytes) -> Any:
    return PredictResponse.pb().FromString(data)
