"""Answers as JSON: `{"predictions": [...], "deployedModelId": "..."}`, as the REST method `predict` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
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
        result = result_of(prediction)
        if result is None:
            raise BadAnswer(
                f"prediction {position} of {instances} is not an object with either an embedding of "
                f"{EMBEDDING_WIDTH} numbers or an error"
            )
        if isinstance(result, InstanceError):
            errors[position] = result
        else:
            embeddings[position] = result
    check_finite(embeddings)
    return Predictions(embeddings, model, errors)


def result_of(prediction: Any) -> npt.NDArray[np.float32] | InstanceError | None:
    """Reads a parsed prediction of the Model Garden format; None if it is something else."""
    if not isinstance(prediction, dict) or ("embedding" in prediction) == ("error" in prediction):
        return None
    if "embedding" in prediction:
        return embedding_of(prediction["embedding"])
    error = prediction["error"]
    return error_of_description(error.get("description") if isinstance(error, dict) else None)


def embedding_of(value: Any) -> npt.NDArray[np.float32] | None:
    """A parsed list of 512 numbers, infinite where beyond float32; None if it is something else."""
    return as_float32(np.array(value, np.float64)) if _is_embedding(value) else None


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
