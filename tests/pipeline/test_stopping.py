"""Signals, in this process: those that are taken as Ctrl-C, wherever they come."""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from audio.recording import Recording
from pipeline.stopping import stopping
from tests.audio.makers import encode, noise, wav
from tests.transforms.fake_endpoint import PromptEndpoint
from tests.transforms.packet_work import Store, working
from tests.transforms.samples import packet
from transforms.interruption import INTERRUPTION

RATE_HZ, CLIPS = 16000, 30


@contextmanager
def handlers_kept() -> Iterator[None]:
    """A signal leaves handlers behind that end the process, and the word that this one is to stop: not here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        INTERRUPTION.forget()


class Interrupting(io.BytesIO):
    """Sends a signal to this process when it is read for the n-th time."""

    def __init__(self, data: bytes, number: signal.Signals, reads_before: int) -> None:
        super().__init__(data)
        self._number = number
        self.reads_left = reads_before

    def _read(self) -> None:
        self.reads_left -= 1
        if self.reads_left == 0:
            os.kill(os.getpid(), self._number)

    def read(self, size: int | None = -1, /) -> bytes:
        self._read()
        return super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        self._read()
        return super().readinto(buffer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_interrupt(number: signal.Signals) -> None:
    with handlers_kept(), pytest.raises(KeyboardInterrupt), stopping():
        os.kill(os.getpid(), number)


def test_an_interruption_is_known_to_threads_that_outlive_the_run_and_not_to_the_next_run() -> None:
    with handlers_kept():
        with pytest.raises(KeyboardInterrupt), stopping():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            INTERRUPTION.raise_if_asked()
        with stopping():
            INTERRUPTION.raise_if_asked()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("container", ["wav", "mp4"])
def test_a_signal_while_a_decoder_reads_does_not_make_the_recording_seem_to_end_there(
    container: str, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is raised in a function that libsndfile or FFmpeg calls back does not go beyond it."""
    samples = noise(CLIPS * 2 * RATE_HZ)
    data = wav(samples, RATE_HZ) if container == "wav" else encode(samples, RATE_HZ, "mp4", "aac")
    interrupted = 0
    for reads_before in itertools.count(1):
        file, stored = Interrupting(data, number, reads_before), Store()
        with (
            working(PromptEndpoint(), stored, fetch=lambda _, file=file: file) as (work, writer),
            handlers_kept(),
            stopping(),
        ):
            try:
                work.work(packet(Recording("/recording", "1-1", len(data))))
            except KeyboardInterrupt:
                interrupted += 1
            writer.flush()
        censuses = [len(census.clips) for census in stored.censuses()]
        if file.reads_left > 0:
            assert censuses == [CLIPS], "it was read to its end"
            break
        assert censuses == []
        assert stored.failures() == []
    assert interrupted == reads_before - 1 > 5
    assert "Traceback" not in capfd.readouterr().err
