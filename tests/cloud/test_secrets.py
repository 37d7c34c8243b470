"""The scan finds what is planted, however it is written, and nothing in innocent data."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from endpoint.wav import encode_wav
from tests.cloud.secrets import find_secrets
from tests.cloud.token_server import PREFIX

TOKEN = "ya29.a0ARrdaM-made_up.token~with/all+kinds=of characters-0123456789abcdef"
CLIP = (0.4 * np.random.default_rng(3).standard_normal(32000)).clip(-1, 1).astype(np.float32)
OTHER = (0.4 * np.random.default_rng(4).standard_normal(32000)).clip(-1, 1).astype(np.float32)


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", data)
    return buffer.getvalue()


def parquet(data: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"message": [data.decode()] * 3}), sink, compression="zstd")
    return sink.getvalue()


TOKEN_FORMS: dict[str, Callable[[str], bytes]] = {
    "text": lambda token: f"Authorization: Bearer {token}\n".encode(),
    "json": lambda token: json.dumps({"token": token}).encode(),
    "quoted": lambda token: f"access_token={quote(token, safe='')}&x=1".encode(),
    "base64 0": lambda token: base64.b64encode(f"{token}tail".encode()),
    "base64 1": lambda token: base64.b64encode(f"1{token}tail".encode()),
    "base64 2": lambda token: base64.b64encode(f"12{token}tail".encode()),
    "base64 for URLs": lambda token: base64.urlsafe_b64encode(f"12{token}tail".encode()),
    "hexadecimal": lambda token: token.encode().hex().encode(),
    "HEXADECIMAL": lambda token: token.encode().hex().upper().encode(),
    "UTF-16": lambda token: f"x{token}".encode("utf-16"),
    "gzip": lambda token: gzip.compress(token.encode()),
    "zlib": lambda token: zlib.compress(token.encode()),
    "zip": lambda token: zipped(token.encode()),
    "zip in gzip": lambda token: gzip.compress(zipped(token.encode())),
    "Parquet": lambda token: parquet(token.encode()),
    "the beginning only": lambda token: token[10:34].encode(),
    "the end only": lambda token: f"...{token[-24:]}".encode(),
}


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_a_planted_token_is_found(tmp_path: Path, form: str) -> None:
    (tmp_path / "deep").mkdir()
    planted = tmp_path / "deep" / "planted.log"
    planted.write_bytes(TOKEN_FORMS[form](TOKEN))
    found = find_secrets([tmp_path], tokens=[f"{TOKEN[::-1]}", TOKEN])
    assert found
    assert all("token 1" in line and "planted.log" in line for line in found)
    assert TOKEN not in "".join(found)


@pytest.mark.parametrize("form", [form for form in TOKEN_FORMS if "only" not in form])
def test_a_token_of_the_token_server_is_found_unnamed(tmp_path: Path, form: str) -> None:
    (tmp_path / "planted").write_bytes(TOKEN_FORMS[form](f"{PREFIX}Zm9vYmFyYmF6cXV4"))
    assert find_secrets([tmp_path])


def wav(clip: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, clip, 16000, "PCM_16", format="WAV")
    return buffer.getvalue()


AUDIO_FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    "float32": lambda clip: clip.tobytes(),
    "float64": lambda clip: clip.astype(np.float64).tobytes(),
    "WAV": wav,
    "WAV as it is sent": lambda clip: b"head" + encode_wav(clip).data,
    "WAV, base64": lambda clip: base64.b64encode(wav(clip)),
    "WAV, base64, shifted by 1": lambda clip: base64.b64encode(b"1" + wav(clip)),
    "WAV, base64, shifted by 2": lambda clip: base64.urlsafe_b64encode(b"12" + wav(clip)),
    "protobuf": lambda clip: b"".join(b"\x0a\x09\x11" + np.float64(value).tobytes() for value in clip),
    "JSON, all digits": lambda clip: json.dumps(clip.astype(float).tolist()).encode(),
    "JSON, 7 decimals, compact": lambda clip: json.dumps(
        [round(value, 7) for value in clip.astype(float).tolist()], separators=(",", ":")
    ).encode(),
    "one a line": lambda clip: "\n".join(f"{value:.6f}" for value in clip).encode(),
    "protobuf as text": lambda clip: "".join(f"values {{ number_value: {value} }}\n" for value in clip).encode(),
    "whole numbers": lambda clip: str(np.rint(clip * 32768).astype(int).tolist()).encode(),
    "repr of an array": lambda clip: repr(clip.tolist()).encode(),
    "repr of bytes": lambda clip: repr(clip.tobytes()).encode(),
    "gzip": lambda clip: gzip.compress(clip.tobytes()),
}


@pytest.mark.parametrize("form", AUDIO_FORMS)
def test_planted_samples_are_found(tmp_path: Path, form: str) -> None:
    (tmp_path / "planted").write_bytes(AUDIO_FORMS[form](CLIP))
    found = find_secrets([tmp_path], samples=[OTHER, CLIP])
    assert found
    assert all(": samples 1" in line for line in found)


def test_a_part_of_a_clip_is_enough(tmp_path: Path) -> None:
    (tmp_path / "planted").write_bytes(CLIP[:8000].tobytes())
    assert find_secrets([tmp_path], samples=[CLIP])


def test_nothing_is_found_in_innocent_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    embedding = rng.standard_normal((100, 512)).astype(np.float32)
    (tmp_path / "embeddings").write_bytes(embedding.tobytes())
    (tmp_path / "embeddings.json").write_text(json.dumps(embedding[:20].astype(float).tolist()))
    (tmp_path / "other.wav").write_bytes(wav(OTHER))
    (tmp_path / "noise").write_bytes(rng.bytes(2_000_000))
    (tmp_path / "log").write_text("DEBUG ya29 token Bearer local-practice gs://bucket/run-1/a.wav\n" * 1000)
    (tmp_path / "rows.parquet").write_bytes(parquet(b"nothing here"))
    (tmp_path / "numbers").write_text(str(rng.integers(-32768, 32768, 100_000).tolist()))
    token = f"{PREFIX}{'x1Y2z3' * 10}"
    assert find_secrets([tmp_path], tokens=[TOKEN, token], samples=[CLIP]) == []


def test_silence_cannot_be_looked_for() -> None:
    with pytest.raises(ValueError, match="too quiet"):
        find_secrets([], samples=[np.zeros(32000, np.float32)])


def test_a_file_that_is_not_there_is_no_good_news(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_secrets([tmp_path / "missing.log"])
