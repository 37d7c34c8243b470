"""Listing of buckets on a real storage server."""

from collections.abc import Callable
from typing import Any

import pytest

import audio.listing
from audio.listing import BucketError, Ignored, ListingError, list_input
from audio.recording import Recording
from tests.audio.gcs import StorageServer
from tests.cloud.fault_proxy import FaultProxy, fault_proxy

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
"""The library leaves the connections of refused requests to the garbage collector."""

NAMES = ("a b.wav", "a#1.wav", "a?.wav", "100%20.wav", "кашель 🤧.wav", "sub/..wav", "sub/.hidden.wav", "sub/[x]*.wav")


def uris(text: str) -> list[str]:
    return [listed.uri for listed in list_input(text) if isinstance(listed, Recording)]


@pytest.fixture(scope="module")
def filled(server: StorageServer) -> StorageServer:
    for name in (*NAMES, "sub/", "notes.txt", "st/hear-staged-run-1/0.wav", "hear-staged-run-2/0.wav"):
        server.upload("bucket", f"in/{name}", b"x")
    return server


def proxied(proxy: FaultProxy, server: StorageServer) -> str:
    host, _, port = server.address.removeprefix("http://").partition(":")
    proxy.upstream = (host, int(port))
    return proxy.address


def test_objects_of_any_name_are_found_in_folders_and_by_their_own_names(
    filled: StorageServer, emulated: StorageServer
) -> None:
    everything = {f"gs://bucket/in/{name}" for name in NAMES}
    assert set(uris("gs://bucket")) == set(uris("gs://bucket/in/")) == set(uris("gs://bucket/in")) == everything
    for uri in everything:
        assert uris(uri) == [uri]
    assert [item.uri for item in list_input("gs://bucket/in") if isinstance(item, Ignored)] == [
        "gs://bucket/in/notes.txt"
    ]
    assert set(uris("gs://bucket/in/sub")) == {uri for uri in everything if "/sub/" in uri}


def test_clips_that_are_staged_are_no_recordings_unless_they_are_asked_for(
    filled: StorageServer, emulated: StorageServer
) -> None:
    assert not [uri for uri in uris("gs://bucket/**.wav") if "hear-staged" in uri]
    for folder in ("gs://bucket/in/st/hear-staged-run-1", "gs://bucket/in/st/hear-staged-run-1/*.wav"):
        assert uris(folder) == ["gs://bucket/in/st/hear-staged-run-1/0.wav"]


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "retry_after": "1"}, {"drop": True}, {"cut": True}])
def test_what_passes_is_not_noticed(filled: StorageServer, use: Callable[[str], None], fault: dict[str, Any]) -> None:
    with fault_proxy() as proxy:
        use(proxied(proxy, filled))
        looked = proxy.inject("GET /storage/v1/b/bucket/o/in[?]", **fault)
        listed = proxy.inject("GET /storage/v1/b/bucket/o[?]", **fault)
        assert len(uris("gs://bucket/in")) == len(NAMES)
        assert (looked.hits, listed.hits) == (1, 1)


@pytest.mark.parametrize("text", ["gs://bucket/in", "gs://bucket/in/", "gs://bucket/in/*.wav"])
@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, BucketError, r"listing was refused \(HTTP 403\): grant storage.objects.list on the bucket 'bucket'"),
        (404, BucketError, r"there is no bucket 'bucket': make it, or name another"),
        (400, BucketError, r"requester pays"),
        (503, ListingError, r"listing 'gs://bucket/in.*' failed \(HTTP 503, again and again\): try again"),
    ],
)
def test_a_bucket_that_cannot_be_listed(
    filled: StorageServer,
    use: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    status: int,
    kind: type[ListingError],
    said: str,
) -> None:
    monkeypatch.setattr(audio.listing, "_RETRY_FOR_S", 0.01)
    with fault_proxy() as proxy:
        use(proxied(proxy, filled))
        proxy.inject("/b/bucket/o", status=status, times=-1)
        with pytest.raises(kind, match=said) as caught:
            uris(text)
    assert type(caught.value) is kind
    assert "injected" not in str(caught.value)
