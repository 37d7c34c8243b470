"""Manifests on Cloud Storage, by way of a real storage server."""

import gzip
from collections.abc import Callable

import pytest

import audio.fetch
import audio.lookup
from audio.manifest import ManifestError, ManifestHeader, ManifestProblem, ManifestRow, ManifestSettings, check_manifest
from tests.audio.gcs import StorageServer
from tests.audio.manifests import good, read
from tests.audio.storage_proxy import Fault, storage_proxy

_LEAVES_CONNECTIONS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


@pytest.mark.parametrize(
    ("raw", "uri"),
    [
        ("a.wav", "gs://bucket/study 1/a.wav"),
        ("./sub/../b #1?*.wav", "gs://bucket/study 1/b #1?*.wav"),
        ("../a.wav", "gs://bucket/a.wav"),
        ("sub//a.wav", "gs://bucket/study 1/sub//a.wav"),
        ("gs://other/./a.wav", "gs://other/./a.wav"),
        ("/data/a.wav", "/data/a.wav"),
    ],
)
def test_uris_are_relative_to_the_manifest(emulated: StorageServer, raw: str, uri: str) -> None:
    emulated.upload("bucket", "study 1/m.csv", f"uri,x\n{raw},00123\n".encode())
    (row,) = good("gs://bucket/study 1/m.csv")
    assert (row.uri, row.metadata) == (uri, (("x", "00123"),))
    assert check_manifest(ManifestSettings("gs://bucket/study 1/m.csv")) == ManifestHeader(("x",))


@pytest.mark.parametrize(
    ("raw", "said"), [("../../a.wav", "leads out of the manifest's bucket"), ("..", "name of an object")]
)
def test_uris_that_lead_out_of_the_bucket(emulated: StorageServer, raw: str, said: str) -> None:
    emulated.upload("bucket", "study/m.csv", f"uri\n{raw}\n".encode())
    (found,) = read("gs://bucket/study/m.csv")
    assert isinstance(found, ManifestProblem)
    assert (found.code, found.uri) == ("malformed_value", raw)
    assert said in found.message


def test_a_manifest_at_the_top_of_a_bucket(emulated: StorageServer) -> None:
    emulated.upload("bucket", "m.jsonl", b'{"uri": "a.wav"}')
    assert [row.uri for row in good("gs://bucket/m.jsonl")] == ["gs://bucket/a.wav"]


def test_a_large_manifest_is_read_in_pieces_of_one_version(
    server: StorageServer, use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio.fetch, "ONE_GET_BYTES", 1_000)
    monkeypatch.setattr(audio.fetch, "_PIECE_BYTES", 10_000)
    data = b"uri\n" + b"".join(b"%d.wav\n" % number for number in range(5_000))
    for name, content in (("large.csv", data), ("large.csv.gz", gzip.compress(data))):
        server.upload("bucket", name, content)
        with storage_proxy(server.address) as proxy:
            use(proxy.address)
            monkeypatch.setattr(audio.fetch, "_client", None)
            check_manifest(ManifestSettings(f"gs://bucket/{name}"))
            assert proxy.count("alt=media") == 1
            rows = good(f"gs://bucket/{name}")
            assert [row.uri for row in rows] == [f"gs://bucket/{number}.wav" for number in range(5_000)]
            assert proxy.count("alt=media&generation=|generation=.*alt=media") == proxy.count("alt=media") > 2
            audio.fetch.storage_client().close()


@pytest.mark.parametrize("name", ["encoded.csv", "encoded.csv.gz"])
def test_how_an_object_is_encoded_for_transfer_does_not_matter(emulated: StorageServer, name: str) -> None:
    data = gzip.compress(b"uri\na.wav\n")
    emulated.upload("bucket", name, data if name.endswith(".csv") else gzip.compress(data), encoding="gzip")
    assert [row.uri for row in good(f"gs://bucket/{name}")] == ["gs://bucket/a.wav"]


@_LEAVES_CONNECTIONS
def test_a_storage_that_fails_midway_ends_the_run_and_says_where(
    server: StorageServer, use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio.fetch, "ONE_GET_BYTES", 1_000)
    monkeypatch.setattr(audio.fetch, "_PIECE_BYTES", 10_000)
    monkeypatch.setattr(audio.fetch, "_RETRY_FOR_S", 0.01)
    server.upload("bucket", "m.csv", b"uri\n" + b"1234.wav\n" * 5_000)
    with storage_proxy(server.address) as proxy:
        use(proxy.address)
        seen: list[str] = []

        def third(line: str) -> bool:
            seen.append(line)
            return len(seen) > 2

        proxy.add(Fault("alt=media", status=503, chooses=third))
        with pytest.raises(
            ManifestError, match=r"'gs://bucket/m.csv' cannot be read beyond line 2[0-9]{3}: reading the object"
        ) as caught:
            read("gs://bucket/m.csv")
    assert "PLANTED" not in str(caught.value)


@_LEAVES_CONNECTIONS
def test_a_passing_failure_is_not_noticed(server: StorageServer, use: Callable[[str], None]) -> None:
    server.upload("bucket", "passing.csv", b"uri\na.wav\n")
    with storage_proxy(server.address) as proxy:
        proxy.add(Fault("alt=media", status=503, times=1))
        use(proxy.address)
        (row,) = read("gs://bucket/passing.csv")
    assert isinstance(row, ManifestRow)


@_LEAVES_CONNECTIONS
@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "was refused .HTTP 403.; grant .* if the object is there"), (404, "there is no such object")],
)
def test_a_manifest_that_may_not_be_read(
    server: StorageServer, use: Callable[[str], None], status: int, said: str
) -> None:
    with storage_proxy(server.address) as proxy:
        proxy.add(Fault("/o/refused", status=status))
        use(proxy.address)
        with pytest.raises(ManifestError, match=f"the manifest 'gs://bucket/refused.csv' cannot be read: .*{said}"):
            check_manifest(ManifestSettings("gs://bucket/refused.csv"))
