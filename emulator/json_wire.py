"""The JSON side: a request's body to instances, predictions and refusals to bodies, in Google's form of each."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import orjson

from emulator.predictions import DEPLOYED_MODEL_ID, MODEL_NAME, MODEL_VERSION_ID, Predictions
from emulator.refusals import InvalidArgumentError, RefusalError
from emulator.standin import MODEL_ID
from emulator.values import Request

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
"""https://cloud.google.com/apis/design/errors#handling_errors"""

_FIELDS = {"instances", "parameters", "labels"}

_NAMES = {
    "deployedModelId": DEPLOYED_MODEL_ID,
    "model": MODEL_NAME,
    "modelDisplayName": MODEL_ID,
    "modelVersionId": MODEL_VERSION_ID,
}


def read_json_request(endpoint: str, body: bytes) -> Request:
    """Reads the body of a call to an endpoint.

    Raises:
        InvalidArgumentError: it is no JSON, or no object with `instances`.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidArgumentError("Invalid JSON payload received.") from None
    if not isinstance(content, dict) or not content.keys() <= _FIELDS:
        raise InvalidArgumentError("Invalid JSON payload received: expected an object with instances.")
    instances = content.get("instances", [])
    if not isinstance(instances, list):
        raise InvalidArgumentError("Invalid value at 'instances': expected a list.")
    return Request(endpoint, instances)


def response_json(predictions: Predictions) -> bytes:
    """The body of an answer; a NaN is written as Python's `json` does, `NaN`, which strict parsers refuse."""
    embeddings = predictions.embeddings.astype(np.float64)
    content: dict[str, Any] = {"predictions": _predictions(predictions, list(embeddings)), **_NAMES}
    if np.isfinite(embeddings).all():
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(content, default=np.ndarray.tolist).encode()


def error_json(refusal: RefusalError) -> bytes:
    """The body of a refusal."""
    error: dict[str, Any] = {
        "code": HTTP_STATUS[refusal.status],
        "message": str(refusal),
        "status": refusal.status.name,
    }
    if refusal.retry_s is not None:
        seconds = f"{refusal.retry_s:.9f}".rstrip("0").rstrip(".")
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}]
    return json.dumps({"error": error}).encode()


def _predictions(predictions: Predictions, embeddings: list[Any]) -> list[Any]:
    if not predictions.as_objects:
        return embeddings
    return [
        {"error": {"description": predictions.errors[position]}}
        if position in predictions.errors
        else {"embedding": embedding}
        for position, embedding in enumerate(embeddings)
    ]
