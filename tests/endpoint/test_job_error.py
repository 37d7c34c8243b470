"""The text of a job's error: what users need stays, audio and secrets do not, whatever a service echoes."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.job_error import MAX_CHARACTERS, readable


@pytest.mark.parametrize(
    "text",
    [
        "The following quotas are exceeded: CustomModelServingV100GPUsPerProjectPerRegion",
        "Permission 'aiplatform.batchPredictionJobs.create' denied on resource '//aiplatform.googleapis.com/projects/4016704501/"
        "locations/us-west1/models/220' (or it may not exist).",
        "service-4016704501@gcp-sa-aiplatform.iam.gserviceaccount.com does not have storage.objects.get access",
        "Quota exceeded for quota metric aiplatform.googleapis.com/custom_model_serving_nvidia_v100_gpus, limit 0 of 8 GPUs in "
        "region:us-west1. See https://cloud.google.com/vertex-ai/docs/quotas",
        'Machine type "n1-standard-8" is not supported with accelerator NVIDIA_TESLA_V100; at 2026-10-01 12:00:00 UTC',
        "projects/123/locations/us-west1/batchPredictionJobs/1234567890123456789 failed: Exceeded retries: Non-OK result 503",
        "",
    ],
)
def test_what_users_need_is_left_as_it_is(text: str) -> None:
    assert readable(text) == text


def test_lines_are_one_and_not_endless() -> None:
    assert readable("no\x1b[31m such\r\n\tfile\u2028here\x00") == "no [31m such file here"
    assert len(readable("word " * 1000)) == MAX_CHARACTERS
    assert readable("word " * 1000).endswith("word…")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad instance [0.5, -0.25, 0, 0, 1, 1e-05, 0.123456] in row 3", "bad instance […] in row 3"),
        ("bad instance [0,0,0,0,0", "bad instance […"),
        ("Authorization: Bearer abc was refused", "… was refused"),
        ('{"bearer_token":"abc"} is wrong', '{"… is wrong'),
        ("access_token=short; expired", "… expired"),
        ("no access to gs://my-bucket/hear-staged-20260101T000000-3fa9/results", "no access to gs://my-bucket/…"),
    ],
)
def test_what_is_left_out_is_marked(text: str, shown: str) -> None:
    assert readable(text) == shown


FLOATS = st.floats(-1, 1, width=32)
WORDS = st.lists(
    st.sampled_from(["the row of", "gs://bucket/file", "is bad:", "{", '"', "(", "because"]), max_size=5
).map(" ".join)


@given(
    WORDS,
    st.lists(FLOATS, min_size=2, max_size=300),
    st.sampled_from([json.dumps, repr, str, lambda clip: ",".join(f"{sample:.6f}" for sample in clip)]),
    st.sampled_from(["[", "instance: ", "", "\n"]),
    st.integers(0, 40),
    st.integers(0, 10_000),
    WORDS,
)
def test_no_number_of_an_echoed_instance_survives(before, clip, write, opening, skipped, kept, after) -> None:  # type: ignore[no-untyped-def]
    echo = write(clip)
    echo = echo[min(skipped, len(echo) // 2) :][: max(kept, 2)]
    shown = readable(f"{before} {opening}{echo} {after}")
    if len(re.findall(r"[\d.]+", echo)) >= 2:  # a lone number may as well be that of a row
        assert not re.search(r"\d{2}|\d\.\d", shown)


TOKEN_CHARACTERS = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
TOKENS = st.text(TOKEN_CHARACTERS, min_size=40, max_size=2000)


@given(
    WORDS,
    st.one_of(
        st.tuples(st.sampled_from(["ya29.", "1//0", "eyJhbGciOi", "AIza", "GOCSPX-"]), TOKENS).map("".join),
        st.tuples(
            st.sampled_from(["Bearer ", "bearer  ", "token=", "'access_token': '", "X-Goog-Signature="]), TOKENS
        ).map("".join),
        st.binary(min_size=60, max_size=3000).map(
            lambda audio: base64.b64encode(b"RIFF$\x7d\x00\x00WAVEfmt " + audio).decode()
        ),
    ),
    st.sampled_from([" ", '"', "'", ": ", "(", "\n"]),
    WORDS,
)
def test_no_token_and_no_encoded_audio_survives(before: str, secret: str, quote: str, after: str) -> None:
    shown = readable(f"{before}{quote}{secret}{quote} {after}")
    value = re.split(r"[ ='\"]", secret)[-1]
    pieces = {value[i : i + 12] for i in range(len(value) - 11)}
    assert not any(piece in shown for piece in pieces)


@given(st.text(max_size=400))
def test_any_text_becomes_one_line(text: str) -> None:
    shown = readable(text)
    assert len(shown) <= MAX_CHARACTERS
    assert shown.isprintable()
    assert readable(shown) == shown or "…" in shown
