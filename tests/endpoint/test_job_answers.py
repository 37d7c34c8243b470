"""Answers of batch jobs: each form of instance with each form of prediction; errors in our words; and what is no answer."""

from __future__ import annotations

import base64
import io
import json
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.errors import BadAnswer
from endpoint.job_lines import LineWriter, read_answer
from endpoint.results import Refused
from tests.endpoint.job_clips import clip_of_kind

CLIP = clip_of_kind("normal", 1)
LIST = LineWriter("research").line(CLIP)
WAV = LineWriter("model_garden").line(CLIP)
NUMBERS = json.loads(LIST.data)
LARGE = LineWriter("research").line(clip_of_kind("over ten", 1))
EMBEDDING = np.random.default_rng(2).normal(0, 1, 512).astype(np.float32)
PREDICTIONS = {"list": EMBEDDING.tolist(), "object": {"embedding": EMBEDDING.tolist()}}
INSTANCES = {
    "list": (NUMBERS, LIST.digest),
    "large": (json.loads(LARGE.data), LARGE.digest),
    "array": ({"input_array": NUMBERS}, LIST.digest),
    "large array": ({"input_array": json.loads(LARGE.data)}, LARGE.digest),
    "WAV": (json.loads(WAV.data), WAV.digest),
    "list in a string": (LIST.data.decode(), LIST.digest),
    "list in a string, with spaces": (json.dumps(NUMBERS), LIST.digest),
    "array in a string": (json.dumps({"input_array": NUMBERS}), LIST.digest),
    "WAV in a string": (WAV.data.decode(), WAV.digest),
}
SECRET = "-0.123457"
"""A sample, as a service may repeat it in a text."""


def encode(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("instance", INSTANCES)
def test_an_answer_says_which_clip_and_its_embedding(instance: str, prediction: str) -> None:
    repeated, digest = INSTANCES[instance]
    for line in (
        encode(instance=repeated, prediction=PREDICTIONS[prediction]),
        encode(prediction=PREDICTIONS[prediction], instance=repeated),
        encode(key="a", instance=repeated, more={"instance": [1], "error": 1}, prediction=PREDICTIONS[prediction]),
        json.dumps({"instance": repeated, "prediction": PREDICTIONS[prediction]}, indent=2).encode(),
        json.dumps({"instance": repeated, "prediction": PREDICTIONS[prediction]}, separators=(",", ":")).encode(),
    ):
        answer = read_answer(line)
        assert answer.digest == digest
        assert isinstance(answer.result, np.ndarray)
        assert answer.result.dtype == np.float32
        assert (answer.result == EMBEDDING).all()


def test_only_the_instance_itself_counts() -> None:
    other = LineWriter("research").line(clip_of_kind("normal", 2))
    for before in (
        {"x": {"instance": NUMBERS}},
        {'x"instance': NUMBERS},
        {"x": '"instance": [1]'},
        {"instances": NUMBERS},
    ):
        line = encode(**before, instance=json.loads(other.data), prediction=PREDICTIONS["list"])
        assert read_answer(line).digest == other.digest
    # The last of several, as parsers have it.
    twice = encode(instance=NUMBERS)[:-2] + b"," + encode(instance=json.loads(other.data), prediction=[0] * 512)[1:]
    assert read_answer(twice).digest == other.digest


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from(
        [b'{"instance":', b'{"prediction":[], "instance": ', b'{"instance": {"input_array": ', b'{"instance":"']
    ),
    tail=st.sampled_from([b',"prediction":[]}', b'},"prediction":[]}', b'","prediction":[]}', b', "instance": 1}']),
    places=st.lists(st.integers(0, 60), max_size=2),
    byte=st.sampled_from(
        [bytes([byte]) for byte in b'"\\,:[]{} 1x\0'] + [b"", b'"instance":', b'"instance":[0.5],', b"\xff"]
    ),
    inserted=st.booleans(),
)
def test_lists_in_usual_renderings_are_found_as_others_are(
    head: bytes, tail: bytes, places: list[int], byte: bytes, inserted: bool
) -> None:
    def outcome(numbers: bytes) -> str | None:
        around = [head, b"[", b"]", tail.replace(b"[]", json.dumps([0.5] * 512).encode())]
        for place in places:
            side, at = 3 * (place % 2), place // 2
            around[side] = around[side][:at] + byte + around[side][at + (not inserted) :]
        try:
            return read_answer(around[0] + around[1] + numbers + around[2] + around[3]).digest
        except BadAnswer as bad:
            return bad.message

    numbers = LIST.data[1:-2]
    # With two spaces it is left to the parser of all JSON.
    assert outcome(numbers) == outcome(numbers.replace(b",", b",  "))


@pytest.mark.parametrize("mark", ["the samples were here", {"input_array": "the samples were here"}])
def test_the_samples_place_is_not_taken_by_a_text(mark: object) -> None:
    for line in (
        encode(x={"instance": NUMBERS}, instance=mark, prediction=[0.5] * 512),
        encode(instance=mark, prediction=[0.5] * 512),
    ):
        with pytest.raises(BadAnswer, match="instance"):
            read_answer(line)


def test_wav_files_may_lack_padding_and_have_other_chunks() -> None:
    text = json.loads(WAV.data)["input_bytes"]
    data = base64.b64decode(text)
    chunk = b"LIST" + (7).to_bytes(4, "little") + b"INFOISF\0"
    more = data[:4] + (len(data) + len(chunk) - 8).to_bytes(4, "little") + data[8:36] + chunk + data[36:]
    with wave.open(io.BytesIO(more)) as file:
        assert file.readframes(32000) == data[44:]
    padded = base64.b64encode(more).decode()
    assert padded.endswith("==")
    for encoded in (text, padded, padded.rstrip("="), padded.replace("/", "\\/")):
        line = b'{"instance":{"input_bytes":"%b"},"prediction":%b}' % (
            encoded.encode(),
            json.dumps([0.5] * 512).encode(),
        )
        assert read_answer(line).digest == WAV.digest


def wav(rate: int = 16000, channels: int = 1, width: int = 2, frames: int = 32000) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, width, rate, 0, "NONE", ""))
        writer.writeframes(bytes(channels * width * frames))
    return base64.b64encode(file.getvalue()).decode()


BAD_INSTANCES = {
    "nothing": None,
    "a number": 0.5,
    "an object": {},
    "other keys": {"input_array": NUMBERS, "x": 1},
    "an address": {"gcs_uri": "gs://b/o.wav"},
    "too few": NUMBERS[1:],
    "too many": [*NUMBERS, 0.5],
    "lists": [NUMBERS],
    "strings": ["0.5"] * 32000,
    "nulls": [None] * 32000,
    "booleans": [True] * 32000,
    "one boolean": [*NUMBERS[1:], False],
    "one list": [*NUMBERS[1:], [0.5]],
    "a string in an array": {"input_array": json.dumps(NUMBERS)},
    "a string in a string": json.dumps(json.dumps(NUMBERS)),
    "no JSON in a string": f"[{SECRET},",
    "bytes that are a number": {"input_bytes": 5},
    "bytes that are a list": {"input_bytes": [SECRET]},
    "no base64": {"input_bytes": "not!" * 10},
    "letters beyond ASCII": {"input_bytes": "é" * 8},
    "no WAV": {"input_bytes": base64.b64encode(b"RIFF" + bytes(64040)).decode()},
    "no bytes": {"input_bytes": ""},
    "another rate": {"input_bytes": wav(rate=8000)},
    "two channels": {"input_bytes": wav(channels=2)},
    "one byte": {"input_bytes": wav(width=1)},
    "a short WAV": {"input_bytes": wav(frames=31999)},
    "a long WAV": {"input_bytes": wav(frames=32001)},
    "a truncated WAV": {"input_bytes": wav()[:-8]},
}


@pytest.mark.parametrize("instance", BAD_INSTANCES.values(), ids=BAD_INSTANCES)
def test_an_instance_that_is_no_clip_is_named_as_that(instance: object) -> None:
    with pytest.raises(BadAnswer, match=r"^the line's instance is ") as caught:
        read_answer(encode(instance=instance, prediction=PREDICTIONS["list"]))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_wav_file_makes_another_error(data: st.DataObject) -> None:
    file = bytearray(base64.b64decode(json.loads(WAV.data)["input_bytes"]))
    for place in data.draw(st.lists(st.integers(0, 43), min_size=1, max_size=4)):
        file[place] = data.draw(st.integers(0, 255))
    stop = data.draw(st.sampled_from([len(file), len(file), 40, 47, 60]))
    line = encode(instance={"input_bytes": base64.b64encode(file[:stop]).decode()}, prediction=[0.5] * 512)
    try:
        digest = read_answer(line).digest
    except BadAnswer:
        return
    # Nothing but sizes, and bytes that no reader looks at, can have been changed.
    assert digest == WAV.digest
    assert file[8:12] == b"WAVE"


BAD_PREDICTIONS = {
    "a number": 0.5,
    "too few": [0.5] * 511,
    "too many": [0.5] * 513,
    "strings": ["0.5"] * 512,
    "booleans": [True] * 512,
    "a list in a list": [[0.5] * 512],
    "no keys": {},
    "both": {"embedding": [0.5] * 512, "error": {"description": "x"}},
    "a short embedding": {"embedding": [0.5] * 511},
    "a text": SECRET,
    "beyond float32": [1e39] * 512,
    "an embedding beyond float32": {"embedding": [-1e39] * 512},
}


@pytest.mark.parametrize("prediction", BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_a_prediction_that_is_none_is_named_as_that(prediction: object) -> None:
    with pytest.raises(BadAnswer, match=r"^the line's prediction ") as caught:
        read_answer(encode(instance=NUMBERS, prediction=prediction))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[1, 2]",
        b'"text"',
        b"('Post request fails. %b', 3)" % SECRET.encode(),
        encode(instance=NUMBERS),
        encode(instance=NUMBERS, prediction=None),
        encode(prediction=None, error=None),
        encode(instance=NUMBERS, prediction=[0.5] * 512, error={"code": 3}),
        encode(instance=NUMBERS, prediction=[0.5] * 512)[:-3],
        encode(instance=NUMBERS, prediction=[float("nan")] * 512),
        encode(instance=NUMBERS, prediction=[0.5] * 512) * 2,
        encode(instance=NUMBERS, prediction=[0.5] * 512).replace(b'"prediction"', b'"predi\xff"'),
    ],
)
def test_what_is_no_answer_is_named_without_its_text(line: bytes) -> None:
    with pytest.raises(BadAnswer, match=r"^the line ") as caught:
        read_answer(line)
    assert not any(text in str(caught.value) for text in (SECRET, "Post", str(NUMBERS[0])))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


REJECTED = ("rejected", False)
ERRORS = {
    # google.rpc.Code
    3: REJECTED,
    9: REJECTED,
    11: REJECTED,
    1: ("server_error", True),
    2: ("server_error", True),
    4: ("timeout", True),
    5: ("server_error", True),
    7: ("server_error", True),
    8: ("quota", True),
    10: ("server_error", True),
    13: ("server_error", True),
    14: ("unavailable", True),
    16: ("server_error", True),
    # HTTP
    400: REJECTED,
    413: REJECTED,
    429: ("quota", True),
    500: ("server_error", True),
    503: ("unavailable", True),
    504: ("timeout", True),
    # neither
    0: ("server_error", True),
    -1: ("server_error", True),
    17: ("server_error", True),
    200: ("server_error", True),
    10**18: ("server_error", True),
}


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_is_told_in_our_words(code: int) -> None:
    line = encode(instance=json.loads(WAV.data), error={"code": code, "message": f"bad value {SECRET}"})
    answer = read_answer(line)
    assert answer.digest == WAV.digest
    assert isinstance(answer.result, Refused)
    assert (answer.result.code, answer.result.retryable) == ERRORS[code]
    assert answer.result.attempts == 1
    assert answer.result.message.startswith("The batch job ")
    assert ("of no use" in answer.result.message) != answer.result.retryable
    assert SECRET not in repr(answer.result)


@pytest.mark.parametrize(
    "error", [SECRET, {"message": SECRET}, {"code": "3"}, {"code": True}, {"code": 3.0}, {}, [], 3]
)
def test_an_error_that_has_no_code_may_pass(error: object) -> None:
    answer = read_answer(encode(instance=json.loads(WAV.data), error=error))
    assert answer.digest == WAV.digest
    assert answer.result == Refused(
        "server_error", "The batch job answered this clip with an error; run again later.", True, attempts=1
    )


@pytest.mark.parametrize("instance", INSTANCES)
def test_an_error_says_which_clip(instance: str) -> None:
    repeated, digest = INSTANCES[instance]
    answer = read_answer(encode(instance=repeated, error={"code": 14, "message": SECRET}))
    assert answer.digest == digest
    assert isinstance(answer.result, Refused)


def test_an_error_may_be_of_no_clip() -> None:
    for line in (encode(error={"code": 8, "message": SECRET}, count=3), encode(instance=None, error={"code": 8})):
        answer = read_answer(line)
        assert answer.digest is None
        assert isinstance(answer.result, Refused)
        assert answer.result.code == "quota"
    with pytest.raises(BadAnswer, match="instance"):
        read_answer(encode(error={"code": 8}, instance=[0.5]))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"description": f"Input must have 32000 samples, has {SECRET}"}, REJECTED),
        ({"description": "Failed to retrieve data from request instance."}, ("server_error", True)),
        ({}, REJECTED),
        (SECRET, REJECTED),
    ],
)
def test_a_prediction_may_be_an_error(error: object, expected: tuple[str, bool]) -> None:
    answer = read_answer(encode(instance=json.loads(WAV.data), prediction={"error": error}))
    assert answer.digest == WAV.digest
    assert isinstance(answer.result, Refused)
    assert (answer.result.code, answer.result.retryable) == expected
    assert SECRET not in repr(answer.result)


def test_an_answer_shows_no_embedding() -> None:
    answer = read_answer(encode(instance=NUMBERS, prediction=[0.734375] * 512))
    assert repr(answer) == f"Answer(digest='{LIST.digest}')"
