"""Work on packets whose checkpoint files are kept in memory."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial

from audio.clips import ClipSettings
from audio.decoders import Decoders
from audio.errors import AudioError
from audio.fetch_ahead import Source
from audio.recording import Recording
from endpoint.settings import EndpointSettings
from rows.checkpoint import read_all
from rows.identity import clip_id
from rows.model import Census, EmbeddingRow, FailureRow, Receipt
from rows.writer import CheckpointWriter
from transforms.make_packets import Packet
from transforms.outbox import Outbox, Predictor
from transforms.packet_work import PacketWork
from transforms.plan_segments import RecordingPlan
from transforms.segment_rows import RowSettings

NAME = "projects/p/locations/l/endpoints/1"
NEVER_S = 1e9
RUN = "run"


class Store:
    """Keeps checkpoint files in memory, and says when one has come."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.written = threading.Semaphore(0)

    folder = "/checkpoint"

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data
        self.written.release()

    def read(self, name: str) -> bytes:
        return self.files[name]

    def names(self, prefix: str = "") -> Iterator[str]:
        return iter([name for name in self.files if name.startswith(prefix)])

    def folders(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self.files})

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.files.pop(name, None)

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

    def write(self, name: str, data: bytes) -> None:
        time.sleep(0.2)
        super().write(name, data)


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
    fetch: Callable[[Recording], Source] | None = None,
    kind: type[PacketWork] = EachPacketAlone,
    **seams: object,
) -> Iterator[tuple[PacketWork, CheckpointWriter]]:
    """Work with a writer that stores rows only when it is asked to, or when there are `flush_rows` of them."""
    writer = CheckpointWriter(RUN, store.write, flush_rows=flush_rows, flush_s=NEVER_S)
    decoders = Decoders(clips or ClipSettings(), 0)
    with closing(writer), closing(decoders):
        rows = RowSettings("f" * 16, "model", NAME)
        outbox = partial(Outbox, EndpointSettings(NAME, "127.0.0.1:9"), endpoint, None)
        fetcher = Fetcher(fetch or (lambda _: None))
        yield kind(rows, outbox, writer, store, RUN, fetcher, decoders, wait_s=60.0, **seams), writer


class Fetcher:
    """Fetches at once."""

    def __init__(self, fetch: Callable[[Recording], Source]) -> None:
        self._fetch = fetch

    def begin(self, recording: Recording) -> Future[Source]:
        fetched: Future[Source] = Future()
        try:
            fetched.set_result(self._fetch(recording))
        except AudioError as error:
            fetched.set_exception(error)
        return fetched


def plan_of(some: Packet) -> list[RecordingPlan]:
    """The plans of the recordings that a packet's segments are all of."""
    return [
        RecordingPlan(task.segment.recording, ((task.segment_id, task.segment.takes),), (), (), ())
        for task in some.tasks
    ]


def id_of(of: Recording, clip: int) -> str:
    return clip_id(of, "mean", clip * 32000, "f" * 16)
