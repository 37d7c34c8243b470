"""The files in which a job leaves its rows, shuffled: by a seed, in an order that has nothing to do with the input's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from emulator.job_storage import JobStorage, Upload

SHARD_BYTES = 64 * 2**20
"""Of input, for each file of results unless their number is given."""

BUFFER_BYTES = 16 * 2**20
"""Rows that wait to be written, among which the next is drawn."""

OPEN_SHARDS = 4
"""Files of a kind written at a time: a storage server may hold what it is sent until it has all."""

_LEAST_SHARDS = 3


def default_shards(input_bytes: int) -> int:
    """How many files the results of an input are spread over."""
    return max(_LEAST_SHARDS, math.ceil(input_bytes / SHARD_BYTES))


def result_name(is_error: bool, shard: int, shards: int, *, old: bool) -> str:
    """The name of a file of predictions or of errors, the `shard` counted from 0."""
    if old:
        return f"{'errors' if is_error else 'predictions'}_{shard + 1:04d}.jsonl"
    return f"prediction.{'errors_stats' if is_error else 'results'}-{shard:05d}-of-{shards:05d}"


class ShuffledShards:
    """Takes lines of predictions and of errors, and writes each into one of `shards` files of its kind.

    Files are written some at a time, as the job gets on, so that neither this process nor the storage server holds more
    than a few.
    """

    def __init__(
        self, storage: JobStorage, bucket: str, shards: int, name: Callable[[bool, int], str], chance: random.Random
    ) -> None:
        """`name` gives the object for a kind (whether it is of errors) and a shard."""
        self._storage = storage
        self._bucket = bucket
        self._shards = shards
        self._name = name
        self._chance = chance
        self._buffer: list[tuple[bool, bytes]] = []
        self._buffered_bytes = 0
        self._open: dict[tuple[bool, int], Upload] = {}
        self._written: set[tuple[bool, int]] = set()
        self._group = range(min(OPEN_SHARDS, shards))

    async def move_on(self, progress: float) -> None:
        """Goes to the files that are written when this share, 0 to 1, of the input is done; closes those before them."""
        groups = math.ceil(self._shards / OPEN_SHARDS)
        first = min(int(progress * groups), groups - 1) * OPEN_SHARDS
        if first > self._group.start:
            await self._close()
            self._group = range(first, min(first + OPEN_SHARDS, self._shards))

    async def add(self, is_error: bool, line: bytes) -> None:
        """Takes a line, which may be written now or later; raises JobFailedError."""
        self._buffer.append((is_error, line))
        self._buffered_bytes += len(line)
        while self._buffered_bytes > BUFFER_BYTES:
            await self._write_one()

    async def finish(self, *, complete: bool) -> None:
        """Writes what waits, and makes objects of all files; those without a line only if the job is `complete`."""
        if not self._written:
            self._group = range(self._shards)  # a small job, whose rows have all waited
        while self._buffer:
            await self._write_one()
        if complete:
            for is_error in (False, True):
                for shard in range(self._shards):
                    if (is_error, shard) not in self._written:
                        await self._close()
                        await self._upload(is_error, shard)
        await self._close()

    async def _write_one(self) -> None:
        place = self._chance.randrange(len(self._buffer))
        self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
        is_error, line = self._buffer.pop()
        self._buffered_bytes -= len(line)
        upload = await self._upload(is_error, self._chance.choice(self._group))
        await upload.write(line)

    async def _upload(self, is_error: bool, shard: int) -> Upload:
        key = is_error, shard
        if key not in self._open:
            self._open[key] = await self._storage.begin(self._bucket, self._name(is_error, shard))
            self._written.add(key)
        return self._open[key]

    async def _close(self) -> None:
        for upload in self._open.values():
            await upload.finish()
        self._open.clear()
