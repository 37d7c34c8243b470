"""Answers as JSON: `{"predictions": [...], "deployedModelId": "..."}`, as the REST method `predict` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from endpoint.errors import BadAnswer
from endpoint.predictions import (
    EMBEDDING_WIDTH,
    InstanceError,
    Predictions,
    as_float32,
    check_count,
    check_finite,
    error_of_description,
)

_NUMBER_TYPES = frozenset((int, float))


def read_embeddings(body: bytes, instances: int) -> Predictions:
    """Reads an answer of the research format: a list of 512 finite numbers for each instance.

    Raises:
        BadAnswer: when it holds anything else, or numbers beyond float32.
    """
    predictions, model = _parse(body, instances)
    for position, prediction in enumerate(predictions):
        if not _is_embedding(prediction):
            raise BadAnswer(f"prediction {position} of {instances} is not a list of {EMBEDDING_WIDTH} numbers")
    embeddings = as_float32(np.array(predictions, np.float64))
    check_finite(embeddings)
    return Predictions(embeddings, model)


def read_results(body: bytes, instances: int) -> Predictions:
    """Reads an answer of the Model Garden format: `embedding`, as 512 finite numbers, or `error` for each instance.

    Raises:
        BadAnswer: when it holds anything else, or numbers beyond float32.
    """
    predictions, model = _parse(body, instances)
    embeddings = np.zeros((instances, EMBEDDING_WIDTH), np.float32)
    errors: dict[int, InstanceError] = {}
    for position, prediction in enumerate(predictions):
        fields = prediction if isinstance(prediction, dict) else {}
        if "error" in fields and "embedding" not in fields:
            error = fields["error"]
            errors[position] = error_of_description(error.get("description") if isinstance(error, dict) else None)
        elif "error" not in fields and _is_embedding(fields.get("embedding")):
            embeddings[position] = as_float32(np.array(fields["embedding"], np.float64))
        else:
            raise BadAnswer(
                f"prediction {position} of {instances} is not an object with either an embedding of "
                f"{EMBEDDING_WIDTH} numbers or an error"
            )
    check_finite(embeddings)
    return Predictions(embeddings, model, errors)


def _parse(body: bytes, instances: int) -> tuple[list[Any], str]:
    try:
        # It refuses NaN and Infinity, which are no JSON.
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Without the parser's error, which holds the whole text, and so without a chain to it.
        raise BadAnswer("the answer is not JSON") from None
    if not isinstance(answer, dict) or not isinstance(predictions := answer.get("predictions", []), list):
        raise BadAnswer("the answer is not an object with a list of predictions")
    check_count(len(predictions), instances)
    model = answer.get("deployedModelId", "")
    if not isinstance(model, str):
        raise BadAnswer("the answer names its model by something else than a string")
    return predictions, model


def _is_embedding(value: Any) -> bool:
    # The types themselves: booleans are integers to Python.
    return isinstance(value, list) and len(value) == EMBEDDING_WIDTH and _NUMBER_TYPES.issuperset(map(type, value))
