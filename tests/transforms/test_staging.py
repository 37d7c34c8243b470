import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.cloud import storage

from audio.errors import AudioError
from tests.audio.gcs import StorageServer
from tests.audio.storage_proxy import Fault, StorageProxy
from transforms.leftovers import Sweep, sweep
from transforms.staging import Stager, StagingArea, StagingError, StagingRefused, StagingStats, prove_rights

UPLOAD = "^POST /upload/"
DELETE = "^DELETE /storage/"
WAV = b"RIFF" + bytes(range(256)) * 250
SOON = 0.01
"""The longest first pause before a retry, in seconds."""


@contextmanager
def stager(area: StagingArea, client: Callable[[], storage.Client], **options: Any) -> Iterator[Stager]:
    made = Stager(area, client, **{"first_pause_s": SOON, "threads": 8, **options})
    try:
        yield made
    finally:
        made.close()


def failing(status: int | None, line: str = UPLOAD, **options: Any) -> Fault:
    return Fault(line, status, **options)


def test_an_object_is_named_at_once_and_holds_the_wav(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer
) -> None:
    with stager(area, client) as staging:
        staged = staging.put(WAV)
        assert (staged.bucket, staged.name.startswith("a/b/hear-staged-run1/")) == (area.bucket, True)
        assert staged.result() is None
        assert server.content(area.bucket, staged.name) == (WAV, "audio/wav")
        assert staging.stats() == StagingStats(staged_objects=1, staged_bytes=len(WAV))


def test_two_hundred_put_and_removed_leave_an_empty_bucket(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    with stager(area, client) as staging:
        staged = [staging.put(WAV) for _ in range(200)]
        assert [one.result() for one in staged] == [None] * 200
        assert server.names(area.bucket) == sorted(one.name for one in staged)
        for one in staged:
            staging.remove(one)
        staging.drain()
        assert server.names(area.bucket) == []
        assert staging.stats() == StagingStats(200, 200 * len(WAV), 0, 200, 0)
        assert staging.leftovers() == ()
    assert proxy.count(UPLOAD) == proxy.count(DELETE) == 200


def test_an_object_removed_before_its_upload_is_over_is_removed_after_it(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    with stager(area, client) as staging:
        for _ in range(40):
            staging.remove(staging.put(WAV))
        staging.drain()
        assert staging.stats().removed_objects == 40
        assert server.names(area.bucket) == []
    assert proxy.count(DELETE) == 40


def test_removing_twice_deletes_once(
    area: StagingArea, client: Callable[[], storage.Client], proxy: StorageProxy
) -> None:
    with stager(area, client) as staging:
        staged = staging.put(WAV)
        staging.remove(staged)
        staging.remove(staged)
        staging.drain()
        staging.remove(staged)
        staging.drain()
        assert staging.stats().removed_objects == 1
    assert proxy.count(DELETE) == 1


def test_kept_objects_stay(area: StagingArea, client: Callable[[], storage.Client], server: StorageServer) -> None:
    with stager(area, client, keep=True) as staging:
        staged = staging.put(WAV)
        staging.remove(staged)
        staging.drain()
    assert server.names(area.bucket) == [staged.name]


def test_closing_waits_for_uploads_and_deletions(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer
) -> None:
    with stager(area, client) as staging:
        kept = [staging.put(WAV) for _ in range(10)]
        for _ in range(10):
            staging.remove(staging.put(WAV))
    assert server.names(area.bucket) == sorted(one.name for one in kept)
    with pytest.raises(RuntimeError, match="closed"):
        staging.put(WAV)
    staging.remove(kept[0])
    staging.drain()
    assert staging.leftovers() == (f"gs://{kept[0].bucket}/{kept[0].name}",)


@pytest.mark.parametrize(
    "fault", [failing(503), failing(429), failing(500), failing(None)], ids=["503", "429", "500", "reset"]
)
def test_uploads_are_tried_again_while_the_storage_fails(
    fault: Fault, area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    fault.times = 25
    proxy.add(fault)
    with stager(area, client) as staging:
        staged = [staging.put(WAV) for _ in range(20)]
        assert [one.result() for one in staged] == [None] * 20
    assert server.names(area.bucket) == sorted(one.name for one in staged)
    assert proxy.count(UPLOAD) == 45


@pytest.mark.parametrize("status", [None, 503])
def test_an_upload_whose_answer_is_lost_is_not_made_twice(
    status: int | None,
    area: StagingArea,
    client: Callable[[], storage.Client],
    server: StorageServer,
    proxy: StorageProxy,
) -> None:
    proxy.add(failing(status, after=True, times=5))
    with stager(area, client) as staging:
        staged = [staging.put(WAV) for _ in range(10)]
        assert [one.result() for one in staged] == [None] * 10
        assert staging.stats().staged_objects == 10
        assert all(server.content(one.bucket, one.name) == (WAV, "audio/wav") for one in staged)
    # The condition that makes a second attempt harmless, in buckets with versions too.
    assert proxy.count(UPLOAD) == proxy.count("ifGenerationMatch=0") == 15


def test_a_deletion_whose_answer_is_lost_is_a_deletion(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    proxy.add(failing(None, DELETE, after=True, times=3))
    proxy.add(failing(503, DELETE, times=3))
    with stager(area, client) as staging:
        for staged in [staging.put(WAV) for _ in range(10)]:
            staging.remove(staged)
        staging.drain()
        assert staging.stats().removed_objects == 10
        assert staging.leftovers() == ()
    assert server.names(area.bucket) == []


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, StagingRefused, r"HTTP 403.*grant storage\.objects\.create on the bucket"),
        (401, StagingRefused, "credentials.*run: gcloud auth application-default login"),
        (400, StagingRefused, "HTTP 400.*--staging_location"),
        (503, StagingError, "again and again.*try again later"),
        (501, StagingError, "HTTP 501.*try again later"),
        (None, StagingError, "try again later"),
    ],
)
def test_a_failed_upload_is_told_in_our_own_words(
    status: int | None,
    kind: type[StagingError],
    message: str,
    area: StagingArea,
    client: Callable[[], storage.Client],
    proxy: StorageProxy,
) -> None:
    proxy.add(failing(status))
    with stager(area, client, retry_for_s=0.1) as staging:
        error = staging.put(WAV).result()
        assert staging.stats() == StagingStats(failed_uploads=1)
    assert isinstance(error, AudioError)
    assert (type(error), error.code, error.retryable) == (kind, "staging_error", kind is StagingError)
    assert re.search(f"gs://{area.bucket}.*{message}", error.message)
    assert "PLANTED" not in error.message
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)  # they hold the clip


def test_a_missing_bucket_is_named(client: Callable[[], storage.Client], proxy: StorageProxy) -> None:
    area = StagingArea.of("gs://no-such-bucket", "r1")
    with stager(area, client) as staging:
        error = staging.put(WAV).result()
        assert isinstance(error, StagingRefused)
        assert re.search("gs://no-such-bucket: there is no such bucket", error.message)
    assert proxy.count(UPLOAD) == 1


@pytest.mark.parametrize("raised", [DefaultCredentialsError("ya29.PLANTED"), RefreshError("ya29.PLANTED")])
def test_missing_credentials_are_told_with_the_remedy(raised: Exception, area: StagingArea) -> None:
    def no_client() -> storage.Client:
        raise raised

    with stager(area, no_client) as staging:
        error = staging.put(WAV).result()
    assert isinstance(error, StagingRefused)
    assert "gcloud auth application-default login" in error.message
    assert "PLANTED" not in repr(error)


def test_deletions_that_fail_are_remembered_for_the_sweep(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    proxy.add(failing(403, DELETE))
    with stager(area, client) as staging:
        staged = [staging.put(WAV) for _ in range(20)]
        for one in staged:
            staging.remove(one)
        staging.drain()
        assert staging.leftovers() == tuple(sorted(f"gs://{one.bucket}/{one.name}" for one in staged))
        assert staging.stats() == StagingStats(20, 20 * len(WAV), 0, 0, 20)
    proxy.clear()
    assert sweep(area.run_uri, client) == Sweep(20, 0)
    assert server.names(area.bucket) == []


def test_after_a_failed_deletion_others_are_left_alone_for_a_while(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    now_s = 0.0
    proxy.add(failing(403, DELETE, times=1))
    with stager(area, client, threads=1, clock=lambda: now_s) as staging:
        staged = [staging.put(WAV) for _ in range(4)]
        staging.remove(staged[0])
        staging.remove(staged[1])
        staging.drain()
        assert proxy.count(DELETE) == 1
        now_s = 60.0
        staging.remove(staged[2])
        staging.remove(staged[3])
        staging.drain()
        assert proxy.count(DELETE) == 3
        assert (staging.stats().removed_objects, staging.stats().failed_removals) == (2, 2)
        assert len(staging.leftovers()) == 2
    assert server.names(area.bucket) == sorted(one.name for one in staged[:2])


def test_put_blocks_while_too_many_uploads_are_pending(area: StagingArea) -> None:
    gate = threading.Event()

    def held_up() -> storage.Client:
        gate.wait(30)
        raise DefaultCredentialsError

    put = []
    with stager(area, held_up, threads=2) as staging, ThreadPoolExecutor(1) as bundle:
        putting = bundle.submit(lambda: [put.append(staging.put(WAV)) for _ in range(20)])
        while len(put) < 4:
            time.sleep(0.001)
        time.sleep(0.1)  # for more than the four, if it did not block
        put_before = len(put)
        gate.set()
        putting.result()
        assert all(isinstance(staged.result(), StagingRefused) for staged in put)
    assert (put_before, len(put)) == (4, 20)


def test_as_many_connections_as_threads_and_no_more(
    area: StagingArea, client: Callable[[], storage.Client], proxy: StorageProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.delay_s = 0.01
    with caplog.at_level(logging.WARNING), stager(area, client, threads=24) as staging:
        for staged in [staging.put(WAV) for _ in range(300)]:
            staging.remove(staged)
        staging.drain()
    assert 10 < proxy.most_concurrent <= 24
    assert proxy.connections <= 24
    assert "pool is full" not in caplog.text


def test_put_and_remove_from_many_threads(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    with stager(area, client) as staging, ThreadPoolExecutor(6) as bundles, ThreadPoolExecutor(2) as answers:

        def bundle(_: int) -> None:
            removals = []
            for _ in range(30):
                staged = staging.put(WAV)
                assert staged.result() is None
                removals.append(answers.submit(staging.remove, staged))
            for removal in removals:
                removal.result()
            staging.drain()

        list(bundles.map(bundle, range(6)))
        assert staging.stats() == StagingStats(180, 180 * len(WAV), 0, 180, 0)
    assert server.names(area.bucket) == []


@pytest.mark.parametrize("seed", range(4))
def test_under_any_faults_every_object_is_there_or_reported(
    seed: int, area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    rng = random.Random(seed)
    for status in (429, 503, None, 403):
        for line in (UPLOAD, DELETE):
            for after in (False, True):
                share = 0.01 if status == 403 else 0.06
                proxy.add(Fault(line, status, after=after, chooses=lambda _, share=share: rng.random() < share))
    with stager(area, client, retry_for_s=0.3) as staging:
        staged = [staging.put(WAV) for _ in range(150)]
        errors = {one.name: one.result() for one in staged}
        there = set(server.names(area.bucket))
        assert {name for name, error in errors.items() if error is None} <= there
        for one in staged:
            staging.remove(one)
        staging.drain()
        left = {f"gs://{area.bucket}/{name}" for name in server.names(area.bucket)}
        assert left <= set(staging.leftovers())
        stats = staging.stats()
        assert stats.staged_objects == sum(error is None for error in errors.values())
        assert stats.staged_objects + stats.failed_uploads == 150
        assert stats.removed_objects + stats.failed_removals == 150
        assert len(staging.leftovers()) == stats.failed_removals
    proxy.clear()
    assert sweep(area.run_uri, client) == Sweep(len(left), 0)
    assert server.names(area.bucket) == []


def test_rights_are_proved_with_one_object_that_does_not_stay(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    prove_rights(area, client)
    assert (proxy.count(UPLOAD), proxy.count(DELETE)) == (1, 1)
    assert server.names(area.bucket) == []


@pytest.mark.parametrize(("line", "permission"), [(UPLOAD, "create"), (DELETE, "delete")])
def test_missing_rights_are_named(
    line: str, permission: str, area: StagingArea, client: Callable[[], storage.Client], proxy: StorageProxy
) -> None:
    proxy.add(failing(403, line))
    with pytest.raises(StagingRefused, match=rf"grant storage\.objects\.{permission}"):
        prove_rights(area, client)
