"""The entry point, given what the launcher gives it: what is missing or wrong is one line in the launch's log, and status 2."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.command import WRONG_USAGE, main
from tests.audio.gcs import storage_server
from tests.templates.launcher import LAUNCH, PARAMETERS, arguments, start_entry_point

ERROR = "python -m pipeline: error: "


def refused(
    capsys: pytest.CaptureFixture[str], parameters: Mapping[str, str], launch: Mapping[str, str] = LAUNCH
) -> str:
    """The one line with which these parameters are refused."""
    status = main(arguments(parameters, launch))
    out, err = capsys.readouterr()
    assert (status, out) == (WRONG_USAGE, "")
    assert err.startswith(ERROR)
    assert err.count("\n") == 1
    return err.removeprefix(ERROR)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_is_missing_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, {option: value for option, value in PARAMETERS.items() if option != name})
    assert message.startswith(f"--{name} ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("endpoint", "local"),
        ("endpoint", "vertex"),
        ("endpoint", ""),
        ("input", "/data/coughs"),
        ("input", ""),
        ("output", "out/run"),
        ("output", "gs://bucket"),
        ("output", ""),
        ("checkpoint", "out/checkpoint"),
        ("checkpoint", ""),
        ("limit", "ten"),
        ("limit", ""),
        ("overwrite", "yes"),
        ("overwrite", ""),
        ("send", "batch"),
        ("keep_staged", "true"),
        ("sdk_container_image", "us-west1-docker.pkg.dev/project-1/hear/pipeline:v1"),
        ("sdk_container_image", ""),
        ("max_requests", "10"),
        ("delete_checkpoint", "true"),
        ("inptu", "gs://bucket/coughs"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = {**PARAMETERS, name: value}
    assert f"--{name}" in refused(capsys, parameters)


@pytest.mark.parametrize("name", ["project", "region", "service_account_email", "temp_location"])
def test_what_the_launch_itself_lacks_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    launch = {option: value for option, value in LAUNCH.items() if option != name}
    assert refused(capsys, PARAMETERS, launch).startswith(f"--{name} is missing")


@pytest.mark.parametrize(
    ("more", "without", "said"),
    [
        (
            {},
            (),
            "--batch_step is missing: with --send batch something must wait for the job, but a template's launcher",
        ),
        ({"batch_step": "write"}, ("endpoint",), "--endpoint is missing: expected with --send batch"),
        ({"batch_step": "write", "batch_model": "7"}, ("endpoint",), "--batch_model is '7'"),
        ({"batch_step": "write", "batch_model": ""}, ("endpoint",), "--batch_model is empty"),
    ],
    ids=["step", "model", "wrong model", "empty model"],
)
def test_what_a_batch_lacks_is_named(
    more: dict[str, str], without: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: value for name, value in PARAMETERS.items() if name not in without}
    assert refused(capsys, {**given, "send": "batch", **more}).startswith(said)


def test_the_entry_point_runs_from_its_folder_alone(tmp_path: Path) -> None:
    done = start_entry_point(tmp_path, {"endpoint": "research"}, {})
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert done.stderr.startswith(f"{ERROR}--input is missing")
    assert done.stderr.count("\n") == 1


def test_all_that_the_launcher_adds_is_taken(tmp_path: Path) -> None:
    more = {
        "machine_type": "e2-standard-2",
        "max_num_workers": "2",
        "num_workers": "2",
        "network": "n",
        "subnetwork": "regions/us-west1/subnetworks/s",
        "no_use_public_ips": "true",
        "labels": '{"study": "a"}',
        "experiments": "use_runner_v2",
    }
    given = {**PARAMETERS, "input": "gs://bucket/кашель, 1/*.wav", "overwrite": "true", "no_probe": "false"}
    with storage_server(tmp_path / "storage") as storage:
        storage.make_bucket("bucket")
        done = start_entry_point(tmp_path, given, {"STORAGE_EMULATOR_HOST": storage.address}, launch={**LAUNCH, **more})
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert done.stderr.startswith(f"{ERROR}--input is 'gs://bucket/кашель, 1/*.wav', which matches no recording")
