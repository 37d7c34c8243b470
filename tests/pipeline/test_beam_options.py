import pytest
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, StandardOptions, WorkerOptions

from pipeline.beam_options import LOCAL_RUNNERS, REMOTE_RUNNERS, parse_beam_flags
from pipeline.usage import UsageError


def test_without_flags_the_run_is_local() -> None:
    assert parse_beam_flags([], local_endpoint=True).view_as(StandardOptions).runner == "DirectRunner"


@pytest.mark.parametrize("runner", [*LOCAL_RUNNERS, *REMOTE_RUNNERS])
def test_a_remote_endpoint_goes_with_every_runner(runner: str) -> None:
    options = parse_beam_flags([f"--runner={runner}"], local_endpoint=False)
    assert options.view_as(StandardOptions).runner == runner


@pytest.mark.parametrize("runner", REMOTE_RUNNERS)
def test_the_local_endpoint_goes_with_local_runners_only(runner: str) -> None:
    with pytest.raises(UsageError, match=f"--runner {runner} cannot reach it"):
        parse_beam_flags([f"--runner={runner}"], local_endpoint=True)


def test_beams_options_are_all_there() -> None:
    flags = [
        "--project=p",
        "--temp_location",
        "gs://b/t",
        "--num_workers=3",
        "--experiments=x",
        "--direct_num_workers=2",
    ]
    options = parse_beam_flags([*flags, "--direct_running_mode", "multi_processing"], local_endpoint=True)
    assert options.view_as(GoogleCloudOptions).project == "p"
    assert options.view_as(GoogleCloudOptions).temp_location == "gs://b/t"
    assert options.view_as(WorkerOptions).num_workers == 3
    assert options.view_as(DirectOptions).direct_num_workers == 2
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num_worker=3"], "unknown option '--num_worker=3'"),
        (["--runner=DirectRunner", "stray"], "unknown option 'stray'"),
        (["--num_workers=three"], "--num_workers"),
        (["--runner"], "--runner"),
        (["--runner=SwitchingDirectRunner"], "expected one of DirectRunner, FnApiRunner"),
        (["--direct_num_workers=-1"], "--direct_num_workers is -1"),
        (["--streaming"], "--streaming"),
        (["--streaming=true"], "--streaming"),
        (["--no_use_public_ips=yes"], "--no_use_public_ips: 'yes' is neither true nor false"),
        (["--no_use_public_ips="], "--no_use_public_ips: '' is neither true nor false"),
    ],
)
def test_what_beam_would_drop_or_trip_over_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_beam_flags(flags, local_endpoint=True)
    assert said in str(refused.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flag", "public"),
    [
        ("--no_use_public_ips", False),
        ("--no_use_public_ips=true", False),
        ("--no_use_public_ips=false", None),
        ("--use_public_ips=true", True),
    ],
)
def test_beams_switches_take_values_too(flag: str, public: bool | None) -> None:
    options = parse_beam_flags(["--runner=DataflowRunner", flag], local_endpoint=False)
    assert options.view_as(WorkerOptions).use_public_ips is public


def test_a_switch_does_not_eat_what_follows() -> None:
    options = parse_beam_flags(["--streaming=false", "--project=p=true"], local_endpoint=True)
    assert not options.view_as(StandardOptions).streaming
    assert options.view_as(GoogleCloudOptions).project == "p=true"
