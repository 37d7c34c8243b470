"""The real storage server behind a proxy that makes faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.audio.gcs import StorageServer, storage_server
from tests.cloud.fault_proxy import FaultProxy, fault_proxy


@contextmanager
def proxied_storage(folder: Path) -> Iterator[tuple[StorageServer, FaultProxy]]:
    """Runs a server that keeps its objects in `folder`, and a proxy in front of it, whose address the server then has."""
    with fault_proxy() as proxy, storage_server(folder, known_as=proxy.address) as direct:
        host, _, port = direct.address.removeprefix("http://").partition(":")
        proxy.upstream = (host, int(port))
        yield StorageServer(proxy.address), proxy
