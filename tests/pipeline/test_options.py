from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DebugOptions, StandardOptions

from audio.clips import ClipSettings
from emulator.standin import MODEL_ID
from pipeline.options import parse
from pipeline.usage import UsageError
from tests.pipeline.commands import settings, whole


def test_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    arguments = parse(whole(tmp_path, output="out/r"))
    run = arguments.run
    assert not arguments.plan
    assert run.clips == ClipSettings("mean", 2.0, "pad", 0.5, None)
    assert (run.limit, run.timeout_s, run.max_attempts, run.requests_in_flight, run.clips_per_request) == (
        None,
        60,
        8,
        32,
        None,
    )
    assert (run.send, run.instance_format, run.transport) == ("audio", "research", "grpc")
    assert (run.max_request_bytes, run.max_requests_per_minute) == (1_500_000, None)
    assert (run.endpoint_service_account, run.bucket_service_account, run.full_scope_tokens) == (None, None, False)
    assert (run.staging_location, run.keep_staged, run.probe) == (None, False, True)
    assert (run.output, run.output_format, run.checkpoint) == ("out/r", "tfrecord", "out/r-checkpoint")
    assert (run.overwrite, run.max_failure_fraction, run.model_id) == (False, 1.0, MODEL_ID)


def test_every_option_arrives_where_it_belongs(tmp_path: Path) -> None:
    run = settings(
        tmp_path,
        channel="each",
        hop_s="0.5",
        tail="shift",
        min_audio_s="0",
        min_rms_dbfs="-60",
        limit="3",
        endpoint="projects/p/locations/l/endpoints/1",
        endpoint_host="host.example:444",
        model_id="mine",
        clips_per_request="1",
        max_request_bytes="10000000",
        max_requests_per_minute="600.5",
        instance_format="model_garden",
        transport="rest",
        endpoint_service_account="caller@p.iam.gserviceaccount.com",
        requests_in_flight="2",
        timeout_s="7.5",
        max_attempts="9",
        output_format="parquet",
        checkpoint="gs://bucket/check",
        max_failure_fraction="0.25",
    )
    assert run.clips == ClipSettings("each", 0.5, "shift", 0.0, -60.0)
    endpoint = run.endpoint_settings(run.target.name, run.target.host)
    assert (endpoint.name, endpoint.host) == ("projects/p/locations/l/endpoints/1", "host.example:444")
    assert (endpoint.clips_per_request, endpoint.max_in_flight) == (1, 2)
    assert (endpoint.timeout_s, endpoint.max_attempts) == (7.5, 9)
    assert (endpoint.send, endpoint.instance_format, endpoint.transport) == ("audio", "model_garden", "rest")
    assert (endpoint.max_request_bytes, endpoint.max_requests_per_minute) == (10_000_000, 600.5)
    assert endpoint.service_account == "caller@p.iam.gserviceaccount.com"
    assert (run.limit, run.model_id, run.output_format) == (3, "mine", "parquet")
    assert (run.checkpoint, run.max_failure_fraction) == ("gs://bucket/check", 0.25)


def test_every_option_of_uris_arrives_where_it_belongs(tmp_path: Path) -> None:
    run = settings(
        tmp_path,
        endpoint="research",
        send="uris",
        staging_location="gs://bucket/tmp/",
        bucket_service_account="reader@p.iam.gserviceaccount.com",
        clips_per_request="640",
    )
    endpoint = run.endpoint_settings(run.target.name, run.target.host)
    assert (endpoint.send, endpoint.clips_per_request) == ("uris", 640)
    assert endpoint.bucket_tokens.service_account == "reader@p.iam.gserviceaccount.com"
    arguments = whole(tmp_path, endpoint="research", send="uris", staging_location="gs://bucket/tmp")
    flags = parse([*arguments, "--keep_staged", "--full_scope_tokens", "--no_probe"]).run
    assert (flags.keep_staged, flags.full_scope_tokens, flags.probe) == (True, True, False)


def test_inputs_are_kept_once_in_their_order_whichever_way_they_are_given() -> None:
    given = ["--input", "b", "a", "--endpoint", "local", "--input=-dash", "--output", "o", "--input", "a"]
    assert parse(given).run.inputs == ("b", "a", "-dash")


def test_flags_that_are_not_ours_are_left_to_beam(tmp_path: Path) -> None:
    flags = ["--runner", "DirectRunner", "--experiments=x"]
    arguments = parse([*whole(tmp_path), *flags, "--plan", "--overwrite"])
    assert arguments.beam.view_as(StandardOptions).runner == "DirectRunner"
    assert arguments.beam.view_as(DebugOptions).experiments == ["x"]
    assert arguments.plan
    assert arguments.run.overwrite


@pytest.mark.parametrize("name", ["with space", "кашель 🤧", "#1?%20", "--dashes", "two\nlines"])
def test_inputs_may_have_any_name(name: str, tmp_path: Path) -> None:
    assert settings(tmp_path, input=name).inputs == (name,)


@pytest.mark.parametrize(("given", "kept"), [("ck/", "ck"), ("ck", "ck"), ("gs://bucket/ck/", "gs://bucket/ck")])
def test_a_checkpoint_is_a_folder_with_or_without_a_slash(given: str, kept: str, tmp_path: Path) -> None:
    assert settings(tmp_path, checkpoint=given).checkpoint == kept


def test_an_unknown_flag_is_named_even_where_the_right_one_is_missing() -> None:
    with pytest.raises(UsageError, match="unknown option '--inputs'"):
        parse(["--inputs", "a.wav", "--endpoint", "local", "--output", "o"])


@pytest.mark.parametrize(("cores", "processes"), [(None, 1), (1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_decoding_leaves_a_core_to_the_process_that_sends(
    cores: int | None, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert settings(tmp_path).decoder_processes == processes
    assert settings(tmp_path, decoder_processes="0").decoder_processes == 0
