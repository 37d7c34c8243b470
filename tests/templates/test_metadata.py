"""The template's metadata are those of the command, and say what it takes."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.cloud.dataflow_v1beta3.types import ParameterType, TemplateMetadata

from pipeline.flags import make_parser
from pipeline.options import parse
from pipeline.template import BEAMS, EXCLUDED, PARAMETERS, metadata
from pipeline.usage import UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKED_IN = REPOSITORY / "templates" / "metadata.json"
DIGEST = "sha256:" + "0" * 64
LAUNCH = {
    "input": "gs://bucket/in",
    "endpoint": "research",
    "output": "gs://bucket/out/r",
    "sdk_container_image": f"us-docker.pkg.dev/p/r/hear@{DIGEST}",
}


@pytest.fixture(scope="module")
def parsed() -> TemplateMetadata:
    return TemplateMetadata.from_json(CHECKED_IN.read_text(encoding="utf-8"), ignore_unknown_fields=False)


@pytest.fixture(scope="module")
def patterns(parsed: TemplateMetadata) -> dict[str, str]:
    assert all(len(parameter.regexes) == 1 for parameter in parsed.parameters)
    return {parameter.name: parameter.regexes[0] for parameter in parsed.parameters}


def takes(name: str, value: str) -> bool:
    """Whether the command would start a job with this value of a parameter."""
    shown = PARAMETERS.get(name, BEAMS.get(name))
    assert shown is not None
    more: dict[str, str] = {"send": shown.with_send[-1]} if shown.with_send else {}
    if name in ("manifest", "uri_column", "uri_template"):
        more["manifest"] = "gs://bucket/labels.csv"
    given = {**LAUNCH, **more, name: value}
    if "manifest" in given:
        del given["input"]
    if "batch_model" in given:
        del given["endpoint"]
    if given.get("send") == "batch":
        given = {"batch_step": "write", **given}
    launcher = {
        "runner": "DataflowRunner",
        "project": "project-1",
        "region": "us-west1",
        "temp_location": "gs://bucket/temp",
        "service_account_email": "worker@project-1.iam.gserviceaccount.com",
        "template_location": "gs://bucket/staging/template_launches/1/job_object",
    }
    if given.get("send") in ("uris", "batch"):
        launcher["staging_location"] = "gs://bucket/staging"
    try:
        parse([f"--{option}={text}" for option, text in {**given, **launcher}.items()])
    except UsageError:
        return False
    return True


def test_what_is_checked_in_is_what_the_options_say() -> None:
    assert json.loads(CHECKED_IN.read_text(encoding="utf-8")) == metadata(), "run: make template-metadata"


def test_every_option_is_a_parameter_or_excluded_for_a_reason(parsed: TemplateMetadata) -> None:
    flags = {action.dest for action in make_parser()._actions} - {"help"}
    assert not PARAMETERS.keys() & EXCLUDED.keys()
    assert flags <= PARAMETERS.keys() | EXCLUDED.keys()
    assert sorted(parameter.name for parameter in parsed.parameters) == sorted([*(flags - EXCLUDED.keys()), *BEAMS])
    assert all(EXCLUDED.values())


def test_each_parameter_says_what_it_is(parsed: TemplateMetadata) -> None:
    names = [parameter.name for parameter in parsed.parameters]
    labels = [parameter.label for parameter in parsed.parameters]
    assert len(set(names)) == len(names)
    assert len(set(labels)) == len(labels)
    for parameter in parsed.parameters:
        assert parameter.label[0].isupper()
        assert parameter.help_text[0].isupper()
        assert parameter.help_text.endswith(".")
        assert "required" not in parameter.help_text
        assert parameter.param_type != ParameterType.DEFAULT
        if parameter.default_value:
            assert re.search(parameter.regexes[0], parameter.default_value)
        assert [option.value for option in parameter.enum_options] == (
            parameter.regexes[0].strip("^()$").split("|") if parameter.param_type == ParameterType.ENUM else []
        )


def test_what_must_be_given(parsed: TemplateMetadata) -> None:
    required = {parameter.name for parameter in parsed.parameters if not parameter.is_optional}
    assert required == {"sdk_container_image"}


def test_what_only_uris_or_a_batch_need_is_shown_with_them(parsed: TemplateMetadata) -> None:
    shown = {
        parameter.name: list(parameter.parent_trigger_values)
        for parameter in parsed.parameters
        if parameter.parent_name == "send"
    }
    of_a_batch = {name for name in PARAMETERS if name.startswith("batch_")}
    assert len(of_a_batch) == 8
    assert shown == {
        "keep_staged": ["uris", "batch"],
        "bucket_service_account": ["uris"],
        "full_scope_tokens": ["uris"],
        **{key: ["batch"] for key in of_a_batch},
    }


SAMPLES: list[tuple[str, list[str], list[str]]] = [
    (
        "input",
        ["gs://bucket", "gs://bucket/", "gs://b-1.x/кашель 1,2=[ab]/**/*.wav"],
        ["data/a.wav", "s3://b/a", ""],
    ),
    (
        "manifest",
        ["gs://bucket/a.csv", "gs://bucket/a b/c,d.TSV.gz", "gs://bucket/.jsonl"],
        ["labels.csv", "gs://bucket/a.xlsx", "gs://bucket/a.csv/", "gs://bucket"],
    ),
    ("uri_column", ["path", "Name, in full"], [""]),
    ("uri_template", ["gs://bucket/{uuid}.webm", "{uri}"], ["gs://bucket/uuid.webm", ""]),
    ("channel", ["mean", "each", "0", "12"], ["left", "-1", "01", "means", ""]),
    ("tail", ["pad", "shift", "drop"], ["wrap", "PAD", ""]),
    ("event_context", ["audio", "zeros"], ["silence", ""]),
    (
        "endpoint",
        ["research", "projects/p/locations/us-central1/endpoints/7"],
        ["local", "Research", "projects/p/locations/l", "projects/p/locations/l/endpoints/7/", ""],
    ),
    (
        "endpoint_host",
        ["1.us-west1-2.prediction.vertexai.goog", "host:444"],
        ["https://host", "a b", "host:123456", ""],
    ),
    ("send", ["audio", "uris", "batch"], ["Batch", ""]),
    ("instance_format", ["research"], ["vertex", ""]),
    ("transport", ["grpc", "rest"], ["http", ""]),
    ("model_id", ["hear", "hear-v2+mine:1/x@y"], ["a b", "é", "x" * 201, ""]),
    ("no_probe", ["true", "false"], ["yes", "True", "1", ""]),
    ("keep_staged", ["true", "false"], ["yes", ""]),
    (
        "output",
        ["gs://bucket/a", "gs://bucket/a b/c,d", "gs://bucket/.a/..b/a*?"],
        ["out/a", "gs://bucket", "gs://bucket/", "gs://bucket//a", "gs://bucket/./a", "gs://bucket/a/..", ""],
    ),
    ("output_format", ["tfrecord", "parquet"], ["csv", ""]),
    ("checkpoint", ["gs://bucket/c", "gs://bucket/c/", "gs://bucket/c?"], ["c", "gs://bucket", "gs://bucket/c//d", ""]),
    ("hop_s", ["2", "0.5", "1e1"], ["2s", "2,0", ""]),
    ("limit", ["1", "10"], ["0", "ten", ""]),
    ("requests_in_flight", ["1", "1024"], ["0", "1025", ""]),
    ("max_request_bytes", ["1500000"], ["1499999", "10000001", ""]),
    ("endpoint_service_account", ["a@p.iam.gserviceaccount.com"], ["a", "serviceAccount:a@b.c", ""]),
    ("batch_step", ["write", "join"], ["both", ""]),
    (
        "batch_model",
        ["projects/p/locations/us-central1/models/7", "projects/p/locations/us-central1/models/hear@2"],
        ["7", "projects/p/locations/us-central1/endpoints/7", "projects/p/locations/l/models/7@", ""],
    ),
    ("batch_project", ["project-1", "example.com:project", "123"], ["a b", "Project", ""]),
    ("batch_machine_type", ["n1-standard-8", "g2-standard-12"], ["n1", "N1-standard-8", "n1_standard_8", ""]),
    ("batch_accelerator_type", ["NVIDIA_TESLA_V100", "NVIDIA_L4"], ["v100", "NVIDIA-L4", ""]),
    ("batch_accelerator_count", ["0", "4"], ["17", "-1", ""]),
    ("batch_max_replicas", ["1", "20"], ["0", "many", ""]),
    ("bucket_service_account", ["a@p.iam.gserviceaccount.com"], ["a@b", ""]),
]
if any(action.dest == "output_table" for action in make_parser()._actions):
    SAMPLES.append(
        (
            "output_table",
            ["my-project:hear.coughs", "my-project.hear.coughs-1", "example.com:project:Data_1.T"],
            ["hear.coughs", "my-project:hear", "my-project:hear.coughs$2026", "my-project:he-ar.coughs", ""],
        )
    )


@pytest.mark.parametrize(("name", "good", "bad"), SAMPLES, ids=[name for name, _, _ in SAMPLES])
def test_the_pattern_and_the_command_agree(
    name: str, good: list[str], bad: list[str], patterns: dict[str, str]
) -> None:
    for value in good:
        assert re.search(patterns[name], value), value
        assert takes(name, value), value
    for value in bad:
        assert not re.search(patterns[name], value), value
        assert not takes(name, value), value


@pytest.mark.parametrize(("name", "good", "bad"), SAMPLES, ids=[name for name, _, _ in SAMPLES])
def test_patterns_are_posix(name: str, good: list[str], bad: list[str], patterns: dict[str, str]) -> None:
    for value in [*good, *filter(None, bad)]:
        done = subprocess.run(
            ["grep", "-Eq", "-e", patterns[name]], input=value, text=True, check=False, env={"LC_ALL": "C.UTF-8"}
        )
        assert (done.returncode == 0) == (re.search(patterns[name], value) is not None), value


def test_patterns_keep_to_what_all_dialects_have(patterns: dict[str, str]) -> None:
    for pattern in patterns.values():
        outside_brackets = re.sub(r"\[[^]]+\]", "x", pattern)
        assert not re.search(r"\(\?|\\[A-Za-z]|[*+?}][?+]", outside_brackets), pattern
        assert not re.search(r"\[[^]]*[\\[]", pattern), pattern
        assert all(int(most) <= 1000 for most in re.findall(r"\{[0-9]+,([0-9]+)\}", pattern)), pattern  # RE2


@pytest.mark.parametrize(
    ("image", "is_one"),
    [
        (f"us-west1-docker.pkg.dev/p/r/hear@{DIGEST}", True),
        ("us-west1-docker.pkg.dev/p/r/hear:latest", False),
        (f"us-west1-docker.pkg.dev/p/r/hear@{DIGEST}0", False),
        (DIGEST, False),
    ],
)
def test_the_workers_image_is_named_by_its_digest(image: str, is_one: bool, patterns: dict[str, str]) -> None:
    assert (re.search(patterns["sdk_container_image"], image) is not None) == is_one


def test_patterns_of_kinds_are_the_commands_own(patterns: dict[str, str]) -> None:
    kinds: dict[str, Any] = {action.dest: action.type for action in make_parser()._actions}
    for name in ("limit", "timeout_s", "max_failure_fraction", "max_attempts", "decoder_processes"):
        assert patterns[name] == f"^({kinds[name].pattern})$"
