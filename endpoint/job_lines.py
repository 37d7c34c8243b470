"""Lines of a batch prediction job: a clip to be predicted, and the answer that repeats it."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
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
from endpoint.results import Refused
from endpoint.sample_parser import parse_millionths
from endpoint.settings import InstanceFormat
from endpoint.verdicts import refused_by_job
from endpoint.wav import encode_wav, read_steps


class Line(NamedTuple):
    """A clip as a line of a job's input."""

    data: bytes
    """With the newline."""
    digest: str
    """32 hexadecimal digits, by which the clip is found again in the job's results; see `clip_digest`."""
    clipped_samples: int
    """How many samples were beyond what 16 bits can say, and were limited to it; 0 in the research format."""


class LineWriter:
    """Writes clips as lines; each thread needs one of its own.

    In the research format a line is a list of 32000 numbers with six decimals, an error of at most 5e-7; in Model
    Garden's an object with a WAV file of 16 bits.
    """

    def __init__(self, instance_format: InstanceFormat) -> None:
        self._is_garden = instance_format == "model_garden"
        self._lists = CompactSamples()

    def line(self, samples: npt.NDArray[np.float32]) -> Line:
        """The line of a clip: float32 (32000,).

        Raises:
            ValueError: for another shape or type, or samples that are not finite.
        """
        if samples.shape != (CLIP_SAMPLES,) or samples.dtype != np.float32:
            raise ValueError(
                f"a clip of {samples.dtype} of shape {samples.shape}: expected float32 of shape ({CLIP_SAMPLES},)"
            )
        lowest, highest = float(samples.min()), float(samples.max())
        # A sample that is not a number makes both of these.
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise ValueError("a clip holds samples that are not finite numbers")
        if self._is_garden:
            wav = encode_wav(samples)
            text = binascii.b2a_base64(wav.data, newline=False)
            return Line(b'{"input_bytes":"%b"}\n' % text, digest_of_steps(read_steps(wav.data)), wav.clipped_samples)
        if max(-lowest, highest) >= LIMIT:
            return Line(large_line(samples), digest_of_large(samples), 0)
        millionths = self._lists.rounded(samples)
        return Line(self._lists.line(millionths), digest_of_millionths(millionths), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A line of a job's results or errors."""

    digest: str | None
    """Of the instance that it repeats, as in `Line`; None for an error without one, as statistics of errors are."""
    result: npt.NDArray[np.float32] | Refused = field(repr=False)
    """The embedding, float32 (512,), finite; or why there is none."""


def read_answer(line: bytes) -> Answer:
    """Reads a line of `prediction.results-*`, `prediction.errors_stats-*`, or their older names (design.md 2.3).

    It is an object of `instance`, in one of the forms in which clips are written or as a string of such JSON; with
    `prediction`, a list of 512 numbers or an object with either `embedding` or `error`; or with `error`, an object of
    `code` and `message` or a string.

    Raises:
        BadAnswer: for anything else, and numbers beyond float32.
    """
    answer, digest = _parse(line)
    prediction, error, instance = answer.get("prediction"), answer.get("error"), answer.get("instance")
    if (prediction is None) == (error is None):
        raise BadAnswer("the line does not hold either a prediction or an error")
    result = _refused(error) if prediction is None else _result(prediction)
    if digest is None and not (instance is None and prediction is None):
        digest = _digest(instance)
    return Answer(digest, result)


_BEGIN = re.compile(rb'"instance"\s*:\s*(?:\{\s*"input_array"\s*:\s*)?("?)\[')
_MARK = "the samples were here"


def _parse(line: bytes) -> tuple[dict[str, Any], str | None]:
    """The line's object; and the instance's digest, if that is a list in a usual rendering."""
    begin = _BEGIN.search(line)
    if begin is not None:
        stop = line.find(b"]", begin.end())
        quote = begin[1]
        millionths = parse_millionths(line, begin.end(), stop) if line.startswith(b"]" + quote, stop) else None
        if millionths is not None:
            rest = line[: begin.start(1)] + orjson.dumps(_MARK) + line[stop + 1 + len(quote) :]
            # What was read is the instance if the mark is, and there is none other.
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
            f"its prediction is neither {EMBEDDING_WIDTH} numbers nor an object with either an embedding of so many or an error"
        )
    if isinstance(result, InstanceError):
        return Refused(*refused_by_job(grpc.StatusCode.INVALID_ARGUMENT), attempts=1)
    if not np.isfinite(result).all():
        raise BadAnswer("its prediction holds numbers that are not finite float32")
    return result


def _refused(error: Any) -> Refused:
    code = error.get("code") if isinstance(error, dict) else None
    return Refused(*refused_by_job(_STATUSES.get(code) if type(code) is int else None), attempts=1)


_STATUSES = {code.value[0]: code for code in grpc.StatusCode}


def _digest(instance: Any) -> str:
    if isinstance(instance, str):
        instance = _loads(instance, "its instance is a string that is not JSON")
    if isinstance(instance, dict) and len(instance) == 1:
        if "input_bytes" in instance:
            return _digest_of_wav(instance["input_bytes"])
        instance = instance.get("input_array")
    if not (
        isinstance(instance, list) and len(instance) == CLIP_SAMPLES and {int, float}.issuperset(map(type, instance))
    ):
        raise BadAnswer(f"its instance is neither {CLIP_SAMPLES} numbers nor an object with so many or a WAV file")
    return digest_of_numbers(np.array(instance, np.float64))


def _digest_of_wav(text: Any) -> str:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        return digest_of_steps(read_steps(data))
    except (TypeError, ValueError, struct.error):
        raise BadAnswer("its instance is not a WAV file of a clip in base64") from None
