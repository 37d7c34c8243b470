"""Messages arrive one by one or together, and what is wrong among them costs none that came before."""

import os
import struct

import pytest

from audio.decoder_wire import ALIVE, ASK, Channel, WireError, bounds_from_child

BOUNDS = bounds_from_child(0)


def waiting(for_writing: bool) -> None:
    raise TimeoutError


def test_messages_that_came_together_are_taken_together() -> None:
    read_fd, write_fd = os.pipe()
    try:
        here, there = Channel(read_fd, write_fd, waiting), Channel(read_fd, write_fd, waiting)
        there.hold(ASK, [1, 2])
        there.send(ALIVE)
        os.write(write_fd, struct.pack("<cI", b"A", 5) + b"[3,")
        assert here.receive_some(BOUNDS) == [(ASK, [1, 2]), (ALIVE, None)]
        with pytest.raises(TimeoutError):
            here.receive_some(BOUNDS)
        os.write(write_fd, b"4]")
        there.send(ALIVE)
        os.write(write_fd, b"what no decoder says")
        assert here.receive_some(BOUNDS) == [(ASK, [3, 4]), (ALIVE, None)]
        with pytest.raises(WireError, match="not expected"):
            here.receive_some(BOUNDS)
        with pytest.raises(WireError, match="not expected"):
            here.receive_some(BOUNDS)
    finally:
        os.close(read_fd)
        os.close(write_fd)
