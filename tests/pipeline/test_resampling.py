"""Whether the resampler works is found out in a process of its own, before the run."""

import sys
from pathlib import Path

import pytest

from pipeline import resampling
from pipeline.command import WRONG_USAGE, main
from pipeline.resampling import check_resampler
from pipeline.usage import UsageError
from tests.audio.fake_tensorflow import FAILS, WORKS, install
from tests.pipeline.commands import whole


def test_a_resampler_that_works_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, WORKS)
    check_resampler("tensorflow_io")


def test_soxr_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    check_resampler("soxr")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (FAILS, r"a tone cannot be resampled: NotImplementedError \(tensorflow-io"),
        ("return late(samples, delay=31)", r"a tone comes out as another than with tensorflow-io 0\.37\.1"),
        ("os.abort()", r"it ends its process \(SIGABRT\)"),
        ("os._exit(7)", r"it ends its process \(it ended with status 7\)"),
        ("time.sleep(3600)", r"no tone was resampled within 1 s"),
    ],
)
def test_one_that_does_not_is_refused_with_why_and_what_is_needed(
    body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "_PATIENCE_S", 1 if "sleep" in body else 60)
    install(tmp_path, monkeypatch, body)
    with pytest.raises(UsageError, match=why) as refused:
        check_resampler("tensorflow_io")
    assert "--resampler is 'tensorflow_io'" in str(refused.value)
    assert sys.executable in str(refused.value)
    assert "requirements-tfio.txt: run make tfio" in str(refused.value)


def test_where_no_process_can_be_started_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(UsageError, match=r"no process can be started that tries it \(No such file"):
        check_resampler("tensorflow_io")


def test_the_command_refuses_it_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "packages", monkeypatch, FAILS)
    assert main(whole(tmp_path, resampler="tensorflow_io")) == WRONG_USAGE
    said = capsys.readouterr().err
    assert said.startswith("python -m pipeline: error: --resampler is 'tensorflow_io'")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
