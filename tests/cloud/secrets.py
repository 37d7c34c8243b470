"""Looks for tokens and audio in whatever a run leaves behind: logs, failure rows, summaries, checkpoints, pipelines."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tests.cloud.token_server import PREFIX

Audio = npt.NDArray[np.floating]

_PART = 20
"""Characters of a token's beginning or end that give it away."""
_STRETCHES = 4
_STRETCH = 16
"""Samples in a row that are looked for as bytes."""
_WRITTEN_OUT = 3
"""Samples in a row that are looked for as decimal numbers."""
_DEPTH = 3
_BETWEEN = rb"[^0-9]{1,40}?"


def find_secrets(paths: Iterable[Path], *, tokens: Sequence[str] = (), samples: Sequence[Audio] = ()) -> list[str]:
    """What was found where, one line each without the secret itself; empty if there is nothing.

    Args:
        paths: files and folders; what is in .gz, zlib, zip and Parquet is looked at unpacked as well.
        tokens: looked for whole and in parts, as text, base64, hexadecimal, quoted, UTF-16. Whatever begins as the token
            server's tokens do is found without being named.
        samples: recordings or clips, float, full scale 1.0; looked for by some stretches of each, as the bytes of float32,
            float64 and int16, as base64 and as the repr of them, in protobuf lists, and as decimal numbers.
    """
    needles = dict.fromkeys([*_token_needles(tokens), *_audio_needles(samples)])
    written_out = list(_written_out(samples))
    found: list[str] = []
    for path in sorted(_files(paths)):
        for name, data in _contents(str(path), path.read_bytes()):
            hits = [label for label, needle in needles if needle in data]
            hits += [numbers.label for numbers in written_out if numbers.are_in(data)]
            found += [f"{name}: {label}" for label in dict.fromkeys(hits)]
    return found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (inner for inner in path.rglob("*") if inner.is_file())
        else:
            # One that is missing is a mistake of the caller's: nothing can be found there.
            yield path


def _contents(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if depth < _DEPTH:
        for inner, unpacked in _unpacked(data):
            yield from _contents(f"{name}!{inner}", unpacked, depth + 1)


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:2] == b"\x1f\x8b":
        yield "gz", gzip.decompress(data)
    elif data[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        try:
            yield "zlib", zlib.decompress(data)
        except zlib.error:
            return
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield member, archive.read(member)
    elif data[:4] == b"PAR1" == data[-4:]:
        table = pq.read_table(pa.BufferReader(data))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        yield "rows", sink.getvalue().to_pybytes()


def _token_needles(tokens: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    yield from _forms("something that begins as a token does", PREFIX)
    for index, token in enumerate(tokens):
        yield from _forms(f"token {index}", token)
        # Both are random in the tokens of the tests; a short or made-up one has no such parts.
        if len(token) >= len(PREFIX) + 2 * _PART:
            yield from _forms(f"the beginning of token {index}", token[len(PREFIX) :][:_PART])
            yield from _forms(f"the end of token {index}", token[-_PART:])


def _forms(label: str, text: str) -> Iterator[tuple[str, bytes]]:
    data = text.encode()
    yield label, data
    if quote(text, safe="") != text:
        yield f"{label} (quoted)", quote(text, safe="").encode()
    yield f"{label} (hexadecimal)", data.hex().encode()
    yield f"{label} (hexadecimal)", data.hex().upper().encode()
    yield f"{label} (UTF-16)", text.encode("utf-16-le")
    for needle in _base64(data):
        yield f"{label} (base64)", needle


def _base64(data: bytes) -> Iterator[bytes]:
    """What the data make of a base64 text, wherever in it they stand: without what their neighbours have a part in."""
    for offset in range(3):
        first = -(-offset * 8 // 6)
        whole = base64.b64encode(b"\0" * offset + data)
        last = (offset + len(data)) * 8 // 6
        inner = whole[first + (1 if offset else 0) : last]
        yield inner
        if b"+" in inner or b"/" in inner:
            yield inner.replace(b"+", b"-").replace(b"/", b"_")


def _stretches(samples: Sequence[Audio], length: int) -> Iterator[tuple[str, Audio]]:
    """Stretches that occur nowhere by chance: of distinct values that are not small."""
    for index, audio in enumerate(samples):
        values = np.asarray(audio, np.float64).reshape(-1)
        starts = np.linspace(0, max(0, len(values) - length), 64 * _STRETCHES).astype(int)
        good = [
            start
            for start in dict.fromkeys(starts.tolist())
            if len(stretch := values[start : start + length]) == length
            and len(np.unique(np.rint(stretch * 32768))) == length
            and np.abs(stretch).min() > 0.002
        ]
        if not good:
            raise ValueError(f"samples {index} are too quiet or too regular to be looked for")
        for start in good[:: max(1, len(good) // _STRETCHES)]:
            yield f"samples {index}", np.asarray(audio).reshape(-1)[start : start + length]


def _audio_needles(samples: Sequence[Audio]) -> Iterator[tuple[str, bytes]]:
    for label, stretch in _stretches(samples, _STRETCH):
        doubles = stretch.astype("<f8")
        in_protobuf = b"".join(b"\x0a\x09\x11" + double.tobytes() for double in doubles)
        yield f"{label} (protobuf list)", in_protobuf
        raw = {
            "float32": stretch.astype("<f4").tobytes(),
            "float64": doubles.tobytes(),
            **{f"int16 {index}": whole.tobytes() for index, whole in enumerate(_as_int16(doubles))},
        }
        for kind, data in raw.items():
            yield f"{label} ({kind.split()[0]})", data
            yield f"{label} (repr of {kind.split()[0]})", repr(data)[2:-1].encode()
            for needle in _base64(data):
                yield f"{label} (base64 of {kind.split()[0]})", needle


def _as_int16(values: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.int16]]:
    # libsndfile rounds down, the endpoint's own WAV files to the nearest; some libraries scale by 32767.
    for whole in (np.rint(values * 32768), np.floor(values * 32768), np.trunc(values * 32768), np.rint(values * 32767)):
        yield np.clip(whole, -32768, 32767).astype("<i2")


class _Numbers(NamedTuple):
    """Samples in a row, written out as numbers."""

    label: str
    literals: list[set[bytes]]
    """Of each number one is there: sought first, as it is much faster."""
    pattern: re.Pattern[bytes]

    def are_in(self, data: bytes) -> bool:
        return all(any(literal in data for literal in texts) for texts in self.literals) and bool(
            self.pattern.search(data)
        )


def _written_out(samples: Sequence[Audio]) -> Iterator[_Numbers]:
    for label, stretch in _stretches(samples, _WRITTEN_OUT):
        values = stretch.astype(np.float64)
        # Four decimals, whatever comes after them; the zero before the point may be left out.
        decimals = [{f"{abs(value):.{digits}f}"[1:6].encode() for digits in (4, 6, 7, 9)} for value in values]
        numbers = [b"-?[01]?(?:" + b"|".join(map(re.escape, texts)) + rb")\d*(?:e-?\d+)?" for texts in decimals]
        yield _Numbers(f"{label} (decimal)", decimals, re.compile(_BETWEEN.join(numbers)))
        for whole in _as_int16(values):
            texts = [str(number).encode() for number in whole.tolist()]
            pattern = rb"(?<!\d)" + _BETWEEN.join(text + rb"(?!\d)" for text in texts)
            yield _Numbers(f"{label} (decimal of int16)", [{text} for text in texts], re.compile(pattern))
