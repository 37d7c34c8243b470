"""Lines of a batch prediction job: a clip to be predicted, and the answer that repeats it."""

from __future__ import annotations

import base64
import binascii
import math
import re
from array import array
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
import orjson

from endpoint.clip_digest import LIMIT, digest_of_large, digest_of_millionths, digest_of_numbers, digest_of_steps
from endpoint.compact_samples import CompactSamples, large_line
from endpoint.errors import BadAnswer
from endpoint.items import CLIP_SAMPLES
from endpoint.json_answer import embedding_of, result_of
from endpoint.predictions import EMBEDDING_WIDTH, InstanceError
from endpoint.rest_failure import status_of_http
from endpoint.results import Refused
from endpoint.sample_parser import SampleParser
from endpoint.settings import InstanceFormat
from endpoint.verdicts import refused_by_job
from endpoint.wav import encode_wav, read_steps


class Line(NamedTuple):
    """A clip as a line of a job's input."""

    data: bytes
    """With the newline."""
    digest: str
    """32 hexadecimal digits, by which the clip is known again in the job's results; see `clip_digest`."""
    clipped_samples: int
    """How many samples were beyond what 16 bits can say, and were limited to it; 0 in the research format."""

    def __repr__(self) -> str:
        # Without the samples.
        return f"Line(digest={self.digest!r}, clipped_samples={self.clipped_samples})"


class LineWriter:
    """Writes clips as lines, in memory that is used again: each thread needs one of its own.

    In the research format a line is a list of 32000 numbers with six decimals, with an error of at most 5e-7; in Model
    Garden's it is an object with a WAV file of 16 bits.
    """

    def __init__(self, instance_format: InstanceFormat) -> None:
        self._is_garden = instance_format == "model_garden"
        self._samples = CompactSamples()

    def line(self, samples: npt.NDArray[np.float32]) -> Line:
        """The line of a clip: float32 (32000,).

        Raises:
            ValueError: for another shape or type, or samples that are not finite.
        """
        if samples.shape != (CLIP_SAMPLES,) or samples.dtype != np.float32:
            raise ValueError(
                f"a clip of {samples.dtype} of shape {samples.shape}: expected float32 of shape ({CLIP_SAMPLES},)"
            )
        # Neither is finite if a sample is not a number.
        lowest, highest = float(samples.min()), float(samples.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise ValueError("a clip holds samples that are not finite numbers")
        if self._is_garden:
            wav = encode_wav(samples)
            data = b'{"input_bytes":"%b"}\n' % binascii.b2a_base64(wav.data, newline=False)
            return Line(data, digest_of_steps(read_steps(wav.data)), wav.clipped_samples)
        if lowest <= -LIMIT or highest >= LIMIT:
            return Line(large_line(samples), digest_of_large(samples), 0)
        millionths = self._samples.rounded(samples)
        return Line(self._samples.line(millionths), digest_of_millionths(millionths), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A line of a job's results or errors."""

    digest: str | None
    """Of the instance that it repeats, as in `Line`; None for an error without one, as statistics of errors are."""
    result: npt.NDArray[np.float32] | Refused = field(repr=False)
    """The embedding, float32 (512,), finite; or why there is none."""


def read_answer(line: bytes) -> Answer:
    """Reads a line of `prediction.results-*`, `prediction.errors_stats-*`, or their older names (design.md 2.3).

    It is an object of `instance`, which is a list of 32000 numbers, or an object with such a list as `input_array` or with a
    WAV file as `input_bytes`, or a string of such JSON; with `prediction`, a list of 512 numbers or an object with either
    `embedding` or `error`; or with `error`, an object with a `code` or a string.

    Raises:
        BadAnswer: for anything else, and embeddings beyond float32.
    """
    answer, digest = _parse(line)
    prediction, error, instance = answer.get("prediction"), answer.get("error"), answer.get("instance")
    if (prediction is None) == (error is None):
        raise BadAnswer("the line does not hold either a prediction or an error")
    result = Refused(*refused_by_job(_status(error)), attempts=1) if prediction is None else _result(prediction)
    if digest is None and not (instance is None and prediction is None):
        digest = _digest(instance, line)
    return Answer(digest, result)


_BEGIN = re.compile(rb'"instance"\s*:\s*(?:(")|\{\s*"input_array"\s*:\s*)?\[')
_SAMPLES = SampleParser()
_MARK = "the samples were here"


def _parse(line: bytes) -> tuple[dict[str, Any], str | None]:
    """The line's object; and the digest of its instance, if that is a list in a usual rendering."""
    begin = _BEGIN.match(line, max(line.find(b'"instance"'), 0))
    if begin is not None:
        quote = begin[1] or b""
        stop = line.find(b"]", begin.end())
        millionths = _SAMPLES.millionths(line, begin.end(), stop) if line.startswith(b"]" + quote, stop) else None
        if millionths is not None:
            rest = b'%b"%b"%b' % (line[: begin.end() - 1 - len(quote)], _MARK.encode(), line[stop + 1 + len(quote) :])
            # Only if the instance is the mark, and the only one, then what the mark stands for is the instance.
            if rest.count(_MARK.encode()) == 1:
                answer = _object(rest)
                if answer.get("instance") in (_MARK, {"input_array": _MARK}):
                    return answer, digest_of_millionths(millionths)
    return _object(line), None


def _object(line: bytes) -> dict[str, Any]:
    answer = _loads(line, "the line is not JSON")
    if not isinstance(answer, dict):
        raise BadAnswer("the line is not an object")
    return answer


def _loads(text: bytes | str, otherwise: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Without the parser's error, which holds the whole text, and so without a chain to it.
        raise BadAnswer(otherwise) from None


def _result(prediction: Any) -> npt.NDArray[np.float32] | Refused:
    result = embedding_of(prediction) if isinstance(prediction, list) else result_of(prediction)
    if result is None:
        raise BadAnswer(
            f"the line's prediction is neither {EMBEDDING_WIDTH} numbers nor an object with either an embedding of so "
            "many or an error"
        )
    if isinstance(result, InstanceError):
        return Refused(*refused_by_job(result), attempts=1)
    if not np.isfinite(result).all():
        raise BadAnswer("the line's prediction holds numbers that are not finite float32")
    return result


_STATUSES = {status.value[0]: status for status in grpc.StatusCode if status is not grpc.StatusCode.OK}


def _status(error: Any) -> grpc.StatusCode | None:
    """By `google.rpc.Status.code`, or by HTTP's numbers; None where an error has neither."""
    code = error.get("code") if isinstance(error, dict) else None
    if type(code) is not int:
        return None
    return _STATUSES.get(code) or (status_of_http(code) if code >= _LEAST_HTTP_FAILURE else None)


_LEAST_HTTP_FAILURE = 400


def _digest(instance: Any, line: bytes) -> str:
    if isinstance(instance, str):
        instance = _loads(instance, "the line's instance is a string that is not JSON")
    if isinstance(instance, dict) and len(instance) == 1:
        if "input_bytes" in instance:
            return _digest_of_wav(instance["input_bytes"])
        instance = instance.get("input_array")
    try:
        numbers = _numbers(instance, line)
    except TypeError:
        numbers = None
    if numbers is None:
        raise BadAnswer(
            f"the line's instance is neither {CLIP_SAMPLES} numbers nor an object with so many or with a WAV file"
        )
    return digest_of_numbers(numbers)


def _numbers(instance: Any, line: bytes) -> npt.NDArray[np.float64] | None:
    """A parsed list as float64 (32000,); None or TypeError if it is something else."""
    if not isinstance(instance, list) or len(instance) != CLIP_SAMPLES:
        return None
    # Booleans are integers to Python. Looking at each type takes as long as all the rest.
    if (b"true" in line or b"false" in line) and bool in map(type, instance):
        return None
    return np.frombuffer(array("d", instance), np.float64)


def _digest_of_wav(text: Any) -> str:
    try:
        return digest_of_steps(read_steps(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)))
    except (TypeError, ValueError):
        raise BadAnswer("the line's instance is not a WAV file of a clip in base64") from None
