from __future__ import annotations

import dataclasses
import fcntl
import itertools
import multiprocessing
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint import shared_rate
from endpoint.errors import RunEnded
from endpoint.private_folder import PrivateFolderUnusable
from endpoint.settings import EndpointSettings
from endpoint.shared_rate import SharedRate
from tests.endpoint.quota_simulation import most_in_window

KEY = "projects/P/locations/L/endpoints/E 127.0.0.1:9"
INTERVAL_S = 60 / (0.985 * 6000)


def take_slots(
    folder: Path, limit: float, duration_s: float, results: multiprocessing.SimpleQueue[list[float]]
) -> None:
    """Takes slots as fast as they come and waits for each, as a client would."""
    rate = SharedRate(folder, KEY, limit)
    taken: list[float] = []
    end_s = time.monotonic() + duration_s
    while (now_s := time.monotonic()) < end_s:
        slot_s = rate.reserve(now_s)
        rate.answered(now_s, now_s)
        taken.append(slot_s)
        time.sleep(max(0.0, slot_s - time.monotonic()))
    rate.close()
    results.put(taken)


def test_processes_share_a_pace(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.SimpleQueue[list[float]] = context.SimpleQueue()
    processes = [context.Process(target=take_slots, args=(tmp_path / "r", 6000, 2.0, results)) for _ in range(3)]
    for process in processes:
        process.start()
    taken = sorted(slot_s for _ in processes for slot_s in results.get())
    for process in processes:
        process.join()
    for window_s in (0.1, 0.5, 1.0):
        assert most_in_window(taken, window_s) <= (window_s + 0.25) / INTERVAL_S + 1
    assert len(taken) >= 2.0 / INTERVAL_S * 0.5, "and slots are taken, by all of them together"


def test_states_that_nobody_has_used_for_a_day_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    old = SharedRate(folder, "an endpoint at a port of yesterday's", 60)
    recent = SharedRate(folder, "an endpoint of this morning's", 60)
    (folder / "somebody else's").touch()
    for path, age_s in ((old.path, 90_000), (recent.path, 80_000), (folder / "somebody else's", 90_000)):
        os.utime(path, (time.time() - age_s,) * 2)
    SharedRate(folder, KEY, 60).close()
    assert [path.exists() for path in (old.path, recent.path, folder / "somebody else's")] == [False, True, True]
    # Whoever still has it open goes on in a new file.
    old.reserve(1000.0)
    assert old.path.exists()
    for rate in (old, recent):
        rate.close()


def test_another_object_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    first = SharedRate(tmp_path / "r", KEY, 60)
    slots = [first.reserve(1000.0) for _ in range(3)]
    first.close()
    second = SharedRate(tmp_path / "r", KEY, 60)
    assert second.reserve(1000.0) == pytest.approx(slots[-1] + 60 / (0.985 * 60))
    assert SharedRate(tmp_path / "r", "another endpoint", 60).reserve(1000.0) == 1000.0


def test_what_was_learnt_outlives_the_process(tmp_path: Path) -> None:
    first = SharedRate(tmp_path / "r", KEY)
    for k in range(610):
        first.answered(1000 + k / 10, 1000.1 + k / 10)
    for k in range(3):
        first.refused(1060.05 + k / 10, 1060.15 + k / 10, None)
    first.answered(1061.0, 1061.1)
    first.close()
    second = SharedRate(tmp_path / "r", KEY)
    slots = [second.reserve(1061.2) for _ in range(3)]
    assert slots[2] - slots[1] == pytest.approx(1 / 9.5, rel=0.03)
    later = SharedRate(tmp_path / "r", KEY)
    assert [later.reserve(1400.0) for _ in range(2)] == [1400.0, 1400.0]


def fill(state: Any, numbers: Iterator[int]) -> None:
    """Gives each field another value than the one it has from the start."""
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if dataclasses.is_dataclass(value):
            fill(value, numbers)
        elif isinstance(value, list):
            setattr(state, field.name, [next(numbers) for _ in value])
        else:
            setattr(state, field.name, type(value)(next(numbers)))


def test_every_field_is_read_as_it_was_written() -> None:
    state = shared_rate.RateState(updated_s=3.5, slot_s=4.5)
    fill(state, itertools.count(1))
    boot = os.urandom(16)
    assert shared_rate._read(shared_rate._written(state, boot), boot) == state
    assert shared_rate._read(shared_rate._written(state, boot), os.urandom(16)) == shared_rate.RateState()


def test_answers_are_noted_by_the_next_reservation(tmp_path: Path) -> None:
    rate = SharedRate(tmp_path / "r", KEY)
    empty = rate.path.read_bytes()
    rate.answered(1000.0, 1000.1)
    assert rate.path.read_bytes() == empty
    rate.reserve(1000.2)
    state = shared_rate._read(rate.path.read_bytes(), shared_rate.boot_id())
    assert state.learnt.tally.accepted_per_minute(1000.2) == 1


@pytest.mark.parametrize("damage", ["empty", "cut short", "one bit", "text", "long"])
def test_a_damaged_state_is_forgotten_without_a_burst(tmp_path: Path, damage: str) -> None:
    rate = SharedRate(tmp_path / "r", KEY, 60)
    rate.reserve(1000.0)
    written = rate.path.read_bytes()
    rate.path.write_bytes(
        {
            "empty": b"",
            "cut short": written[:100],
            "one bit": written[:50] + bytes([written[50] ^ 4]) + written[51:],
            "text": b"x" * len(written),
            "long": b"y" * 10_000,
        }[damage]
    )
    slots = [rate.reserve(1000.5) for _ in range(3)]
    assert slots == pytest.approx([1000.5 + k * 60 / (0.985 * 60) for k in range(3)])


def test_a_file_that_was_removed_is_made_again_for_all(tmp_path: Path) -> None:
    first, second = (SharedRate(tmp_path / "r", KEY, 60) for _ in range(2))
    first.path.unlink()
    assert first.reserve(1000.0) == 1000.0
    assert second.reserve(1000.0) == pytest.approx(1000.0 + 60 / (0.985 * 60))


def test_a_process_that_is_killed_with_the_lock_leaves_it(tmp_path: Path) -> None:
    rate = SharedRate(tmp_path / "r", KEY, 6000)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time\n"
            "file = os.open(sys.argv[1], os.O_RDWR)\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "os.pwrite(file, b'half', 40)\n"
            "print('locked', flush=True)\n"
            "time.sleep(60)\n",
            str(rate.path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    probe = os.open(rate.path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(probe)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert rate.reserve(1000.0) == 1000.0


def test_a_forked_process_locks_for_itself(tmp_path: Path) -> None:
    """Locks belong to an opened file, which a forked process would share with its parent."""
    rate = SharedRate(tmp_path / "r", KEY, 60)
    rate.answered(999.0, 999.5)
    first = rate.reserve(1000.0)
    parents = rate._file
    child = os.fork()
    if child == 0:
        second = rate.reserve(1000.0)
        os._exit(0 if second > first and rate._process == os.getpid() and rate._file != parents else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert rate.reserve(1000.0) == pytest.approx(first + 2 * 60 / (0.985 * 60))


def test_folder_and_file_are_private(tmp_path: Path) -> None:
    rate = SharedRate(tmp_path / "r", KEY)
    assert stat.S_IMODE(rate.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(rate.path.stat().st_mode) == 0o600
    assert "127.0.0.1" not in rate.path.name


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(PrivateFolderUnusable, match=r"open to others.*0700") as raised:
        SharedRate(folder, KEY)
    assert str(folder) in raised.value.message
    assert isinstance(raised.value, RunEnded)
    folder.chmod(0o700)
    SharedRate(folder, KEY).close()


def test_a_link_is_no_file(tmp_path: Path) -> None:
    rate = SharedRate(tmp_path / "r", KEY)
    rate.close()
    rate.path.unlink()
    rate.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrivateFolderUnusable):
        SharedRate(tmp_path / "r", KEY)
    assert not (tmp_path / "elsewhere").exists()


def test_endpoints_have_paces_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = "projects/P/locations/L/endpoints/E"
    one, same, other = (
        SharedRate.of(EndpointSettings(name=name, host=host, max_requests_per_minute=60))
        for host in ("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:10")
    )
    assert one.path == same.path != other.path
    assert one.reserve(5.0) == 5.0
    assert same.reserve(5.0) > 6.0


def test_it_is_not_pickled(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="belongs to its process"):
        pickle.dumps(SharedRate(tmp_path / "r", KEY))
