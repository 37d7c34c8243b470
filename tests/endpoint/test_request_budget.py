"""The count of a run's requests: exact for all who draw from it, and never forgotten in the wrong direction."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from endpoint.errors import RequestCountLost, RunEnded
from endpoint.private_folder import PrivateFolderUnusable
from endpoint.request_budget import LocalBudget, RequestBudget, SharedBudget
from endpoint.settings import EndpointSettings
from endpoint.shared_rate import SharedRate
from tests.endpoint import official

REPOSITORY = Path(__file__).resolve().parents[2]


def begun(folder: Path, limit: int, key: str = "run") -> SharedBudget:
    budget = SharedBudget(folder, key, limit)
    budget.begin()
    return budget


def take_all(budget: RequestBudget) -> int:
    """Takes until there is no more; how many there were."""
    count = 0
    while budget.take():
        count += 1
    return count


def take_and_note(budget: RequestBudget, counts: list[int]) -> None:
    counts.append(take_all(budget))


def refuses_all(budget: SharedBudget, words: str, kind: type[RunEnded] = RequestCountLost) -> bool:
    """Whether both questions are answered by the error."""
    for ask in (budget.take, budget.left):
        with pytest.raises(kind, match=words):
            ask()
    return True


def both(limit: int, tmp_path: Path) -> list[RequestBudget]:
    return [LocalBudget(limit), begun(tmp_path / "r", limit)]


def test_so_many_may_be_taken_and_no_more(tmp_path: Path) -> None:
    for budget in both(3, tmp_path):
        assert [(budget.left(), budget.take()) for _ in range(5)] == [
            (3, True),
            (2, True),
            (1, True),
            (0, False),
            (0, False),
        ]
        assert budget.limit == 3


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit: int, tmp_path: Path) -> None:
    for make in (LocalBudget, lambda limit: SharedBudget(tmp_path, "run", limit)):
        with pytest.raises(ValueError, match=f"{limit}: expected"):
            make(limit)


def test_threads_take_each_once(tmp_path: Path) -> None:
    for budget in both(400, tmp_path):
        counts: list[int] = []
        take = partial(take_and_note, budget, counts)
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) == 400


def test_processes_take_each_once(tmp_path: Path) -> None:
    begun(tmp_path / "r", 3000)
    code = (
        "import sys\n"
        "from endpoint.request_budget import SharedBudget\n"
        "budget = SharedBudget(sys.argv[1], 'run', 3000)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "count = 0\n"
        "while budget.take():\n"
        "    count += 1\n"
        "print(count)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], cwd=REPOSITORY, text=True, **pipes)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == 3000
    assert min(counts) > 0


def test_a_forked_process_draws_from_the_same_count(tmp_path: Path) -> None:
    budget = begun(tmp_path / "r", 5)
    assert budget.take()
    child = os.fork()
    if child == 0:
        os._exit(take_all(budget))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 4
    assert not budget.take()


def test_runs_have_counts_of_their_own(tmp_path: Path) -> None:
    one, other = (begun(tmp_path / "r", 2, key) for key in ("one", "other"))
    assert take_all(one) == take_all(other) == 2


def test_each_process_keeps_to_its_own_limit_of_the_one_count(tmp_path: Path) -> None:
    assert take_all(begun(tmp_path / "r", 5)) == 5
    assert SharedBudget(tmp_path / "r", "run", 3).left() == 0
    assert take_all(SharedBudget(tmp_path / "r", "run", 7)) == 2


def test_a_count_that_has_begun_goes_on(tmp_path: Path) -> None:
    first = begun(tmp_path / "r", 5)
    assert first.take()
    assert begun(tmp_path / "r", 5).left() == 4
    assert [path.name for path in (tmp_path / "r").iterdir()] == [first.path.name]


def test_of_many_that_begin_at_once_none_starts_anew(tmp_path: Path) -> None:
    counts: list[int] = []

    def begin_and_take() -> None:
        counts.append(sum(begun(tmp_path / "r", 50).take() for _ in range(20)))

    threads = [threading.Thread(target=begin_and_take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 50


# What is lost


def test_nothing_is_sent_before_the_count_has_begun(tmp_path: Path) -> None:
    budget = SharedBudget(tmp_path / "r", "run", 5)
    assert refuses_all(budget, "is missing")
    with pytest.raises(RequestCountLost, match="--max_requests 5") as raised:
        budget.take()
    assert str(budget.path) in raised.value.message
    assert not budget.path.exists()


def unlink(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def link(path: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [(unlink, "is missing"), (remove_folder, "is missing"), (link, "cannot be used"), (make_folder, "cannot be used")],
)
def test_a_count_that_is_gone_lets_no_more_out(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    budget, other = begun(tmp_path / "r", 5), SharedBudget(tmp_path / "r", "run", 5)
    assert budget.take()
    change(budget.path)
    assert refuses_all(budget, words)
    assert refuses_all(other, words)


@pytest.mark.parametrize("damage", ["empty", "cut short", "zeros", "text", "long"])
def test_a_damaged_count_lets_no_more_out_nor_is_it_begun_anew(tmp_path: Path, damage: str) -> None:
    budget = begun(tmp_path / "r", 5)
    assert budget.take()
    written = budget.path.read_bytes()
    budget.path.write_bytes(
        {
            "empty": b"",
            "cut short": written[:-1],
            "zeros": bytes(len(written)),
            "text": b"x" * len(written),
            "long": written + b"\0",
        }[damage]
    )
    assert refuses_all(budget, "is damaged")
    assert refuses_all(begun(tmp_path / "r", 5), "is damaged")


def test_every_bit_that_flips_is_noticed(tmp_path: Path) -> None:
    budget = begun(tmp_path / "r", 5)
    written = budget.path.read_bytes()
    for bit in range(8 * len(written)):
        flipped = int.from_bytes(written, "little") ^ (1 << bit)
        budget.path.write_bytes(flipped.to_bytes(len(written), "little"))
        assert refuses_all(budget, "is damaged")
    budget.path.write_bytes(written)
    assert budget.left() == 5


def test_what_cannot_be_counted_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = begun(tmp_path / "r", 5)

    def full(file: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(RequestCountLost, match="No space left"):
            budget.take()
        patch.setattr(os, "pwrite", lambda _file, data, _offset: len(data) - 1)
        with pytest.raises(RequestCountLost, match="cannot be written"):
            budget.take()
    assert budget.left() == 5


def test_a_process_that_is_killed_with_the_lock_leaves_it_and_the_count(tmp_path: Path) -> None:
    budget = begun(tmp_path / "r", 5)
    assert budget.take()
    code = (
        "import fcntl, os, sys, time\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(budget.path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    file = os.open(budget.path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(file)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert take_all(budget) == 4


# Where it is kept


def test_folder_and_file_are_private(tmp_path: Path) -> None:
    path = begun(tmp_path / "r", 5, "20260101T000000Z-abcdef").path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert "abcdef" not in path.name


def test_an_open_folder_is_refused_at_first_and_later(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(PrivateFolderUnusable, match=r"number of requests.*open to others.*0700") as raised:
        begun(folder, 5)
    assert str(folder) in raised.value.message
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    budget = begun(folder, 5)
    folder.chmod(0o750)
    assert refuses_all(budget, "open to others", PrivateFolderUnusable)
    folder.chmod(0o700)
    assert budget.left() == 5


def test_a_folder_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(PrivateFolderUnusable, match="somebody else"):
        begun(tmp_path / "r", 5)


def test_a_folder_that_holds_no_files_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(PrivateFolderUnusable, match=r"cannot hold a file \(No space left"):
        begun(tmp_path / "r", 5)
    assert list((tmp_path / "r").iterdir()) == []


def test_counts_that_nobody_has_used_for_a_day_are_removed(tmp_path: Path) -> None:
    old, recent = begun(tmp_path / "r", 5, "old"), begun(tmp_path / "r", 5, "recent")
    rate = SharedRate(tmp_path / "r", "an endpoint", 60)
    rate.close()
    for path, age_s in ((old.path, 90_000), (recent.path, 80_000), (rate.path, 90_000)):
        os.utime(path, (time.time() - age_s,) * 2)
    begun(tmp_path / "r", 5)
    assert [path.exists() for path in (old.path, recent.path, rate.path)] == [False, True, True]
    assert refuses_all(old, "is missing")


def test_a_count_that_is_used_is_not_old(tmp_path: Path) -> None:
    budget = begun(tmp_path / "r", 5, "old")
    os.utime(budget.path, (time.time() - 90_000,) * 2)
    assert budget.take()
    begun(tmp_path / "r", 5)
    assert budget.left() == 4


def test_settings_name_the_run_and_its_limit() -> None:
    settings = EndpointSettings(official.NAME, "127.0.0.1:9", max_requests=4, run_id="of the settings")
    budget = SharedBudget.of(settings)
    budget.begin()
    assert take_all(SharedBudget.of(settings)) == 4
    assert not budget.take()
