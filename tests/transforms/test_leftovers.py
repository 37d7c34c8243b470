from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.cloud import storage

from tests.audio.gcs import StorageServer
from tests.audio.storage_proxy import Fault, StorageProxy
from transforms.leftovers import Sweep, bucket_warnings, other_leftovers, sweep
from transforms.staging import StagingArea, StagingRefused


def test_a_sweep_removes_a_runs_folder_and_nothing_else(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer
) -> None:
    others = ["a/b/hear-staged-run10/x.wav", "a/b/hear-staged-run1.wav", "a/b/x.wav", "hear-staged-run1/x.wav", "z.wav"]
    for name in [*others, *(f"{area.run_prefix}{number}.wav" for number in range(30)), f"{area.run_prefix}deep/er/x"]:
        server.upload(area.bucket, name, b"x")
    assert sweep(area.run_uri, client) == Sweep(31, 0)
    assert server.names(area.bucket) == sorted(others)
    assert sweep(area.run_uri, client) == Sweep(0, 0)


def test_a_sweep_of_more_than_a_page(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: server.upload(area.bucket, f"{area.run_prefix}{n}", b"x"), range(450)))
    assert sweep(area.run_uri, client) == Sweep(450, 0)
    assert server.names(area.bucket) == []


def test_a_sweep_tells_what_it_could_not_remove(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    names = [f"{area.run_prefix}{number}.wav" for number in range(10)]
    for name in names:
        server.upload(area.bucket, name, b"x")
    proxy.add(Fault(r"^DELETE .*/[34]\.wav", 403))
    assert sweep(area.run_uri, client) == Sweep(8, 2)
    assert server.names(area.bucket) == names[3:5]


def test_a_sweep_gives_up_where_nothing_can_be_removed_and_counts(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: server.upload(area.bucket, f"{area.run_prefix}{n}", b"x"), range(250)))
    proxy.add(Fault("^DELETE", 403))
    assert sweep(area.run_uri, client) == Sweep(0, 250)
    assert proxy.count("^DELETE") == 200


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "gs://my-bucket",
        "gs://my-bucket/",
        "gs://my-bucket/a/",
        "gs://my-bucket/hear-staged-/",
        "gs://my-bucket/hear-staged-r1",
        "gs://my-bucket/hear-staged-r1/deeper/",
        "gs://my-bucket/xhear-staged-r1/",
        "gs://my-bucket/hear-staged-r1/../",
        "gs://hear-staged-r1/",
        "/tmp/hear-staged-r1/",
    ],
)
def test_only_a_runs_folder_is_swept(uri: str) -> None:
    def no_client() -> storage.Client:
        raise AssertionError("asked for")

    with pytest.raises(ValueError, match="no folder of staged clips; expected gs://"):
        sweep(uri, no_client)


def test_a_bucket_that_is_gone_has_nothing_left(client: Callable[[], storage.Client]) -> None:
    assert sweep("gs://no-such-bucket/hear-staged-r1/", client) == Sweep(0, 0)


def test_a_folder_that_may_not_be_listed_is_told(
    area: StagingArea, client: Callable[[], storage.Client], proxy: StorageProxy
) -> None:
    proxy.add(Fault("^GET", 403))
    for ask in (lambda: sweep(area.run_uri, client), lambda: other_leftovers(area, client)):
        with pytest.raises(StagingRefused, match=r"HTTP 403.*grant storage\.objects\.list"):
            ask()


def test_folders_of_other_runs_are_found_without_listing_their_objects(
    area: StagingArea, client: Callable[[], storage.Client], server: StorageServer, proxy: StorageProxy
) -> None:
    for name in ("hear-staged-run1/x", "hear-staged-run10/x", "hear-staged-old/x", "hear-staged-old/y", "recordings/x"):
        server.upload(area.bucket, f"a/b/{name}", b"x")
    server.upload(area.bucket, "hear-staged-elsewhere/x", b"x")
    assert other_leftovers(area, client) == [
        f"gs://{area.bucket}/a/b/hear-staged-old/",
        f"gs://{area.bucket}/a/b/hear-staged-run10/",
    ]
    assert proxy.count("delimiter=/") == proxy.count("^GET .*/o[?]") == 1


def test_a_plain_bucket_needs_no_warning(area: StagingArea, client: Callable[[], storage.Client]) -> None:
    assert bucket_warnings(area, client) == []


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, ["soft delete keeps them for 7 days"]),
        ({"softDeletePolicy": {"retentionDurationSeconds": "0"}}, []),
        ({"versioning": {"enabled": True}}, ["object versioning"]),
        ({"versioning": {"enabled": False}}, []),
        ({"retentionPolicy": {"retentionPeriod": "3600"}}, ["cannot be deleted for 3600 s"]),
        ({"defaultEventBasedHold": True}, ["hold"]),
        (
            {"softDeletePolicy": {"retentionDurationSeconds": "90000"}, "versioning": {"enabled": True}},
            ["soft delete keeps them for 90000 s", "object versioning"],
        ),
    ],
)
def test_a_bucket_that_keeps_what_is_deleted_is_warned_of(
    metadata: dict[str, Any],
    said: list[str],
    area: StagingArea,
    client: Callable[[], storage.Client],
    proxy: StorageProxy,
) -> None:
    proxy.add(Fault("^GET /storage/v1/b/", 200, body={"kind": "storage#bucket", "name": area.bucket, **metadata}))
    warnings = bucket_warnings(area, client)
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning
        assert f"gs://{area.bucket}" in warning


def test_without_the_right_to_ask_there_is_no_warning(
    area: StagingArea, client: Callable[[], storage.Client], proxy: StorageProxy
) -> None:
    proxy.add(Fault("^GET", 403))
    assert bucket_warnings(area, client) == []


def test_a_missing_bucket_is_an_error(client: Callable[[], storage.Client]) -> None:
    with pytest.raises(StagingRefused, match="gs://no-such-bucket: there is no such bucket"):
        bucket_warnings(StagingArea.of("gs://no-such-bucket", "r1"), client)
