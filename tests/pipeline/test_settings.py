import hashlib
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from audio.clips import ClipSettings
from audio.decoder_limits import DecoderLimits
from audio.manifest import ManifestSettings
from endpoint.job_settings import JobSettings
from endpoint.settings import EndpointSettings
from pipeline.endpoints import resolve
from tests.pipeline.commands import settings
from transforms.segment_rows import RowSettings


def test_the_fingerprint_is_the_hash_of_what_it_covers(tmp_path: Path) -> None:
    run = settings(tmp_path)
    text = json.dumps(run.fingerprint_settings, sort_keys=True, separators=(",", ":"))
    assert run.fingerprint == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert run.fingerprint_settings == {
        "audio_rules": 2,
        "sample_rate_hz": 16000,
        "clip_samples": 32000,
        "resampler": "soxr HQ",
        "model_id": run.model_id,
    }


def test_the_fingerprint_changes_with_the_model(tmp_path: Path) -> None:
    run = settings(tmp_path)
    assert replace(run, model_id="another").fingerprint != run.fingerprint


def test_the_fingerprint_changes_with_the_resampler(tmp_path: Path) -> None:
    run = settings(tmp_path, resampler="tensorflow_io")
    assert run.fingerprint_settings == {**settings(tmp_path).fingerprint_settings, "resampler": "tensorflow_io"}
    assert settings(tmp_path, resampler="soxr").fingerprint == settings(tmp_path).fingerprint != run.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": ("/elsewhere",)},
        {"limit": 5},
        {"clips": ClipSettings("each", 1.0, "drop", 0.0, -40.0)},
        {"target": resolve("research", None, "audio", "research")},
        {"timeout_s": 1.0},
        {"max_attempts": 1},
        {"requests_in_flight": 1},
        {"clips_per_request": 1},
        {"send": "uris", "staging_location": "gs://bucket"},
        {"instance_format": "model_garden"},
        {"transport": "rest"},
        {"max_requests_per_minute": 60.0},
        {"output": "elsewhere"},
        {"output_format": "parquet"},
        {"checkpoint": "elsewhere"},
        {"fresh_checkpoint": True},
        {"delete_checkpoint": True},
        {"retry_failed": True},
        {"decoder_processes": 0},
        {"decoder_limits": DecoderLimits(1.0, 1 << 30)},
        {"manifest": ManifestSettings("m.csv", None, None, "mean")},
        {"max_requests": 5},
        {"overwrite": True},
        {"max_failure_fraction": 0.5},
        {"run_id": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_does_not_change_with_anything_else(change: dict[str, object], tmp_path: Path) -> None:
    run = settings(tmp_path)
    assert replace(run, **change).fingerprint == run.fingerprint


def test_which_clips_there_are_is_written_down_beside_it(tmp_path: Path) -> None:
    run = settings(tmp_path, channel="0", hop_s="1", tail="drop", min_audio_s="1", min_rms_dbfs="-50")
    assert run.clip_choice == {
        "channel": "0",
        "hop_s": 1.0,
        "tail": "drop",
        "min_audio_s": 1.0,
        "min_rms_dbfs": -50.0,
        "event_context": "audio",
    }


def test_each_run_has_an_id_of_its_own_that_sorts_by_time(tmp_path: Path) -> None:
    runs = [settings(tmp_path) for _ in range(2)]
    assert runs[0].run_id != runs[1].run_id
    for run in runs:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run.run_id)


def test_the_summary_is_beside_the_output(tmp_path: Path) -> None:
    assert settings(tmp_path, output="out/r").summary_path == "out/r-summary.json"


def test_the_stage_that_embeds_is_told_all_it_needs(tmp_path: Path) -> None:
    run = settings(tmp_path, clips_per_request="3", requests_in_flight="5")
    endpoint = run.endpoint_settings("projects/p/locations/l/endpoints/1", "127.0.0.1:8080")
    embed = run.embed_settings(endpoint)
    name = "projects/p/locations/l/endpoints/1"
    assert embed.endpoint == EndpointSettings(
        name, "127.0.0.1:8080", timeout_s=60, max_attempts=8, max_in_flight=5, clips_per_request=3, run_id=run.run_id
    )
    work = embed.work
    assert work.rows == RowSettings(run.fingerprint, run.model_id, name)
    assert (work.clips, work.checkpoint, work.run_id) == (run.clips, run.checkpoint, run.run_id)
    assert (embed.staging, work.retry_failed) == (None, False)
    assert pickle.loads(pickle.dumps(embed)) == embed


def test_staged_clips_and_their_tokens_are_bound_to_the_runs_own_folder(tmp_path: Path) -> None:
    run = settings(
        tmp_path,
        endpoint="projects/p/locations/l/endpoints/1",
        send="uris",
        staging_location="gs://clinic/tmp",
        bucket_service_account="reader@p.iam.gserviceaccount.com",
    )
    embed = run.embed_settings(run.endpoint_settings(run.target.name, run.target.host))
    folder = f"tmp/hear-staged-{run.run_id}/"
    assert embed.staging is not None
    assert (embed.staging.bucket, embed.staging.run_prefix) == ("clinic", folder)
    tokens = embed.endpoint.bucket_tokens
    assert (tokens.service_account, tokens.full_scope) == ("reader@p.iam.gserviceaccount.com", False)
    assert tokens.staging == ("clinic", folder)
    assert pickle.loads(pickle.dumps(embed)) == embed


def test_a_job_is_described_by_its_options_and_its_model(tmp_path: Path) -> None:
    model = "projects/p/locations/us-west1/models/5"
    given = {"endpoint": None, "send": "batch", "staging_location": "gs://bucket/x", "batch_model": model}
    run = settings(tmp_path, **given)
    assert run.job_settings(model, "h.googleapis.com") == JobSettings(model, "h.googleapis.com", "p")
    more = {
        "batch_project": "mine",
        "batch_machine_type": "n1-standard-4",
        "batch_accelerator_type": "NVIDIA_TESLA_T4",
        "batch_accelerator_count": "2",
        "batch_starting_replicas": "3",
        "batch_max_replicas": "4",
        "instance_format": "model_garden",
        "transport": "rest",
        "endpoint_service_account": "a@p.iam.gserviceaccount.com",
    }
    changed = settings(tmp_path, **given, **more)
    assert changed.job_settings(model, "h.googleapis.com") == JobSettings(
        model,
        "h.googleapis.com",
        "mine",
        machine_type="n1-standard-4",
        accelerator_type="NVIDIA_TESLA_T4",
        accelerator_count=2,
        starting_replicas=3,
        max_replicas=4,
        instance_format="model_garden",
        transport="rest",
        service_account="a@p.iam.gserviceaccount.com",
    )
    assert changed.fingerprint == run.fingerprint, "how a clip is sent changes no row"
    write = changed.write_settings(model)
    assert write.folder == f"gs://bucket/x/hear-staged-{changed.run_id}/"
    assert (write.instance_format, write.work.rows.endpoint) == ("model_garden", model)
    assert pickle.loads(pickle.dumps(write)) == write
