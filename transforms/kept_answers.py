"""Embeddings that wait for their clips: in files on Cloud Storage, since only references to them are shuffled.

A file is float32 values, little-endian, (rows, 512). Its name is random: what another attempt has left there is never read.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rows import objects
from rows.model import EMBEDDING_FLOATS
from transforms.files import FileError, explained, read_whole

ROWS: Final = 1024
"""A file holds at most so many embeddings: 2 MB."""
_ROW_BYTES: Final = 4 * EMBEDDING_FLOATS


class Answered(NamedTuple):
    """Where the embedding of some samples is kept. Of several for the same samples the smallest counts."""

    checksum: int
    """CRC-32 of its bytes: which embedding counts depends on nothing else, such as where it is."""
    file: str
    row: int


class Refusal(NamedTuple):
    """Why there is no embedding of some samples. Of several for the same samples the smallest counts: one that may pass."""

    is_final: bool
    code: str
    message: str
    attempts: int


def best(answers: Iterable[Answered | Refusal]) -> Answered | Refusal | None:
    """What counts of the answers for the same samples: any embedding more than any refusal, whatever their order; None of none."""
    answered, refused = None, None
    for answer in answers:
        if isinstance(answer, Answered):
            answered = answer if answered is None else min(answered, answer)
        else:
            refused = answer if refused is None else min(refused, answer)
    return refused if answered is None else answered


class AnswerKeeper:
    """Puts embeddings into files.

    Args:
      folder: for the files, `gs://bucket/.../`.
      rows: a file is written when it has so many.
    """

    def __init__(self, folder: str, rows: int = ROWS) -> None:
        self._folder = folder
        self._rows = rows
        self._held: dict[str, tuple[int, bytes]] = {}

    def add(self, digest: str, embedding: npt.NDArray[np.float32]) -> list[tuple[str, Answered]]:
        """Takes an embedding of the samples with this digest. Returns what is stored by now and was not yet returned.

        Of several for the same samples in a row one is kept: thousands of silent clips are one.
        """
        values = embedding.astype("<f4", copy=False).tobytes()
        kept = zlib.crc32(values), values
        self._held[digest] = min(kept, self._held.get(digest, kept))
        return self.flush() if len(self._held) >= self._rows else []

    def flush(self) -> list[tuple[str, Answered]]:
        """Stores what is held; returns where. Raises FileError."""
        held, self._held = self._held, {}
        if not held:
            return []
        name = secrets.token_hex(16)
        path = self._folder + name
        with explained(path):
            objects.write_new(objects.blob_at(path), b"".join(values for _, values in held.values()))
        return [(digest, Answered(checksum, name, row)) for row, (digest, (checksum, _)) in enumerate(held.items())]


def read_answers(path: str) -> npt.NDArray[np.float32]:
    """The embeddings of a file, (rows, 512). Raises FileError."""
    data = read_whole(path)
    if len(data) % _ROW_BYTES:
        raise FileError(f"{path!r} is not as it was written: run again")
    return np.frombuffer(data, "<f4").reshape(-1, EMBEDDING_FLOATS)
