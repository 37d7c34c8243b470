"""Files that crash, hang or bloat a decoder cost themselves, not the run."""

import io
import os
import signal
import time
from pathlib import Path

import pytest

from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.decoders import Decoders, DecodersUnusable, Decoding
from audio.recording import Take
from tests.audio.fake_tensorflow import FAILS, install
from tests.audio.makers import noise, sound_file, wav
from tests.audio.planted_child import planted
from tests.audio.test_decoders import RATE_HZ, open_files, segment, wait_until_gone

PLANTED = "tests.audio.planted_child"
WAV = wav(noise(9 * RATE_HZ))
"""Five clips."""
LIMITS = DecoderLimits(idle_s=1.0, memory_bytes=256 << 20)


def pool_of(processes: int = 1, limits: DecoderLimits = LIMITS) -> Decoders:
    return Decoders(ClipSettings(), processes, limits, module=PLANTED)


def outcome(decoding: Decoding) -> tuple[int, str | None]:
    clips = len(list(decoding))
    return clips, decoding.error.code if decoding.error else None


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("segv", "decoder_crashed", "SIGSEGV"),
        ("exit", "decoder_crashed", "status 3"),
        ("killed", "decoder_memory", "was killed"),
        ("python-loop", "decoder_timeout", "no further"),
        ("regex", "decoder_timeout", "no further"),
        ("c-hang", "decoder_timeout", "no further"),
        ("garbage", "decoder_crashed", "what no decoder says"),
        ("not-json", "decoder_crashed", "what no decoder says"),
        ("huge", "decoder_crashed", "what no decoder says"),
        ("end-of-another-form", "decoder_crashed", "what no decoder says"),
    ],
)
def test_a_file_costs_itself_only(what: str, code: str, says: str) -> None:
    with pool_of() as pool:
        assert outcome(pool.decode(segment(), WAV)) == (5, None)
        (first,) = pool.pids
        bad, good = pool.decode(segment(), planted(what, 3, WAV)), pool.decode(segment(), WAV)
        assert outcome(bad) == (3, code)
        assert bad.error is not None
        assert says in bad.error.message
        assert "convert" in bad.error.message
        assert bad.error_s == 6.0
        assert bad.info is not None
        assert (bad.info.codec, bad.info.source_rate_hz) == ("pcm_s16le", RATE_HZ)
        assert outcome(good) == (5, None)
        assert first not in pool.pids
        assert not Path(f"/proc/{first}").exists()


def test_a_file_that_needs_more_memory_than_it_may_have() -> None:
    large = sound_file(noise(3 * 96_000, 60), 96_000, "WAV", "DOUBLE")
    with pool_of(limits=DecoderLimits(memory_bytes=16 << 20)) as pool:
        assert outcome(pool.decode(segment(takes=(Take("mean"),)), WAV)) == (5, None)
        (first,) = pool.pids
        for bad in (large, planted("memory", 3, WAV)):
            decoding = pool.decode(segment(takes=(Take("each"),)), bad)
            assert outcome(decoding) == (0 if bad is large else 3, "decoder_memory")
            assert decoding.error is not None
            assert "more memory than it may" in decoding.error.message
            assert outcome(pool.decode(segment(), WAV)) == (5, None)
            assert first not in pool.pids


def test_a_crash_before_the_first_clip() -> None:
    with pool_of() as pool:
        for _ in range(2):
            bad = pool.decode(segment(), planted("segv", 0, WAV))
            assert outcome(bad) == (0, "decoder_crashed")
            assert (bad.info, bad.error_s) == (None, None)
            assert outcome(pool.decode(segment(), WAV)) == (5, None)


def test_a_process_that_jobs_before_have_spoilt_is_no_fault_of_the_file() -> None:
    with pool_of() as pool:
        spoilt = planted("segv-if-used", 0, WAV)
        assert outcome(pool.decode(segment(), WAV)) == (5, None)
        assert outcome(pool.decode(segment(), spoilt)) == (5, None)
        assert outcome(pool.decode(segment(), io.BytesIO(spoilt))) == (5, None)
        assert outcome(pool.decode(segment(), planted("segv-if-used", 1, WAV))) == (1, "decoder_crashed")


def test_a_process_that_dies_while_idle_is_replaced_unnoticed() -> None:
    with pool_of() as pool:
        assert outcome(pool.decode(segment(), WAV)) == (5, None)
        for _ in range(2):
            (pid,) = pool.pids
            os.kill(pid, signal.SIGKILL)
            wait_until_gone([pid])
            assert outcome(pool.decode(segment(), WAV)) == (5, None)
            assert pid not in pool.pids


def test_a_process_that_stays_bloated_is_replaced() -> None:
    with pool_of() as pool:
        assert outcome(pool.decode(segment(), WAV)) == (5, None)
        (pid,) = pool.pids
        assert outcome(pool.decode(segment(), planted("bloat", 3, WAV))) == (5, None)
        assert pool.pids == []
        assert outcome(pool.decode(segment(), WAV)) == (5, None)
        assert pool.pids != [pid]


def test_what_libraries_print_does_not_get_among_the_messages() -> None:
    with pool_of() as pool:
        assert outcome(pool.decode(segment(), planted("noise", 1, WAV))) == (5, None)


def test_a_slow_consumer_is_not_a_slow_decoder() -> None:
    limits = DecoderLimits(idle_s=0.5)
    long = wav(noise(60 * RATE_HZ))
    with pool_of(limits=limits) as pool:
        ahead = [pool.decode(segment(), source) for source in (long, io.BytesIO(long))]
        for decoding in ahead:
            next(decoding)
            time.sleep(1.2)
            assert outcome(decoding) == (29, None)


def test_a_slow_file_is_not_a_slow_decoder() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.3)
            return super().read(size)

    with pool_of(limits=DecoderLimits(idle_s=0.5)) as pool:
        assert outcome(pool.decode(segment(), Slow(wav(noise(60 * RATE_HZ))))) == (30, None)


def test_slow_progress_is_progress() -> None:
    with pool_of(limits=DecoderLimits(idle_s=0.3)) as pool:
        decoding = pool.decode(segment(), planted("slow", 1, WAV))
        assert outcome(decoding) == (5, None)


def test_a_process_that_hangs_up_and_lives_on_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio.decoder_process._END_S", 0.1)
    with pool_of(limits=DecoderLimits(idle_s=30)) as pool:
        bad = pool.decode(segment(), planted("hang-up", 2, WAV))
        assert outcome(bad) == (2, "decoder_crashed")
        assert outcome(pool.decode(segment(), WAV)) == (5, None)


def test_the_parent_loses_patience_where_the_timer_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(limits=DecoderLimits(idle_s=60)) as pool:
        bad = pool.decode(segment(), planted("c-hang", 3, WAV))
        next(iter(pool._processes))._patience_s = 2.0
        assert outcome(bad) == (3, "decoder_timeout")
        assert outcome(pool.decode(segment(), WAV)) == (5, None)


def test_ctrl_c_is_the_parents() -> None:
    with pool_of() as pool:
        decoding = pool.decode(segment(), wav(noise(60 * RATE_HZ)))
        next(decoding)
        os.kill(pool.pids[0], signal.SIGINT)
        assert outcome(decoding) == (29, None)


@pytest.mark.parametrize(
    ("module", "says"),
    [("no_such_module", "No module named 'no_such_module'"), ("tests.audio.unstartable", "there is no such library")],
)
def test_processes_that_cannot_work_end_the_run(module: str, says: str) -> None:
    with Decoders(ClipSettings(), 1, module=module) as pool:
        ahead = [pool.decode(segment(), WAV) for _ in range(2)]
        for decoding in ahead:
            with pytest.raises(DecodersUnusable, match=says):
                next(decoding)
            assert decoding.error is None
            assert list(decoding) == []
        assert pool.pids == []


def test_processes_whose_resampler_does_not_work_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, FAILS)
    with Decoders(ClipSettings(resampler="tensorflow_io"), 1) as pool:
        decoding = pool.decode(segment(), WAV)
        with pytest.raises(DecodersUnusable, match="a tone cannot be resampled: NotImplementedError"):
            next(decoding)


def test_processes_that_cannot_be_started_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    before = open_files()
    with Decoders(ClipSettings(), 1) as pool:
        ahead = [pool.decode(segment(), WAV) for _ in range(2)]
        for decoding in ahead:
            with pytest.raises(DecodersUnusable, match="No such file"):
                next(decoding)
    assert open_files() == before


@pytest.mark.parametrize(
    ("limits", "says"), [({"idle_s": 0}, "idle_s is 0"), ({"memory_bytes": 0}, "memory_bytes is 0")]
)
def test_limits_are_checked(limits: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DecoderLimits(**limits)
