"""Decoding in processes of their own gives what decoding here gives, and leaves nothing behind."""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.clip import Clip
from audio.clips import ClipSettings
from audio.decoders import Decoders, Decoding
from audio.errors import ChangedFile, StorageError
from audio.fetch import local_version
from audio.recording import Recording, Segment, Take
from tests.audio.fake_tensorflow import WORKS, install
from tests.audio.makers import amr, amr_speech, encode, int16, noise, sound_file, wav

RATE_HZ = 16_000
TWO_CHANNELS = wav(noise(5 * RATE_HZ, 2))


def recordings() -> dict[str, bytes]:
    """One of every kind, whole, odd and broken."""
    stereo = noise(5 * 44_100, 2)
    made = {
        "wav": wav(stereo, 44_100),
        "wav24": sound_file(stereo, 44_100, "WAV", "PCM_24"),
        "float": sound_file(stereo, 44_100, "WAV", "FLOAT"),
        "flac": sound_file(stereo, 44_100, "FLAC"),
        "aiff": sound_file(stereo, 44_100, "AIFF"),
        "vorbis": sound_file(stereo, 44_100, "OGG", "VORBIS"),
        "mp3": encode(stereo, 44_100, "mp3", "libmp3lame"),
        "m4a": encode(stereo, 44_100, "ipod", "aac"),
        "opus": encode(noise(5 * 48_000), 48_000, "ogg", "libopus"),
        "webm": encode(noise(5 * 48_000), 48_000, "webm", "libopus"),
        "amr": amr(*[amr_speech(seed) for seed in range(200)]),
        "empty": b"",
        "text": b"this is no recording\n" * 100,
        "not a number": sound_file(np.full((3 * RATE_HZ, 1), np.nan, np.float32), RATE_HZ, "WAV", "FLOAT"),
        "silence": wav(np.zeros((3 * RATE_HZ, 1))),
        "short": wav(noise(100)),
    }
    flac, m4a = made["flac"], made["m4a"]
    return made | {
        "cut wav": made["wav"][:300_000],
        "cut m4a": m4a[: len(m4a) // 2],
        "damaged flac": flac[:200_000] + bytes(1_000) + flac[201_000:],
    }


RECORDINGS = recordings()


def described(decoding: Decoding) -> list[Any]:
    """All that came out of a recording, in a form that can be compared."""
    made: list[Any] = []
    for result in decoding:
        if isinstance(result, Clip):
            assert result.samples.flags.owndata
            assert (result.samples.shape, result.samples.dtype) == ((32_000,), np.float32)
            made.append([getattr(result, name) for name in Clip.__slots__ if name != "samples"])
            made.append(result.samples.tobytes())
        else:
            made.append(result)
    error = decoding.error
    made += [type(error), error and error.message, getattr(error, "first_s", None), decoding.error_s]
    made += [decoding.info, list(decoding.failed_takes)]
    return made


def segment(uri: str = "a recording", takes: tuple[Take, ...] = (), **part: Any) -> Segment:
    return Segment(Recording(uri, "", 0), takes, **part)


def on_disk(folder: Path, data: bytes, name: str = "recording") -> Segment:
    path = folder / name
    path.write_bytes(data)
    return Segment(Recording(os.fspath(path), local_version(path.stat()), len(data)))


def open_files() -> list[str]:
    """The numbers of this process's descriptors."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    for _ in range(500):
        if not any(map(is_running, pids)):
            return
        time.sleep(0.02)
    raise AssertionError(f"still running: {pids}")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(ClipSettings(), 1) as pool:
        yield pool


@pytest.fixture(scope="module")
def here() -> Decoders:
    return Decoders(ClipSettings(), 0)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_process_gives_what_decoding_here_gives(
    name: str, decoders: Decoders, here: Decoders, tmp_path: Path
) -> None:
    data = RECORDINGS[name]
    expected = described(here.decode(segment(), data))
    on_its_disk = on_disk(tmp_path, data)
    assert described(decoders.decode(segment(), data)) == expected
    assert described(decoders.decode(segment(), io.BytesIO(data))) == expected
    assert described(decoders.decode(on_its_disk)) == expected
    assert described(here.decode(on_its_disk)) == expected


def test_takes_parts_and_settings_reach_the_process(tmp_path: Path) -> None:
    settings = ClipSettings(hop_s=0.5, min_rms_dbfs=-20.0, event_context="zeros")
    data = wav(noise(310 * RATE_HZ, 2))
    takes = (Take("1"), Take("each", 30_000, 40_000), Take("mean", 5_000_000, 5_000_100), Take("7", 0, 9_000))
    with Decoders(settings, 1) as pool:
        here = Decoders(settings, 0)
        failed = []
        for part in ({}, {"start_s": 300}, {"stop_s": 300}):
            asked = segment(takes=tuple(sorted(takes, key=str)), **part)
            expected = described(here.decode(asked, data))
            assert described(pool.decode(asked, data)) == expected
            failed.append(expected[-1])
    assert [take.code for take in failed[0]] == ["no_such_channel", "event_beyond_end"]


def test_the_resampler_reaches_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, WORKS)
    samples = noise(2 * 48_000)
    with Decoders(ClipSettings(resampler="tensorflow_io"), 1) as pool:
        (clip,) = [clip for clip in pool.decode(segment(), wav(samples, 48_000)) if isinstance(clip, Clip)]
    third = int16(samples)[::3, 0] / np.float32(32768)
    np.testing.assert_array_equal(clip.samples, third)


def test_the_source_is_known_from_the_first_clip_on(decoders: Decoders, here: Decoders) -> None:
    for pool in (decoders, here):
        decoding = pool.decode(segment(), TWO_CHANNELS)
        with pytest.raises(RuntimeError, match="nothing has been decoded"):
            _ = decoding.source
        next(decoding)
        assert (decoding.source.rate_hz, decoding.source.channels, decoding.source.codec) == (16_000, 2, "pcm_s16le")
        assert decoding.info is None
        decoding.close()
        assert list(decoding) == []


@pytest.mark.parametrize("processes", [0, 1])
def test_a_file_that_cannot_be_opened_is_the_recordings_error(processes: int, tmp_path: Path) -> None:
    with Decoders(ClipSettings(), processes) as pool:
        changed = on_disk(tmp_path, TWO_CHANNELS)
        changed = changed._replace(recording=changed.recording._replace(version="another"))
        codes = []
        for wanted in (changed, segment(os.fspath(tmp_path / "none")), segment(os.fspath(tmp_path))):
            decoding = pool.decode(wanted)
            assert list(decoding) == []
            assert decoding.error is not None
            codes.append(decoding.error.code)
    assert codes == ["changed_file", "missing_file", "not_a_regular_file"]


def test_a_path_need_not_be_text_and_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x8e\xb5")
    wanted = on_disk(Path(), TWO_CHANNELS, name)
    assert wanted.recording.uri == name
    with Decoders(ClipSettings(), 1) as pool:
        assert len(list(pool.decode(wanted))) == 3


class FailingFile(io.BytesIO):
    """Fails when it is read beyond some point."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__(data)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 100_000:
            raise self._error
        return super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (StorageError("the storage failed"), StorageError),
        (ChangedFile("it was replaced"), ChangedFile),
        (OSError("x"), StorageError),
    ],
)
def test_what_reading_raises_is_the_recordings_error(processes: int, raised: Exception, kind: type) -> None:
    data = wav(noise(600 * RATE_HZ))
    with Decoders(ClipSettings(), processes) as pool:
        decoding = pool.decode(segment(), FailingFile(data, raised))
        list(decoding)
        assert type(decoding.error) is kind
        if not isinstance(raised, OSError):
            assert decoding.error.message == str(raised)
        assert len(list(pool.decode(segment(), TWO_CHANNELS))) == 3


def test_a_large_file_of_the_parents_is_read_in_pieces(decoders: Decoders, here: Decoders) -> None:
    data = wav(noise(120 * RATE_HZ, 2))
    sizes = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return super().read(size)

    assert described(decoders.decode(segment(), Counted(data))) == described(here.decode(segment(), data))
    assert len(sizes) <= 3 + len(data) / (1 << 20) * 2
    assert max(sizes) <= 1 << 20  # type: ignore[type-var]


def test_jobs_get_processes_in_their_order_and_processes_are_used_again(here: Decoders) -> None:
    expected = described(here.decode(segment(), TWO_CHANNELS))
    with Decoders(ClipSettings(), 2) as pool:
        assert pool.pids == []
        ahead = [pool.decode(segment(), TWO_CHANNELS) for _ in range(6)]
        assert [described(decoding) for decoding in ahead] == [expected] * 6
        assert len(pool.pids) == 2


def test_several_threads_share_a_pool(here: Decoders) -> None:
    expected = described(here.decode(segment(), TWO_CHANNELS))
    equal: list[bool] = []

    def work(pool: Decoders) -> None:
        for _ in range(4):
            ahead = [pool.decode(segment(), TWO_CHANNELS) for _ in range(3)]
            equal.extend(described(decoding) == expected for decoding in ahead)

    with Decoders(ClipSettings(), 2) as pool:
        threads = [threading.Thread(target=work, args=[pool]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert equal == [True] * 48


def test_a_decoding_that_is_given_up_makes_room(decoders: Decoders) -> None:
    first, second, third = (decoders.decode(segment(), wav(noise(100 * RATE_HZ))) for _ in range(3))
    next(first)
    second.close()
    first.close()
    assert len(list(third)) == 50


def test_closing_with_work_outstanding_leaves_nothing(tmp_path: Path) -> None:
    before = open_files()
    pool = Decoders(ClipSettings(), 2)
    ahead = [pool.decode(segment(), wav(noise(100 * RATE_HZ))) for _ in range(3)]
    next(ahead[0])
    pids = pool.pids
    assert len(pids) == 2
    pool.close()
    for decoding in ahead:
        with pytest.raises(RuntimeError, match="closed"):
            next(decoding)
        assert list(decoding) == []
    with pytest.raises(RuntimeError, match="closed"):
        pool.decode(segment(), TWO_CHANNELS)
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert open_files() == before


def test_a_pool_that_is_closed_on_another_thread_wakes_those_that_wait() -> None:
    pool = Decoders(ClipSettings(), 1, module="tests.audio.planted_child")
    from tests.audio.planted_child import planted

    first, second = pool.decode(segment(), planted("c-hang", 1, TWO_CHANNELS)), pool.decode(segment(), TWO_CHANNELS)
    raised = []

    def wait(decoding: Decoding) -> None:
        try:
            for _ in decoding:  # what came before, if anything did
                pass
        except RuntimeError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=wait, args=[decoding]) for decoding in (first, second)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    pool.close()
    for thread in threads:
        thread.join(10)
    assert raised == ["the decoders were closed"] * 2


def test_an_interruption_leaves_a_pool_that_can_be_used_and_closed() -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 100:
                raise KeyboardInterrupt
            return super().read(size)

    with Decoders(ClipSettings(), 1) as pool:
        decoding = pool.decode(segment(), Interrupted(wav(noise(600 * RATE_HZ))))
        with pytest.raises(KeyboardInterrupt):
            list(decoding)
        assert list(decoding) == []
        assert len(list(pool.decode(segment(), TWO_CHANNELS))) == 3


def test_objects_are_opened_by_the_caller(decoders: Decoders) -> None:
    with pytest.raises(ValueError, match="opened by the caller"):
        decoders.decode(segment("gs://bucket/name"))
    with pytest.raises(ValueError, match="processes is -1"):
        Decoders(ClipSettings(), -1)


PARENT = """
import sys, time
from audio.clips import ClipSettings
from audio.decoders import Decoders
from audio.recording import Recording, Segment
from tests.audio.makers import noise, wav
from tests.audio.planted_child import planted
pool = Decoders(ClipSettings(), 3, module="tests.audio.planted_child")
data = wav(noise(100 * 16_000))
segment = Segment(Recording("x", "", 0))
jobs = [pool.decode(segment, made) for made in (data[:200_000], data, planted("slow", 2, data))]
list(jobs[0]); next(jobs[1]); next(jobs[2])
print(*pool.pids, flush=True)
time.sleep(60)
"""


def test_processes_vanish_with_their_parent_however_it_ends() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "A_TOKEN": "secret"}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        for pid in pids:
            assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            # Three nowhere, the two pipes of its own, the memory for recordings and the one for samples.
            assert sum(link == os.devnull for link in links) == 3
            assert sum(link.startswith("pipe:") for link in links) == 2
            assert sum("memfd" in link for link in links) == 2
            modules = Path(f"/proc/{pid}/maps").read_text()
            assert "grpc" not in modules
        parent.kill()
        parent.wait()
        wait_until_gone(pids)
