"""Jobs hold a range of their input and some pieces of their output, however long both are."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from emulator.job_shards import BUFFER_BYTES, OPEN_SHARDS, SHARD_BYTES, ShuffledShards, default_shards, result_name
from emulator.job_storage import MAX_LINE_BYTES, PIECE_BYTES, RANGE_BYTES, JobFailedError, JobStorage, StoredObject
from tests.audio.gcs import StorageServer, storage_server
from tests.emulator.calls import http_server
from tests.emulator.job_calls import BUCKET


class WatchedStorage(JobStorage):
    """Takes note of how much it was asked to read and to write at a time."""

    def __init__(self, session: aiohttp.ClientSession, host: str) -> None:
        super().__init__(session, host)
        self.read: list[int] = []
        self.written: list[int] = []

    async def _range(self, stored: StoredObject, start: int) -> bytes:
        data = await super()._range(stored, start)
        self.read.append(len(data))
        return data

    async def put(self, path: str, data: bytes | bytearray, content_range: str) -> int:
        self.written.append(len(data))
        return await super().put(path, data, content_range)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    with storage_server(tmp_path_factory.mktemp("objects")) as running:
        running.make_bucket(BUCKET)
        yield running


@asynccontextmanager
async def watched(server: StorageServer) -> AsyncIterator[WatchedStorage]:
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield WatchedStorage(session, server.address)


async def all_lines(server: StorageServer, name: str) -> tuple[list[bytes], list[int]]:
    async with watched(server) as storage:
        (stored,) = await storage.find(f"gs://{BUCKET}/{name}")
        return [line async for line in storage.lines(stored)], storage.read


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_are_read_in_ranges(server: StorageServer, end: bytes) -> None:
    chance = random.Random(1)
    expected = [b"%d:" % k + b"x" * chance.randrange(1, 700_000) for k in range(40)]
    name = "long/ü #?&%2F.jsonl"
    server.upload(BUCKET, name, b"\n".join(expected) + end)
    found, read = asyncio.run(all_lines(server, name.replace("?", "*")))
    assert found == expected
    assert max(read) == RANGE_BYTES
    assert len(read) == -(-(sum(map(len, expected)) + 39 + len(end)) // RANGE_BYTES)


def test_lines_that_fill_ranges_exactly_and_blank_ones(server: StorageServer) -> None:
    line = b"x" * (RANGE_BYTES // 2 - 1)
    server.upload(BUCKET, "exact", b"\n".join([line, line, b"", b" \r", line, line, b""]))
    found, _ = asyncio.run(all_lines(server, "exact"))
    assert found == [line] * 4
    server.upload(BUCKET, "empty", b"")
    assert asyncio.run(all_lines(server, "empty")) == ([], [])


def test_a_line_without_end_is_not_gathered(server: StorageServer) -> None:
    server.upload(BUCKET, "endless", b"x" * (MAX_LINE_BYTES + 2 * RANGE_BYTES))
    with pytest.raises(JobFailedError, match="has a line of more than"):
        asyncio.run(all_lines(server, "endless"))


def test_an_object_that_goes_away(server: StorageServer) -> None:
    async def read_on() -> None:
        async with watched(server) as storage:
            async for _ in storage.lines(StoredObject(BUCKET, "gone", 100)):
                pass

    with pytest.raises(JobFailedError, match=f"gs://{BUCKET}/gone was not read: HTTP 404"):
        asyncio.run(read_on())


def test_lists_have_pages() -> None:
    asked: list[str] = []

    def answer(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        asked.append(path)
        page = {
            "items": [{"name": f"many/{3 - len(asked)}", "size": "7"}, {"name": f"many/{len(asked)}/x", "size": "7"}]
        }
        return 200, json.dumps({**page, "nextPageToken": "a b"} if len(asked) == 1 else page).encode()

    async def found(address: str) -> list[StoredObject]:
        async with aiohttp.ClientSession(trust_env=False) as session:
            return await JobStorage(session, address).find("gs://bucket/many/*")

    with http_server(answer) as address:
        assert asyncio.run(found(address)) == [StoredObject("bucket", f"many/{k}", 7) for k in (1, 2)]
    assert asked == [f"/storage/v1/b/bucket/o?prefix=many%2F{more}" for more in ("", "&pageToken=a+b")]


@pytest.mark.parametrize("sizes", [[], [1], [PIECE_BYTES], [PIECE_BYTES, 1], [700_000] * 9])
def test_objects_are_written_in_pieces(server: StorageServer, sizes: list[int]) -> None:
    parts = [bytes([k + 1]) * size for k, size in enumerate(sizes)]

    async def write() -> list[int]:
        async with watched(server) as storage:
            upload = await storage.begin(BUCKET, "pieces/ü #")
            for part in parts:
                await upload.write(part)
            await upload.finish()
            return storage.written

    written = asyncio.run(write())
    assert server.content(BUCKET, "pieces/ü #")[0] == b"".join(parts)
    assert set(written[:-1]) <= {PIECE_BYTES}
    assert written[-1] <= PIECE_BYTES


class Sink:
    """A storage of one bucket that only counts: how many objects are open at a time, and what each got."""

    def __init__(self) -> None:
        self.objects: dict[str, list[bytes]] = {}
        self.open: set[str] = set()
        self.most_open = 0

    async def begin(self, bucket: str, name: str) -> Any:
        assert name not in self.objects
        self.objects[name] = []
        self.open.add(name)
        self.most_open = max(self.most_open, len(self.open))
        return _Opened(self, name)

    @property
    def lines(self) -> int:
        return sum(map(len, self.objects.values()))


class _Opened:
    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._name = name

    async def write(self, data: bytes) -> None:
        self._sink.objects[self._name].append(data)

    async def finish(self) -> None:
        self._sink.open.remove(self._name)


def test_shuffling_holds_a_bounded_number_of_bytes_and_files() -> None:
    sink, line, count, shards = Sink(), 400_000, 400, 10

    async def write() -> None:
        written = ShuffledShards(
            sink,  # type: ignore[arg-type]
            BUCKET,
            shards,
            lambda is_error, shard: result_name(is_error, shard, shards, old=False),
            random.Random(3),
        )
        for k in range(count):
            await written.add(k % 5 == 0, b"%d" % k + b" " * line)
            assert (k + 1 - sink.lines) * line <= BUFFER_BYTES
            await written.move_on((k + 1) / count)
        await written.finish(complete=True)

    asyncio.run(write())
    assert sink.most_open <= 2 * OPEN_SHARDS
    assert not sink.open
    assert sorted(sink.objects) == sorted(
        f"prediction.{kind}-{k:05d}-of-00010" for kind in ("results", "errors_stats") for k in range(shards)
    )
    order = {name: [int(data) for data in lines] for name, lines in sink.objects.items()}
    assert sorted(k for numbers in order.values() for k in numbers) == list(range(count))
    assert all(bool(k % 5) == ("results" in name) for name, numbers in order.items() for k in numbers)
    assert all(numbers for name, numbers in order.items() if "results" in name)
    assert all(numbers != sorted(numbers) for numbers in order.values() if len(numbers) > 3)


def test_long_inputs_have_more_shards() -> None:
    assert [default_shards(size) for size in (0, 1, 3 * SHARD_BYTES, 3 * SHARD_BYTES + 1)] == [3, 3, 3, 4]
