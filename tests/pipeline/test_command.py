"""The command from within: what it prints, what it leaves, and its exit status. `tests/e2e` runs it from outside."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import __main__, execution, planned
from pipeline.command import DONE, FAILED, main
from pipeline.launch import RunFailed
from pipeline.stopping import INTERRUPTED
from tests.pipeline.commands import settings, whole
from tests.transforms.samples import write_wav
from transforms.sum_up import summarise


def test_a_run_ends_with_its_summary_on_the_terminal_and_in_its_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "in" / "b.wav", 5.0)
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    assert main(whole(tmp_path, input=str(tmp_path / "in"), model_id="mine/v1:2")) == DONE
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    assert "mine/v1:2" in out
    assert "notes.txt" in out
    summary = json.loads((tmp_path / "out" / "r-summary.json").read_text())
    assert (summary["recordings"], summary["clips"], summary["embedded"], summary["requests"]) == (1, 3, 3, 1)
    assert summary["files"] == sorted(str(path) for path in (tmp_path / "out").glob("r-*-of-*"))
    assert all(file in out for file in summary["files"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(Path(file).name for file in summary["files"]),
        "r-summary.json",
        "r-checkpoint",
    }


def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, **changes: str) -> dict[str, Any]:
    assert main([*whole(tmp_path, **changes), "--plan", *more]) == DONE
    return json.loads(capsys.readouterr().out)


def test_a_plan_counts_what_a_run_would_take_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_wav(tmp_path / "in" / f"{name}.wav", 1.0)
    (tmp_path / "in" / "aa-lost.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    told = plan(tmp_path, capsys, "--limit=3", f"--input={tmp_path}/in/a.wav")
    assert (told["recordings"], told["size_bytes"]) == (2, 2 * (44 + 32000))
    assert (told["first"], told["last"]) == (f"{tmp_path}/in/a.wav", f"{tmp_path}/in/b.wav")
    assert told["not_readable"] == {f"{tmp_path}/in/aa-lost.wav": "missing_file"}
    assert told["ignored_files"] == 1
    assert not (tmp_path / "out").exists()


def test_a_plan_says_where_audio_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "stand-in, not HeAR" in plan(tmp_path, capsys)["audio_goes_to"]
    told = plan(tmp_path, capsys, endpoint="research")
    assert told["audio_goes_to"] == (
        "projects/4016704501/locations/us-west1/endpoints/200 at us-west1-aiplatform.googleapis.com"
    )
    assert told["model_id"] == "hear"


def test_a_plan_says_which_job_a_batch_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"send": "batch", "endpoint": "research", "staging_location": "gs://bucket/x", "batch_project": "mine"}
    # Not by the command, which looks for credentials first.
    told = planned.plan(settings(tmp_path, **batch, batch_accelerator_count="2", batch_max_replicas="5"))
    assert told["audio_goes_to"] == (
        "projects/4016704501/locations/us-west1/models/220 at us-west1-aiplatform.googleapis.com"
    )
    assert told["batch"] == {
        "step": "write, wait for the job, join",
        "model": "projects/4016704501/locations/us-west1/models/220",
        "project": "mine",
        "machine_type": "n1-standard-8",
        "accelerator": "2 x NVIDIA_TESLA_V100",
        "replicas": [None, 5],
    }
    assert plan(tmp_path, capsys)["batch"] is None


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RunFailed("the endpoint is gone"), FAILED, "the endpoint is gone"),
        (
            KeyboardInterrupt(),
            INTERRUPTED,
            "interrupted: what was answered is in the checkpoint; the same command goes on from there",
        ),
    ],
)
def test_a_run_that_ends_early_is_one_line_and_a_status(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def launch(*_: object) -> None:
        raise error

    monkeypatch.setattr(execution, "launch", launch)
    arguments = whole(tmp_path, endpoint="projects/p/locations/l/endpoints/1", endpoint_host="127.0.0.1:9")
    assert main([*arguments, "--no_probe"]) == status
    assert capsys.readouterr().err == f"python -m pipeline: error: {said}\n"
    (noted,) = (tmp_path / "out" / "r-checkpoint").glob("*/run.json")
    assert json.loads(noted.read_text())["endpoint"] == "projects/p/locations/l/endpoints/1"


def test_a_run_with_too_many_failures_is_finished_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(run: Any, *_: object) -> None:
        counts = {"recordings": 2, "recordings/embedded": 1, "recordings/failed": 1, "clips": 1, "embedded": 1}
        summary = summarise(counts, [], {"model_id": "m", "files": [], "tables": []})
        Path(run.summary_path).write_text(json.dumps(summary))

    monkeypatch.setattr(execution, "launch", launch)
    arguments = whole(tmp_path, endpoint="projects/p/locations/l/endpoints/1", endpoint_host="127.0.0.1:9")
    assert main([*arguments, "--no_probe", "--overwrite", "--max_failure_fraction=0.5"]) == DONE
    assert main([*arguments, "--no_probe", "--overwrite", "--max_failure_fraction=0.4"]) == FAILED
    assert "1 of 2 recordings have failures" in capsys.readouterr().err


def test_ctrl_c_while_packages_are_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class CtrlC:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "pipeline.command":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "pipeline.command")
    monkeypatch.setattr(sys, "meta_path", [CtrlC(), *sys.meta_path])
    assert __main__.main() == INTERRUPTED
    assert capsys.readouterr().err == "python -m pipeline: error: interrupted before anything was sent\n"
