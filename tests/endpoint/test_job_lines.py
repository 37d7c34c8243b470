"""Lines of batch jobs: each sample rounded as a decimal is, no character too many, and known again in any rendering."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import wave
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.job_lines import LineWriter, read_answer
from endpoint.wav import encode_wav
from tests.endpoint.job_clips import BELOW_TEN, EVERY_KIND, KINDS, clip_of_kind, decimals, shortest

SEEDS = st.integers(0, 2**32 - 1)
CLIP = clip_of_kind("normal", 1)


def read(instance: bytes) -> str | None:
    return read_answer(b'{"instance":%b,"prediction":%b}\n' % (instance, json.dumps([0.5] * 512).encode())).digest


def as_float32(numbers: list[float]) -> list[float]:
    # The type's own conversion, not by way of arithmetic.
    return np.array(numbers, np.float32).tolist()


RENDERINGS: dict[str, Callable[[list[float]], bytes]] = {
    "json": lambda numbers: json.dumps(numbers).encode(),
    "compact json": lambda numbers: json.dumps(numbers, separators=(",", ":")).encode(),
    "orjson": orjson.dumps,
    "orjson of float32": lambda numbers: orjson.dumps(np.array(numbers, np.float32), option=orjson.OPT_SERIALIZE_NUMPY),
    "float32 as float64": lambda numbers: json.dumps(as_float32(numbers)).encode(),
    "17 digits": lambda numbers: ("[" + ",".join(f"{number:.17g}" for number in numbers) + "]").encode(),
    "9 digits of float32": lambda numbers: ("[" + ",".join(f"{x:.9g}" for x in as_float32(numbers)) + "]").encode(),
    "trailing zeros": lambda numbers: ("[" + ", ".join(f"{number:.6f}" for number in numbers) + "]").encode(),
    "more zeros": lambda numbers: ("[" + ", ".join(f"{number:.9f}" for number in numbers) + "]").encode(),
    "exponents": lambda numbers: ("[" + ",".join(f"{number:.16e}" for number in numbers) + "]").encode(),
    "Java's exponents": lambda numbers: json.dumps(numbers).replace("e-0", "E-").encode(),
    "lines": lambda numbers: json.dumps(numbers, indent=1).encode(),
}


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(EVERY_KIND), seed=SEEDS)
def test_a_sample_is_its_decimals_and_none_that_is_not_needed(kind: str, seed: int) -> None:
    clip = clip_of_kind(kind, seed)
    line = LineWriter("research").line(clip)
    assert line.data.decode() == "[" + ",".join(map(shortest, decimals(clip))) + "]\n"
    assert line.clipped_samples == 0
    numbers = json.loads(line.data)
    assert numbers == [float(f"{sample:.6f}") for sample in clip.tolist()]
    if kind in KINDS:
        assert np.abs(np.array(numbers) - clip.astype(np.float64)).max() <= 5.0000001e-7


def test_every_digit_in_every_place() -> None:
    # All upper digits with some lower ones, and all lower digits with some upper ones; float32 has not all of them.
    rng = np.random.default_rng(1)
    millionths = np.concatenate(
        [
            np.arange(10_000) * 1000 + rng.integers(0, 1000, 10_000),
            np.arange(10_000) * 1000,
            np.arange(12_000) % 1000 + 1000 * rng.integers(0, 1000, 12_000),
        ]
    )
    clip = (millionths / 1e6).astype(np.float32)
    for signed in (clip, -clip, clip * rng.choice([-1, 1], 32000).astype(np.float32)):
        text = LineWriter("research").line(signed).data.decode()
        assert text == "[" + ",".join(map(shortest, decimals(signed))) + "]\n"


def test_silence_is_small_and_nothing_is_larger_than_full_width() -> None:
    writer = LineWriter("research")
    assert len(writer.line(np.zeros(32000, np.float32)).data) == 2 * 32000 + 2
    assert len(writer.line(np.full(32000, -BELOW_TEN, np.float32)).data) == len("-9.999999,") * 32000 + 2
    assert len(writer.line(np.full(32000, -0.0, np.float32)).data) == 2 * 32000 + 2


def test_a_line_is_the_same_whatever_was_written_before_and_stays_so() -> None:
    clips = [clip_of_kind(kind, seed) for seed, kind in enumerate(EVERY_KIND)]
    fresh = [LineWriter("research").line(clip) for clip in clips]
    writer = LineWriter("research")
    lines = [writer.line(clip) for clip in clips + clips[::-1]]
    assert lines == fresh + fresh[::-1]


def test_clips_may_be_strided_views() -> None:
    for scale in (0.1, 100.0):
        stereo = (np.random.default_rng(3).normal(size=(32000, 2)) * scale).astype(np.float32)
        for instance_format in ("research", "model_garden"):
            writer = LineWriter(instance_format)
            assert writer.line(stereo[:, 1]) == writer.line(stereo[:, 1].copy())


@pytest.mark.parametrize("instance_format", ["research", "model_garden"])
@pytest.mark.parametrize("sample", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_without_naming_it(instance_format: str, sample: float) -> None:
    clip = CLIP.copy()
    clip[31999] = sample
    with pytest.raises(ValueError, match=r"^a clip holds samples that are not finite numbers$"):
        LineWriter(instance_format).line(clip)  # type: ignore[arg-type]


@pytest.mark.parametrize("instance_format", ["research", "model_garden"])
@pytest.mark.parametrize(
    "wrong", [CLIP[:-1], CLIP.astype(np.float64), CLIP.reshape(1, -1)], ids=["short", "type", "2D"]
)
def test_what_is_no_clip_is_refused(instance_format: str, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected float32 of shape \(32000,\)"):
        LineWriter(instance_format).line(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("instance_format", ["research", "model_garden"])
def test_a_line_shows_no_samples(instance_format: str) -> None:
    line = LineWriter(instance_format).line(CLIP)  # type: ignore[arg-type]
    assert repr(line) == f"Line(digest='{line.digest}', clipped_samples=0)"


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(EVERY_KIND), seed=SEEDS, rendering=st.sampled_from(sorted(RENDERINGS)))
def test_a_clip_is_known_again_in_any_rendering(kind: str, seed: int, rendering: str) -> None:
    line = LineWriter("research").line(clip_of_kind(kind, seed))
    written = json.loads(line.data, parse_int=float)
    assert read(line.data.strip()) == line.digest
    assert read(RENDERINGS[rendering](written)) == line.digest


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("kind", ["normal", "padded", "over ten"])
def test_a_clip_is_known_again_in_each_rendering(kind: str, rendering: str) -> None:
    line = LineWriter("research").line(clip_of_kind(kind, 5))
    assert read(RENDERINGS[rendering](json.loads(line.data, parse_int=float))) == line.digest


def test_float32_keeps_all_six_decimals_below_16() -> None:
    # Each of them, so that it is no matter of luck that clips are known again after the service had them as float32.
    for start in range(0, 16_000_000, 2_000_000):
        millionths = np.arange(start, start + 2_000_000)
        assert (np.rint((millionths / 1e6).astype(np.float32).astype(np.float64) * 1e6) == millionths).all()


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(EVERY_KIND), seed=SEEDS, place=st.integers(0, 31999))
def test_the_last_decimal_of_one_sample_makes_another_digest(kind: str, seed: int, place: int) -> None:
    writer = LineWriter("research")
    clip = clip_of_kind(kind, seed)
    other = clip.copy()
    # Written in another way: two millionths more, or the next float32 if that is farther.
    more = max(np.nextafter(clip[place], np.float32(np.inf)), clip[place] + np.float32(2e-6))
    other[place] = more if np.isfinite(more) else 0
    first, second = writer.line(clip), writer.line(other)
    assert first.data != second.data
    assert first.digest != second.digest


def test_swapped_samples_make_another_digest() -> None:
    other = CLIP.copy()
    other[[7, 8]] = CLIP[[8, 7]]
    for instance_format in ("research", "model_garden"):
        writer = LineWriter(instance_format)
        assert writer.line(other).digest != writer.line(CLIP).digest


def test_digests_of_silence_differ_between_formats_and_do_not_know_of_signs() -> None:
    silence = np.zeros(32000, np.float32)
    research, garden = LineWriter("research"), LineWriter("model_garden")
    digest = research.line(silence).digest
    assert digest == research.line(-silence).digest == read(json.dumps([-0.0] * 32000).encode())
    assert digest == research.line(np.full(32000, -4e-7, np.float32)).digest == read(json.dumps([0] * 32000).encode())
    assert garden.line(silence).digest not in (digest, research.line(silence + 10).digest)


@pytest.mark.parametrize("kind", KINDS)
def test_digests_are_hashes_of_the_integers(kind: str) -> None:
    clip = clip_of_kind(kind, 3)
    integers = np.array([int(number.scaleb(6)) for number in decimals(clip)], "<i4")
    assert (
        LineWriter("research").line(clip).digest
        == hashlib.blake2b(b"i" + integers.tobytes(), digest_size=16).hexdigest()
    )


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 0.3, 3.0]))
def test_model_garden_takes_wav_files(seed: int, scale: float) -> None:
    clip = (np.random.default_rng(seed).uniform(-1, 1, 32000) * scale).astype(np.float32)
    line = LineWriter("model_garden").line(clip)
    instance = json.loads(line.data)
    assert line.data == b'{"input_bytes":"%b"}\n' % instance["input_bytes"].encode()
    with wave.open(io.BytesIO(base64.b64decode(instance["input_bytes"]))) as file:
        frames = file.readframes(32001)
    expected = np.clip(np.rint(clip.astype(np.float64) * 32768), -32768, 32767)
    assert frames == expected.astype("<i2").tobytes()
    assert line.clipped_samples == encode_wav(clip).clipped_samples
    assert line.digest == hashlib.blake2b(b"w" + frames, digest_size=16).hexdigest()
    assert read(json.dumps(instance).encode()) == line.digest


def test_each_thread_reads_what_is_its_own() -> None:
    lines = [LineWriter("research").line(clip_of_kind("normal", seed)) for seed in range(4)]
    wrong: list[int] = []

    def read_often(position: int) -> None:
        for _ in range(30):
            if read(lines[position].data.strip()) != lines[position].digest:
                wrong.append(position)

    threads = [threading.Thread(target=read_often, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
