"""How a run ends early: known errors are one line, without a stack trace anywhere; unknown ones are raised as they are."""

import logging
import os
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from audio.decoder_process import DecodersUnusable
from audio.listing import ListingError
from audio.manifest_file import ManifestError
from endpoint.errors import ClientClosed, RunEnded
from pipeline import launch as launching
from pipeline.beam_options import parse_beam_flags
from pipeline.launch import Build, RunFailed, launch, running_endpoint
from pipeline.settings import RunSettings
from rows.store import StoreError
from rows.writer import CheckpointWriteError
from tests.pipeline.commands import settings
from transforms.choose_rows import LostClip


class Fail(beam.DoFn):
    """Ends the run."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def process(self, element: None) -> None:
        raise self._error


def graph_that_fails(error: Exception) -> Build:
    def build(pipeline: beam.Pipeline) -> None:
        pipeline | beam.Create([None]) | beam.ParDo(Fail(error))

    return build


def launch_failing(error: Exception, tmp_path: Path, options: PipelineOptions | None = None) -> None:
    """Launches a run whose graph raises `error` in a worker."""
    launch(settings(tmp_path), options or parse_beam_flags([], local_endpoint=True), graph_that_fails(error))


@pytest.fixture
def logged() -> "Lines":
    """What the command's handler of the root logger prints, stack traces included."""
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


KNOWN = [
    RunEnded("Endpoint projects/p at 127.0.0.1:1 does not exist there; check its project (NOT_FOUND)."),
    ClientClosed("The client was closed."),
    CheckpointWriteError("cannot write to the checkpoint '/full' (OSError: No space left on device): is there space?"),
    ListingError("cannot list the folder '/in': Permission denied"),
    LostClip("'/in/a: b [c].wav' has 3 clips, but 2 embedded: please report this as a bug"),
    StoreError(
        "cannot read '/c/run/p/0.rows' of the checkpoint (Permission denied): is there space, and may it be done?"
    ),
    ManifestError("line 7: the file ends within its compressed data; copy it again"),
    DecodersUnusable("no decoding process can be started (Resource temporarily unavailable)"),
]


@pytest.mark.parametrize("error", KNOWN, ids=lambda error: type(error).__name__)
def test_a_known_error_is_its_one_line_without_a_trace(error: Exception, tmp_path: Path, logged: Lines) -> None:
    with pytest.raises(RunFailed) as failed:
        launch_failing(error, tmp_path)
    assert str(failed.value) == str(error)
    assert failed.value.__suppress_context__
    assert not [text for text in logged.texts if "Traceback" in text or str(error) in text]


def test_a_known_error_of_a_worker_process_is_found_in_the_text_that_beam_makes_of_it(tmp_path: Path) -> None:
    text = (
        "Error processing instruction 7. Original traceback is\nTraceback (most recent call last):\n"
        '  File "apache_beam/runners/common.py", line 1498, in process\n'
        "endpoint.errors.RunEnded: The endpoint refused the credentials; sign in again (PERMISSION_DENIED).\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "endpoint.errors.RunEnded: The endpoint refused the credentials; sign in again (PERMISSION_DENIED). "
        "[while running 'Embed/Embed clips/ParDo(_Embed)-ptransform-42']\n"
    )
    with pytest.raises(RunFailed) as failed:
        launch_failing(RuntimeError(text), tmp_path)
    assert str(failed.value) == "The endpoint refused the credentials; sign in again (PERMISSION_DENIED)."


def test_an_unknown_error_is_raised_and_logged_with_its_trace(tmp_path: Path, logged: Lines) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        launch_failing(ZeroDivisionError("a bug of ours"), tmp_path)
    assert [text for text in logged.texts if "Traceback" in text and "ZeroDivisionError" in text]


def test_what_else_is_logged_during_a_run_is_kept(tmp_path: Path, logged: Lines) -> None:
    with pytest.raises(RunFailed):
        launch_failing(KNOWN[0], tmp_path)
    logging.getLogger("apache_beam").warning("something else: %s", 7)
    assert logged.texts[-1] == "something else: 7"


@pytest.mark.parametrize("runner", ["DirectRunner", "FnApiRunner"])
def test_local_runs_are_always_on_the_same_runner(runner: str) -> None:
    assert isinstance(launching._runner(parse_beam_flags([f"--runner={runner}"], local_endpoint=True)), FnApiRunner)


def test_other_runners_are_beams_business() -> None:
    options = parse_beam_flags(["--runner=DataflowRunner"], local_endpoint=False)
    assert launching._runner(options) == "DataflowRunner"


def test_worker_processes_find_the_project_and_are_not_sent_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("no_grpc_proxy", "")
    options = parse_beam_flags(["--direct_running_mode=multi_processing"], local_endpoint=True)
    assert launching._has_worker_processes(options)
    launching._prepare_worker_processes()
    first, second = os.environ["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "pipeline" / "launch.py").samefile(str(launching.__file__))
    assert second == "/elsewhere"
    assert os.environ["no_grpc_proxy"].split(",") == ["example.org", "localhost", "127.0.0.1"]
    assert "listens on all network interfaces" in capsys.readouterr().err


def test_an_endpoint_elsewhere_is_only_named(tmp_path: Path) -> None:
    run = settings(tmp_path, endpoint="projects/p/locations/l/endpoints/1", endpoint_host="127.0.0.1:9")
    with running_endpoint(run) as endpoint:
        assert (endpoint.name, endpoint.host) == ("projects/p/locations/l/endpoints/1", "127.0.0.1:9")


def test_a_local_endpoint_that_does_not_come_up_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: RunSettings = settings(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(RunFailed, match="the local endpoint could not be started"), running_endpoint(run):
        pass
