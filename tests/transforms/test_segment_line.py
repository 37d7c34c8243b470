"""Segments in a line: what is fetched and decoded ahead, and what is closed."""

import io
from concurrent.futures import Future
from dataclasses import dataclass, field

from audio.errors import MissingFile
from audio.fetch import ONE_GET_BYTES
from audio.fetch_ahead import Source
from audio.recording import Recording, Segment, Take
from transforms.segment_line import AHEAD_BYTES, AHEAD_SEGMENTS, SegmentLine


def segment(name: str, size_bytes: int = 1000) -> Segment:
    return Segment(Recording(name, "1", size_bytes), (Take("mean"),))


class Fetcher:
    """Fetches when the test says so."""

    def __init__(self) -> None:
        self.begun: dict[str, Future[Source]] = {}

    def begin(self, recording: Recording) -> Future[Source]:
        self.begun[recording.uri] = Future()
        return self.begun[recording.uri]

    def arrive(self, *names: str) -> None:
        for name in names:
            self.begun[name].set_result(name.encode())


@dataclass
class FakeDecoding:
    segment: Segment
    source: Source
    is_closed: bool = False

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Decoder:
    processes: int = 2
    decodings: list[FakeDecoding] = field(default_factory=list)

    def decode(self, segment: Segment, source: Source) -> FakeDecoding:
        self.decodings.append(FakeDecoding(segment, source))
        return self.decodings[-1]

    def names(self) -> list[str]:
        return [decoding.segment.recording.uri for decoding in self.decodings]


def line_of(*names: str, processes: int = 2) -> tuple[SegmentLine[str], Fetcher, Decoder]:
    fetcher, decoder = Fetcher(), Decoder(processes)
    line: SegmentLine[str] = SegmentLine(fetcher, decoder)
    for name in names:
        line.add(name, segment(name))
    return line, fetcher, decoder


def test_all_in_the_line_are_fetched_and_the_first_of_them_decoded_once_they_are_there() -> None:
    line, fetcher, decoder = line_of("a", "b", "c", "d")
    assert list(fetcher.begun) == ["a", "b", "c", "d"]
    assert decoder.names() == []
    fetcher.arrive("a", "b", "c", "d")
    opened = line.take()
    assert (opened.ticket, opened.source, opened.error) == ("a", b"a", None)
    assert decoder.names() == ["a", "b", "c"], "one that is worked on, and as many as there are child processes"
    assert line.take().ticket == "b"
    assert decoder.names() == ["a", "b", "c", "d"]


def test_decoding_begins_in_the_order_of_the_line_whatever_arrives_first() -> None:
    line, fetcher, decoder = line_of("a", "b", "c")
    fetcher.arrive("b", "c")
    line.add("d", segment("d"))
    assert decoder.names() == []
    fetcher.arrive("a")
    line.add("e", segment("e"))
    assert decoder.names() == ["a", "b"]


def test_without_child_processes_nothing_is_decoded_ahead() -> None:
    line, fetcher, decoder = line_of("a", "b", processes=0)
    fetcher.arrive("a", "b")
    line.add("c", segment("c"))
    assert decoder.names() == []
    line.take()
    assert decoder.names() == ["a"]


def test_a_recording_that_cannot_be_fetched_is_an_error_at_its_turn_and_holds_up_nobody() -> None:
    line, fetcher, decoder = line_of("a", "b", "c")
    fetcher.arrive("a", "c")
    fetcher.begun["b"].set_exception(MissingFile("it is gone"))
    assert line.take().ticket == "a"
    opened = line.take()
    assert (opened.ticket, opened.decoding, opened.source) == ("b", None, None)
    assert isinstance(opened.error, MissingFile)
    assert line.take().ticket == "c"
    assert decoder.names() == ["a", "c"]
    assert len(line) == 0


def test_the_line_is_bounded_by_number() -> None:
    line, _, _ = line_of(*map(str, range(AHEAD_SEGMENTS)))
    assert not line.is_full
    line.add("last", segment("last"))
    assert line.is_full


def test_the_line_is_bounded_by_what_is_held_in_memory() -> None:
    line, _, _ = line_of()
    largest = AHEAD_BYTES // ONE_GET_BYTES
    for number in range(largest):
        line.add(str(number), segment(f"gs://bucket/{number}", 1 << 40))
        assert not line.is_full
    line.add("last", segment("gs://bucket/last", 5))
    assert line.is_full


def test_recordings_on_disk_hold_no_memory_until_they_are_decoded() -> None:
    line, _, _ = line_of()
    for number in range(AHEAD_SEGMENTS):
        line.add(str(number), segment(f"/in/{number}.wav", 1 << 40))
    assert not line.is_full


def test_closing_the_line_closes_what_is_decoded_and_what_arrives_later() -> None:
    line, fetcher, decoder = line_of("a", "b", "c")
    fetcher.arrive("a")
    line.add("d", segment("d"))
    fetcher.begun["b"].set_running_or_notify_cancel()
    line.close()
    assert len(line) == 0
    assert [decoding.is_closed for decoding in decoder.decodings] == [True]
    assert fetcher.begun["c"].cancelled()
    late = io.BytesIO(b"x")
    fetcher.begun["b"].set_result(late)
    assert late.closed
