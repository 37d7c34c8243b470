"""Work on packets whose checkpoint files are kept in memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from audio.clips import ClipSettings
from audio.recording import Recording
from endpoint.settings import EndpointSettings
from rows.checkpoint import read_all
from rows.identity import clip_id
from rows.model import Census, EmbeddingRow, FailureRow, Receipt
from rows.writer import CheckpointWriter
from transforms.make_packets import Packet
from transforms.outbox import Predictor
from transforms.packet_work import PacketWork, RowSettings

NAME = "projects/p/locations/l/endpoints/1"
NEVER_S = 1e9


class Store:
    """Keeps checkpoint files in memory, and says when one has come."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.written = threading.Semaphore(0)

    def __call__(self, path: str, data: bytes) -> None:
        self.files[path] = data
        self.written.release()

    def rows(self) -> list[EmbeddingRow | FailureRow | Census]:
        return [row for data in self.files.values() for _, row in read_all(data)]

    def embedded(self) -> list[EmbeddingRow]:
        return [row for row in self.rows() if isinstance(row, EmbeddingRow)]

    def failures(self) -> list[FailureRow]:
        return [row for row in self.rows() if isinstance(row, FailureRow)]

    def censuses(self) -> list[Census]:
        return [row for row in self.rows() if isinstance(row, Census)]


class SlowStore(Store):
    """Takes its time."""

    def __call__(self, path: str, data: bytes) -> None:
        time.sleep(0.2)
        super().__call__(path, data)


class EachPacketAlone(PacketWork):
    """Sends a packet's last clips without waiting for the next packet's to fill up their request."""

    def work(self, packet: Packet) -> list[Receipt]:
        receipts = super().work(packet)
        self.flush()
        return receipts + self._writer.receipts()


@contextmanager
def working(
    endpoint: Predictor,
    store: Store,
    *,
    clips: ClipSettings | None = None,
    flush_rows: int = 10**6,
    **seams: object,
) -> Iterator[tuple[PacketWork, CheckpointWriter]]:
    """Work with a writer that stores rows only when it is asked to, or when there are `flush_rows` of them."""
    with closing(CheckpointWriter("/run", store, flush_rows=flush_rows, flush_s=NEVER_S)) as writer:
        rows = RowSettings("f" * 16, "model", NAME)
        sending = EndpointSettings(NAME, "127.0.0.1:9")
        yield EachPacketAlone(rows, clips or ClipSettings(), sending, endpoint, writer, **seams), writer


def id_of(of: Recording, clip: int) -> str:
    return clip_id(of, "mean", clip * 32000, "f" * 16)
