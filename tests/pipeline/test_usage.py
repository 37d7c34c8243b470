"""Wrong usage is one line that names the option, what it was and what is expected, and exit status 2, before anything runs."""

import os
from pathlib import Path

import pytest

from pipeline.command import WRONG_USAGE, main
from pipeline.flags import make_parser
from tests.pipeline.commands import whole


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line with which the command refuses its arguments."""
    status = main(arguments)
    out, err = capsys.readouterr()
    assert status == WRONG_USAGE
    assert out == ""
    assert err.startswith("python -m pipeline: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("python -m pipeline: error: ").rstrip("\n")


REMOTE = "projects/p/locations/us-central1/endpoints/7"

WRONG_VALUES = [
    ("limit", "0", ["--limit", "'0'", "whole number of at least 1"]),
    ("limit", "-1", ["--limit", "'-1'", "whole number of at least 1"]),
    ("limit", "1.5", ["--limit", "'1.5'", "whole number of at least 1"]),
    ("limit", "two\nlines", ["--limit", r"'two\nlines'", "whole number"]),
    ("channel", "left", ["--channel", "'left'", "mean, each, or a channel's number"]),
    ("channel", "-1", ["--channel", "'-1'", "mean, each, or a channel's number"]),
    ("hop_s", "0", ["--hop_s", "0.0", "positive"]),
    ("hop_s", "-2", ["--hop_s", "-2.0", "positive"]),
    ("hop_s", "0.00001", ["--hop_s", "1e-05", "whole number of samples"]),
    ("hop_s", "nan", ["--hop_s", "'nan'", "not a number"]),
    ("hop_s", "2s", ["--hop_s", "'2s'", "not a number"]),
    ("tail", "wrap", ["--tail", "'wrap'", "pad, shift, drop"]),
    ("min_audio_s", "-0.1", ["--min_audio_s", "-0.1", "0 to 2"]),
    ("min_audio_s", "2.1", ["--min_audio_s", "2.1", "0 to 2"]),
    ("min_rms_dbfs", "3", ["--min_rms_dbfs", "3.0", "0 or below"]),
    ("min_rms_dbfs", "-inf", ["--min_rms_dbfs", "'-inf'", "not a number"]),
    ("event_context", "silence", ["--event_context", "'silence'", "audio", "zeros"]),
    ("resampler", "librosa", ["--resampler", "'librosa'", "soxr, tensorflow_io"]),
    ("endpoint", "vertex", ["--endpoint", "'vertex'", "local, research or projects/"]),
    ("endpoint", "projects/p/locations/l", ["--endpoint", "'projects/p/locations/l'", "endpoints/ENDPOINT"]),
    ("endpoint", REMOTE + "/", ["--endpoint", REMOTE + "/", "endpoints/ENDPOINT"]),
    ("endpoint", f" {REMOTE}", ["--endpoint", "' projects/", "endpoints/ENDPOINT"]),
    ("clips_per_request", "0", ["--clips_per_request", "'0'", "at least 1"]),
    ("clips_per_request", "5", ["--clips_per_request", "5", "at most 4"]),
    ("send", "post", ["--send", "'post'", "audio or uris or batch"]),
    ("send", "uris", ["--staging_location", "missing", "gs://bucket/staging"]),
    ("instance_format", "vertex", ["--instance_format", "'vertex'", "research or model_garden"]),
    ("transport", "http", ["--transport", "'http'", "grpc or rest"]),
    ("max_request_bytes", "1000", ["--max_request_bytes", "'1000'", "at least 1500000"]),
    ("max_request_bytes", "2000000", ["--max_request_bytes", "2000000", "research endpoints take 1500000"]),
    ("max_request_bytes", "10000001", ["--max_request_bytes", "'10000001'", "more than 10000000"]),
    ("max_requests_per_minute", "0", ["--max_requests_per_minute", "'0'", "from 1"]),
    ("max_requests_per_minute", "many", ["--max_requests_per_minute", "'many'", "not a number"]),
    ("max_requests", "0", ["--max_requests", "'0'", "at least 1"]),
    ("max_requests", "1e3", ["--max_requests", "'1e3'", "at least 1"]),
    ("endpoint_service_account", "me", ["--endpoint_service_account", "'me'", "iam.gserviceaccount.com"]),
    ("bucket_service_account", "a@b.example", ["--bucket_service_account", "--send uris"]),
    ("staging_location", "gs://bucket/tmp", ["--staging_location", "--send uris"]),
    ("requests_in_flight", "0", ["--requests_in_flight", "'0'", "at least 1"]),
    ("requests_in_flight", "1025", ["--requests_in_flight", "'1025'", "more than 1024"]),
    ("timeout_s", "1e10", ["--timeout_s", "'1e10'", "3600 at most"]),
    ("model_id", "a b", ["--model_id", "'a b'", "letters, digits"]),
    ("max_attempts", "none", ["--max_attempts", "'none'", "at least 1"]),
    ("timeout_s", "0", ["--timeout_s", "'0'", "above 0"]),
    ("timeout_s", "-5", ["--timeout_s", "'-5'", "above 0"]),
    ("timeout_s", "inf", ["--timeout_s", "'inf'", "not a number"]),
    ("model_id", "", ["--model_id", "empty", "leave it out"]),
    ("output_format", "csv", ["--output_format", "'csv'", "tfrecord or parquet"]),
    ("output", "out/", ["--output", "'out/'", "beginning of file names"]),
    ("output", "gs://bucket//r", ["--output", "'gs://bucket//r'", "without empty or dotted parts"]),
    ("output", "gs://bucket/a/../r", ["--output", "'gs://bucket/a/../r'", "without empty or dotted parts"]),
    ("output", "gs://bucket/two\nlines", ["--output", "two\\nlines", "without control characters"]),
    ("output", "gs://bucket/" + "é" * 451, ["--output", "less than 900 bytes"]),
    ("output", "gs://bucket", ["--output", "'gs://bucket'", "gs://bucket/path"]),
    ("output", "s3://bucket/r", ["--output", "'s3://bucket/r'", "gs://bucket/path"]),
    ("output", "caf\udce9", ["--output", r"'caf\udce9'", "UTF-8"]),
    ("checkpoint", "", ["--checkpoint", "empty", "leave it out"]),
    ("checkpoint", "gs://bucket/./ck", ["--checkpoint", "'gs://bucket/./ck'", "without empty or dotted parts"]),
    ("checkpoint", "gs://bucket", ["--checkpoint", "'gs://bucket'", "gs://bucket/path"]),
    ("max_failure_fraction", "1.01", ["--max_failure_fraction", "'1.01'", "from 0 to 1"]),
    ("max_failure_fraction", "5%", ["--max_failure_fraction", "'5%'", "not a number"]),
    ("input", "", ["--input", "empty", "a file, a folder or a glob"]),
    ("input", "s3://bucket/a.wav", ["--input", "'s3://bucket/a.wav'", "gs://bucket/path"]),
    ("input", "caf\udce9.wav", ["--input", r"'caf\udce9.wav'", "UTF-8"]),
    ("input", "/no/such/place/*.wav", ["--input", "'/no/such/place/*.wav'", "matches no recording"]),
    ("input", "/no/such/file.wav", ["--input", "'/no/such/file.wav'", "matches no recording"]),
    # Beam's options are as strict.
    ("runner", "Dataflow", ["--runner", "'Dataflow'", "DataflowRunner"]),
    ("direct_num_workers", "-1", ["--direct_num_workers", "-1", "0"]),
    ("direct_num_workers", "two", ["--direct_num_workers", "'two'", "int"]),
    ("direct_running_mode", "threads", ["--direct_running_mode", "'threads'", "multi_processing"]),
]


@pytest.mark.parametrize(("option", "value", "said"), WRONG_VALUES, ids=[f"{o}={v!r}" for o, v, _ in WRONG_VALUES])
def test_a_wrong_value(
    option: str, value: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, whole(tmp_path, **{option: value}))
    for part in said:
        assert part in message


@pytest.mark.parametrize("option", sorted(action.dest for action in make_parser()._actions if action.nargs != 0))
def test_an_empty_value_is_no_way_to_leave_an_option_out(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    also = {"manifest": str(tmp_path / "m.csv"), "input": None} if option in ("uri_column", "uri_template") else {}
    assert f"--{option}" in refused(capsys, whole(tmp_path, **{**also, option: ""}))


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/tmp/staging", "expected gs://bucket"),
        ("gs://", "expected gs://bucket"),
        ("gs://bucket/a*b", "without control characters and without # ? * [ ]"),
    ],
)
def test_a_wrong_staging_location(location: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, whole(tmp_path, endpoint=REMOTE, send="uris", staging_location=location))
    assert "--staging_location" in message
    assert location in message
    assert said in message


MODEL = "projects/p/locations/us-central1/models/7"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"staging_location": None}, ["--staging_location is missing", "--send batch"]),
        ({"batch_model": None}, ["--endpoint is missing", "--batch_model NAME"]),
        ({"batch_model": "7"}, ["--batch_model is '7'", "projects/PROJECT/locations/LOCATION/models/MODEL"]),
        ({"batch_model": f"{MODEL}/"}, [f"--batch_model is '{MODEL}/'"]),
        ({"batch_model": f"{MODEL}@"}, [f"--batch_model is '{MODEL}@'"]),
        ({"batch_model": REMOTE}, [f"--batch_model is '{REMOTE}'", "models/MODEL"]),
        ({"batch_model": None, "endpoint": REMOTE}, [f"--endpoint is '{REMOTE}'", "asks a model", "--batch_model"]),
        ({"endpoint": "research"}, [f"--batch_model is '{MODEL}'", "leave one of them out"]),
        (
            {"batch_model": None, "endpoint": "research", "instance_format": "model_garden"},
            ["--instance_format is 'model_garden'", "name the model"],
        ),
        ({"batch_project": "My Project"}, ["--batch_project is 'My Project'", "id or number"]),
        ({"batch_machine_type": "big"}, ["--batch_machine_type is 'big'", "n1-standard-8"]),
        ({"batch_accelerator_type": "v100"}, ["--batch_accelerator_type is 'v100'", "NVIDIA_TESLA_V100"]),
        ({"batch_accelerator_count": "-1"}, ["--batch_accelerator_count", "'-1'"]),
        ({"batch_starting_replicas": "0"}, ["--batch_starting_replicas", "'0'", "at least 1"]),
        (
            {"batch_starting_replicas": "4", "batch_max_replicas": "3"},
            ["--batch_max_replicas is 3", "no less than batch_starting_replicas, 4"],
        ),
        ({"batch_step": "both"}, ["--batch_step", "'both'", "write", "join"]),
        ({"batch_step": "write", "delete_checkpoint": ""}, ["--delete_checkpoint", "the step join needs it"]),
        ({"batch_step": "join", "fresh_checkpoint": ""}, ["--fresh_checkpoint", "--batch_step join is to read"]),
        ({"max_requests": "10"}, ["--max_requests is given", "--send audio or uris"]),
        ({"max_requests_per_minute": "10"}, ["--max_requests_per_minute is given", "--send audio or uris"]),
        ({"requests_in_flight": "2"}, ["--requests_in_flight is given", "--send audio or uris"]),
        ({"clips_per_request": "2"}, ["--clips_per_request is given", "--send audio or uris"]),
        ({"max_attempts": "2"}, ["--max_attempts is given", "--send audio or uris"]),
        ({"timeout_s": "2"}, ["--timeout_s is given", "--send audio or uris"]),
        ({"no_probe": ""}, ["--no_probe is given", "--send audio or uris"]),
        ({"full_scope_tokens": ""}, ["--full_scope_tokens is given", "--send uris"]),
        ({"no_wait": ""}, ["--batch_step is missing", "--no_wait is given"]),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_a_batch_cannot_be(
    changes: dict[str, str | None], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch: dict[str, str | None] = {
        "send": "batch",
        "endpoint": None,
        "batch_model": MODEL,
        "staging_location": "gs://bucket/x",
    }
    switches = [f"--{name}" for name, value in changes.items() if value == ""]
    given = batch | {name: value for name, value in changes.items() if value != ""}
    if "no_wait" in changes:
        given |= {"input": "gs://b/in", "output": "gs://b/out", "runner": "DataflowRunner"}
    message = refused(capsys, [*whole(tmp_path, **given), *switches])
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_model", MODEL),
        ("batch_project", "p"),
        ("batch_machine_type", "n1-standard-4"),
        ("batch_accelerator_type", "NVIDIA_TESLA_T4"),
        ("batch_accelerator_count", "0"),
        ("batch_starting_replicas", "2"),
        ("batch_max_replicas", "2"),
        ("batch_step", "join"),
    ],
)
def test_what_only_a_batch_can_be(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--{option} is given, but has a meaning only with --send batch" in refused(
        capsys, whole(tmp_path, **{option: value})
    )


def test_a_limit_that_workers_elsewhere_would_each_use_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = {"input": "gs://bucket/in", "output": "gs://bucket/out/r", "endpoint": REMOTE}
    given = whole(tmp_path, **elsewhere, max_requests_per_minute="600", runner="FlinkRunner")
    message = refused(capsys, given)
    assert "--max_requests_per_minute is 600" in message
    assert "FlinkRunner" in message


def test_uris_to_the_local_endpoint_need_a_storage_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    message = refused(capsys, whole(tmp_path, send="uris", staging_location="gs://bucket"))
    assert "STORAGE_EMULATOR_HOST" in message


def test_more_uris_than_a_request_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = whole(tmp_path, endpoint=REMOTE, send="uris", staging_location="gs://bucket", clips_per_request="641")
    assert "at most 640" in refused(capsys, given)


@pytest.mark.parametrize("option", ["input", "endpoint", "output"])
def test_what_is_required_and_missing_is_named_with_an_example(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, whole(tmp_path, **{option: None}))
    assert message.startswith(f"--{option} is missing: expected for example --{option} ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--inptu=x"], ["--inptu"]),
        (["--overwr"], ["--overwr"]),  # no abbreviations
        (["--runner", "DirectRunner", "--experiment_s", "x"], ["--experiment_s"]),
        (["-x"], ["-x"]),
        (["--overwrite=yes"], ["--overwrite", "'yes'"]),
        (["--plan", "stray.wav"], ["'stray.wav'", "belongs to no option"]),
        (["--limit"], ["--limit", "expected one argument"]),
        (["--input"], ["--input", "at least one argument"]),
        (["--runner"], ["--runner", "expected one argument"]),
        (["--streaming"], ["--streaming", "batch"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_unknown_misplaced_or_incomplete(
    more: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, [*whole(tmp_path), *more])
    for part in said:
        assert part in message


@pytest.mark.parametrize("runner", ["DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner"])
def test_the_local_endpoint_and_a_remote_runner_contradict_each_other(
    runner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, [*whole(tmp_path), "--runner", runner])
    assert "--endpoint local" in message
    assert f"--runner {runner}" in message


def test_the_local_endpoint_and_a_host_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, whole(tmp_path, endpoint_host="127.0.0.1:8080"))
    assert "--endpoint_host" in message
    assert "'127.0.0.1:8080'" in message
    assert "--endpoint local" in message


@pytest.mark.parametrize("host", ["", "https://us-west1-aiplatform.googleapis.com", "127.0.0.1", "a b", "host:99999"])
def test_a_host_that_is_none(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, whole(tmp_path, endpoint="research", endpoint_host=host))
    assert "--endpoint_host" in message
    assert host in message


def test_a_folder_without_a_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no recording")
    message = refused(capsys, whole(tmp_path, input=str(tmp_path / "notes")))
    assert repr(str(tmp_path / "notes")) in message
    assert "matches no recording" in message


def test_each_of_several_inputs_must_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'/no/such/*'" in refused(capsys, [*whole(tmp_path), "--input", "/no/such/*"])


@pytest.mark.parametrize("option", ["output", "checkpoint"])
def test_a_place_that_cannot_be_written(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    place = str(tmp_path / "file" / "deeper" / "r")
    message = refused(capsys, whole(tmp_path, **{option: place}))
    assert f"--{option}" in message
    assert place in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    message = refused(capsys, whole(tmp_path, output=str(tmp_path / "locked" / "r")))
    assert "may not be written" in message


def test_output_that_is_there_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = whole(tmp_path)
    there = tmp_path / "out" / "r-00000-of-00002.tfrecord"
    there.parent.mkdir()
    there.write_text("precious")
    (tmp_path / "out" / "r-summary.json").write_text("{}")
    message = refused(capsys, arguments)
    for part in ("--output", str(there), "and 1 more", "--overwrite"):
        assert part in message
    assert there.read_text() == "precious"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in {option for option, _, _ in WRONG_VALUES} - {"runner", "direct_num_workers", "direct_running_mode"}:
        assert f"--{option}" in text


@pytest.mark.parametrize("option", ["input", "output", "checkpoint"])
def test_paths_on_this_machine_are_refused_for_workers_elsewhere(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"input": "gs://b/in", "output": "gs://b/out", "checkpoint": "gs://b/ck", option: "here/r"}
    arguments = [f"--{name}={path}" for name, path in paths.items()]
    said = refused(capsys, [*arguments, f"--endpoint={REMOTE}", "--runner=DataflowRunner"])
    assert f"--{option} is 'here/r'" in said
    assert "gs://" in said
